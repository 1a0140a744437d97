// What every page has: who is signed in, and the project's name in the header.
import { closeSession, get, session } from "./api.js";
import { toast } from "./toast.js";

/** Who is signed in (see `session`), shown in the header, with the way out. */
export async function showUser() {
  const found = await session();
  const place = document.getElementById("header-user");
  if (!found.open) {
    const name = document.createElement("span");
    name.className = "user-name";
    name.textContent = found.user.name;
    name.title = `${found.user.name}, ${found.user.role}`;
    const out = document.createElement("button");
    out.type = "button";
    out.className = "button quiet";
    out.textContent = "Sign out";
    out.addEventListener("click", () => closeSession().catch((error) => toast(error.message, "error")));
    place.replaceChildren(name, out);
  }
  return found;
}

/** The page's project, its name shown in header and title; ApiError 404 if there is none. */
export async function showProject(id) {
  const project = await get(`/projects/${encodeURIComponent(id)}`);
  document.getElementById("project-name").textContent = project.name;
  document.title = `${project.name}: ${document.title}`;
  return project;
}

/**
 * Start a page: session and project first, then `show`. What fails before is said on the page.
 * @param {(place: HTMLElement, context: {session: object, project: object|null}) => any} show
 */
export async function startPage(show) {
  const place = document.getElementById("page");
  try {
    const [found, project] = await Promise.all([
      showUser(),
      place.dataset.project ? showProject(place.dataset.project) : null,
    ]);
    await show(place, { session: found, project });
  } catch (error) {
    if (error.status === 401) return; // on the way to the sign-in page
    sayFailure(place, error);
    if (!["ApiError", "NetworkError"].includes(error.name)) throw error;
  }
}

function sayFailure(place, error) {
  const box = document.createElement("div");
  box.className = "empty";
  const title = document.createElement("h1");
  title.textContent =
    error.status === 404 || error.status === 422 ? "There is no such project" : "This page could not be loaded";
  const text = document.createElement("p");
  text.textContent = error.message;
  const actions = document.createElement("div");
  actions.className = "actions";
  const again = document.createElement("button");
  again.type = "button";
  again.className = "button";
  again.textContent = "Try again";
  again.addEventListener("click", () => location.reload());
  const home = document.createElement("a");
  home.className = "button primary";
  home.href = "/app/";
  home.textContent = "To the projects";
  actions.append(again, home);
  box.append(title, text, actions);
  place.replaceChildren(box);
}
