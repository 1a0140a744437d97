// Light, dark, or as the system says; chosen per browser. `document.documentElement.dataset.theme`
// is absent, "light" or "dark"; theme.css follows it.
(() => {
  const root = document.documentElement;
  const ORDER = ["system", "light", "dark"];
  const LABEL = { system: "as the system", light: "light", dark: "dark" };

  const chosen = () => {
    try {
      const stored = localStorage.getItem("miaod-theme");
      return ORDER.includes(stored) ? stored : "system";
    } catch {
      return "system"; // storage is forbidden: nothing to remember
    }
  };

  const apply = (theme) => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    root.dataset.themeChoice = theme;
    const button = document.getElementById("theme-switch");
    if (button) {
      button.setAttribute("aria-label", `Colours: ${LABEL[theme]}`);
      button.title = `Colours: ${LABEL[theme]}`;
    }
    root.dispatchEvent(new CustomEvent("themechange"));
  };

  apply(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    apply(chosen());
    document.getElementById("theme-switch")?.addEventListener("click", () => {
      const next = ORDER[(ORDER.indexOf(root.dataset.themeChoice) + 1) % ORDER.length];
      try {
        localStorage.setItem("miaod-theme", next);
      } catch {
        // it holds until the page is left
      }
      apply(next);
    });
  });
})();
