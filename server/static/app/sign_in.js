import { openSession } from "./api.js";

const form = document.getElementById("sign-in");
const error = document.getElementById("sign-in-error");

/** Where to go afterwards: only a page of ours. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "";
  return /^\/app\/(?!\/)/.test(wanted) ? wanted : "/app/";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  error.textContent = "";
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await openSession(form.elements.key.value.trim());
    location.assign(next());
  } catch (problem) {
    error.textContent =
      problem.status === 401 ? "This is not a key of this server. Check it for a typing error." : problem.message;
    form.elements.key.select();
  } finally {
    button.disabled = false;
  }
});

form.elements.key.focus();
