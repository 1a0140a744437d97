// Short notices at the edge of the page; screen readers hear them.

const SECONDS = 6;

/**
 * Show a notice for a few seconds.
 * @param {string} text a sentence
 * @param {"info"|"success"|"error"} [kind] errors stay until they are closed
 */
export function toast(text, kind = "info") {
  const box = document.createElement("div");
  box.className = `toast ${kind}`;
  const sentence = document.createElement("span");
  sentence.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "icon-button";
  close.setAttribute("aria-label", "Close");
  close.textContent = "×";
  close.addEventListener("click", () => box.remove());
  box.append(sentence, close);
  document.getElementById("toasts").append(box);
  if (kind !== "error") setTimeout(() => box.remove(), SECONDS * 1000);
}
