// All projects.
import { get } from "./api.js";
import { Empty } from "./components.js";
import { ago } from "./format.js";
import { startPage } from "./frame.js";
import { html, render } from "./preact.js";

function Projects({ projects }) {
  if (projects.length === 0) {
    return html`<${Empty} title="No project yet">
      <p>A project is a pool of images and the classes to find in them. Create one through the <a href="/docs">API</a> or with <code>miaod projects create</code>.</p>
    <//>`;
  }
  return html`
    <h1>Projects</h1>
    <ul class="cards">
      ${projects.map(
        (project) => html`<li class="card" key=${project.id}>
          <h2><a href=${`/app/projects/${project.id}`}>${project.name}</a></h2>
          <p class="muted">${project.classes.join(", ")}</p>
          <p class="muted">Created ${ago(project.created_at)}</p>
        </li>`,
      )}
    </ul>
  `;
}

startPage(async (place) => {
  const page = await get("/projects", { limit: 1000 });
  render(html`<${Projects} projects=${page.items} />`, place);
});
