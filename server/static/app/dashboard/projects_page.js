// All projects: what each has, and how good its model is.
import { get } from "../api.js";
import { Dialog } from "../components.js";
import { ago, count, plural } from "../format.js";
import { startPage } from "../frame.js";
import { html, render, useEffect, useState } from "../preact.js";
import { CreateProject } from "./create_project.js";
import { mayCreate } from "./roles.js";
import { PoolBar } from "./pool_bar.js";
import { STATES, badgeOf, score } from "./words.js";

function ProjectCard({ project }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    const controller = new AbortController();
    const signal = controller.signal;
    Promise.all([
      get(`/projects/${project.id}`, {}, { signal }),
      get("/cycles", { project: project.id, limit: 20 }, { signal }),
    ])
      .then(([detail, cycles]) => setFound({ counts: detail.counts, cycles: cycles.items }))
      .catch((error) => {
        if (error.name !== "AbortError") setFound({ error: error.message });
      });
    return () => controller.abort();
  }, [project.id]);
  const newest = found?.cycles?.[0];
  const measured = found?.cycles?.find((cycle) => typeof cycle.metrics?.map50 === "number");
  return html`
    <li class="card project-card">
      <div class="row">
        <h2><a class="whole-card" href=${`/app/projects/${project.id}`}>${project.name}</a></h2>
        ${newest && html`<span class=${badgeOf(newest.state)}>Cycle ${newest.number} · ${STATES[newest.state]}</span>`}
      </div>
      <p class="muted small clip">${project.classes.join(" · ")}</p>
      ${found?.counts && html`<${PoolBar} counts=${found.counts} />`}
      ${found?.error && html`<p class="error small">${found.error}</p>`}
      <dl class="facts">
        <div><dt>Labeled</dt><dd>${found?.counts ? `${count(found.counts.labeled)} of ${count(found.counts.labeled + found.counts.unlabeled)}` : "…"}</dd></div>
        <div><dt>mAP@0.5</dt><dd>${found ? score(measured?.metrics.map50) : "…"}</dd></div>
        <div><dt>Cycles</dt><dd>${found ? count(newest?.number ?? 0) : "…"}</dd></div>
        <div><dt>Created</dt><dd>${ago(project.created_at)}</dd></div>
      </dl>
    </li>
  `;
}

function FirstProject({ allowed }) {
  if (!allowed) {
    return html`<div class="empty"><h1>No project yet</h1>
      <p>Projects that you may see appear here. Ask whoever runs this server to make one, or to give your key access to one.</p></div>`;
  }
  return html`
    <div class="welcome">
      <div class="welcome-text">
        <h1>Create your first project</h1>
        <p>A project is a pool of pictures and the classes of objects to find in them. You label a few, a detector learns from them, and it asks for the pictures from which it would learn most.</p>
        <ol class="steps-preview">
          <li><b>Create a project</b> with its classes</li>
          <li><b>Drop pictures</b> into it</li>
          <li><b>Start the first cycle</b>: it draws pictures at random</li>
          <li><b>Annotate</b> what it drew</li>
          <li><b>Start the next cycle</b>: it trains, and asks for more</li>
        </ol>
      </div>
      <div class="card welcome-form"><${CreateProject} first /></div>
    </div>
  `;
}

function Projects({ projects, session }) {
  const [creating, setCreating] = useState(false);
  const allowed = mayCreate(session);
  if (projects.length === 0) return html`<${FirstProject} allowed=${allowed} />`;
  return html`
    <div class="page-head">
      <h1>Projects</h1>
      <p class="muted">${plural(projects.length, "project")}</p>
      ${allowed && html`<button type="button" class="button primary end" onClick=${() => setCreating(true)}>New project</button>`}
    </div>
    <ul class="cards projects">
      ${[...projects].reverse().map((project) => html`<${ProjectCard} key=${project.id} project=${project} />`)}
    </ul>
    ${creating &&
    html`<${Dialog} title="New project" onClose=${() => setCreating(false)}>
      <${CreateProject} onCancel=${() => setCreating(false)} />
    <//>`}
  `;
}

startPage(async (place, { session }) => {
  const page = await get("/projects", { limit: 1000 });
  render(html`<${Projects} projects=${page.items} session=${session} />`, place);
});
