// What is set for a project, who may do what, who works, and what can be taken out.
import { del, get, patch } from "../api.js";
import { Dialog } from "../components.js";
import { ago, bytes, span } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { toast } from "../toast.js";
import { namesIn } from "./create_project.js";
import { Keys } from "./keys.js";
import { mayManageKeys } from "./roles.js";
import { score } from "./words.js";

/** For engineers and admins. */
export function Settings({ project, session, onChange }) {
  return html`
    <div class="columns">
      <div class="stack">
        <${ProjectForm} project=${project} onChange=${onChange} />
        ${mayManageKeys(session) && html`<${Keys} project=${project} session=${session} />`}
      </div>
      <div class="stack">
        <${Downloads} project=${project} />
        <${Workers} />
        <${Danger} project=${project} />
      </div>
    </div>
  `;
}

function ProjectForm({ project, onChange }) {
  const [name, setName] = useState(project.name);
  const [more, setMore] = useState("");
  const [instructions, setInstructions] = useState(project.instructions);
  const [validation, setValidation] = useState(String(project.validation_images));
  const [problem, setProblem] = useState(null);
  const save = async (event) => {
    event.preventDefault();
    setProblem(null);
    try {
      await patch(`/projects/${project.id}`, {
        name: name.trim(),
        instructions,
        validation_images: Number(validation),
        classes: [...project.classes, ...namesIn(more)],
      });
      setMore("");
      toast("Saved", "success");
      onChange();
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`
    <form class="card stack" onSubmit=${save} novalidate aria-labelledby="project-form-title">
      <h2 id="project-form-title">Project</h2>
      <div class="field"><label for="set-name">Name</label><input id="set-name" value=${name} onInput=${(event) => setName(event.target.value)} /></div>
      <div class="field"><label for="set-classes">More classes</label><input id="set-classes" value=${more} placeholder="bus, tram" onInput=${(event) => setMore(event.target.value)} />
        <p class="hint">There are ${project.classes.join(" · ")}. Classes can be added, never removed: labels name them.</p></div>
      <div class="field"><label for="set-validation">Images to measure on</label><input id="set-validation" class="short" type="number" min="0" value=${validation} onInput=${(event) => setValidation(event.target.value)} />
        <p class="hint">Drawn by the first cycle. Without effect once there are validation images.</p></div>
      <div class="field"><label for="set-instructions">Instructions for annotators</label><textarea id="set-instructions" rows="4" value=${instructions} onInput=${(event) => setInstructions(event.target.value)}></textarea></div>
      <p class="error" role="alert">${problem}</p>
      <div class="actions"><button class="button primary" type="submit">Save</button></div>
    </form>
  `;
}

function Downloads({ project }) {
  const [models, setModels] = useState(null);
  useEffect(() => {
    get("/models", { project: project.id, limit: 20 }).then((page) => setModels(page.items), (error) => setModels({ error: error.message }));
  }, [project.id]);
  const labels = (format, images) => `/exports?project=${project.id}&format=${format}${images ? "&images=true" : ""}`;
  return html`
    <section class="card stack" aria-labelledby="downloads-title">
      <h2 id="downloads-title">Downloads</h2>
      <table>
        <thead><tr><th scope="col">Labels</th><th scope="col">Labels only</th><th scope="col">With pictures</th></tr></thead>
        <tbody>
          ${[["coco", "COCO", "JSON", "zip"], ["voc", "Pascal VOC", "zip", "zip"]].map(
            ([format, name, plain, full]) => html`<tr><th scope="row">${name}</th><td><a href=${labels(format, false)} download>${plain}<span class="visually-hidden"> of ${name} labels</span></a></td><td><a href=${labels(format, true)} download>${full}<span class="visually-hidden"> of ${name} labels with pictures</span></a></td></tr>`,
          )}
        </tbody>
      </table>
      <h3>Models</h3>
      ${models?.error && html`<p class="error">${models.error}</p>`}
      ${Array.isArray(models) &&
      (models.length === 0
        ? html`<p class="muted small">Every trained cycle leaves one.</p>`
        : html`<ul class="downloads">${models.map(
            (model) => html`<li key=${model.id}>${model.checkpoint_url ? html`<a href=${model.checkpoint_url} download>Model of cycle ${model.cycle_number}</a>` : html`<span class="muted">Model of cycle ${model.cycle_number}: weights were swept</span>`} <span class="muted small number">mAP@0.5 ${score(model.metrics.map50)} · ${bytes(model.num_bytes)}</span></li>`,
          )}</ul>`)}
      <p class="small muted">Lists of names, scores, the step log and the configuration of each cycle are under Cycles, Details.</p>
    </section>
  `;
}

function Workers() {
  const [workers, setWorkers] = useState(null);
  useEffect(() => {
    const look = () => get("/workers", { limit: 1000 }).then((page) => setWorkers(page.items), (error) => setWorkers({ error: error.message }));
    look();
    const timer = setInterval(look, 10_000);
    return () => clearInterval(timer);
  }, []);
  const rows = Array.isArray(workers) ? [...workers].sort((a, b) => a.seconds_since_seen - b.seconds_since_seen).slice(0, 20) : [];
  return html`
    <section class="card stack" aria-labelledby="workers-title">
      <h2 id="workers-title">Workers</h2>
      ${workers?.error && html`<p class="error">${workers.error}</p>`}
      ${Array.isArray(workers) && rows.length === 0 && html`<p class="muted">None has ever reported. <code>python -m worker</code> starts one.</p>`}
      ${rows.length > 0 &&
      html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of workers"><table><thead><tr><th scope="col">Name</th><th scope="col">Device</th><th scope="col">State</th><th scope="col">Seen</th></tr></thead><tbody>
        ${rows.map((worker) => html`<tr key=${worker.id}><th scope="row">${worker.name}</th><td>${worker.device}</td><td><span class=${`badge ${worker.live ? "good" : "warn"}`}>${worker.live ? (worker.cycle ? "Working" : "Idle") : "Away"}</span></td><td class="muted number">${worker.live ? "now" : `${span(worker.seconds_since_seen)} ago`}</td></tr>`)}
      </tbody></table></div>`}
    </section>
  `;
}

function Danger({ project }) {
  const [asking, setAsking] = useState(false);
  const [typed, setTyped] = useState("");
  const remove = async (event) => {
    event.preventDefault();
    try {
      await del(`/projects/${project.id}`);
      location.assign("/app/");
    } catch (error) {
      toast(error.message, "error");
    }
  };
  return html`
    <section class="card row" aria-label="Delete the project">
      <p class="muted small">Created ${ago(project.created_at)}.</p>
      <button type="button" class="button danger end" onClick=${() => setAsking(true)}>Delete project</button>
    </section>
    ${asking &&
    html`<${Dialog} title="Delete this project?" onClose=${() => setAsking(false)}>
      <form class="stack" onSubmit=${remove}>
        <p>Its images, labels, cycles and models go with it. There is no way back.</p>
        <div class="field"><label for="delete-name">Type its name, ${project.name}</label><input id="delete-name" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></div>
        <div class="actions"><button type="submit" class="button danger" disabled=${typed !== project.name}>Delete project</button><button type="button" class="button" onClick=${() => setAsking(false)}>Keep it</button></div>
      </form>
    <//>`}
  `;
}
