// Where pictures and archives are dropped, and what became of each file.
import { get, request } from "../api.js";
import { Progress } from "../components.js";
import { bytes, count, plural } from "../format.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { filesOf, isArchive, uploadAll } from "./upload_queue.js";
import { ACTIVE } from "./watch.js";

const SHOWN = 200;
const NOTHING = { created: 0, duplicate: 0, rejected: 0, failed: 0 };

export function Upload({ project, onDone }) {
  const [split, setSplit] = useState("pool");
  const [over, setOver] = useState(false);
  const [job, setJob] = useState(null); // {total, bytes, done, sums, refused, running}
  const [archive, setArchive] = useState(null);
  const controller = useRef(null);
  const picker = useRef(null);
  const folderPicker = useRef(null);
  const large = project.counts.images === 0 && job === null && archive === null;
  const busy = job?.running || (archive && ACTIVE.has(archive.state));

  useEffect(() => {
    if (!job?.running) return undefined;
    const ask = (event) => event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [job?.running]);
  useEffect(() => () => controller.current?.abort(), []);

  const begin = async (files) => {
    if (files.length === 0) return;
    if (files.length === 1 && isArchive(files[0].name)) {
      await sendArchive(files[0], project.id, split, setArchive, onDone);
      return;
    }
    controller.current = new AbortController();
    const size = files.reduce((sum, entry) => sum + entry.file.size, 0);
    setJob({ total: files.length, bytes: size, done: 0, sums: NOTHING, refused: [], running: true });
    await uploadAll(files, {
      project: project.id,
      split,
      signal: controller.current.signal,
      onResults: (results) =>
        setJob((now) => {
          const sums = { ...now.sums };
          for (const { status } of results) sums[status] += 1;
          const refused = [...now.refused, ...results.filter((each) => ["rejected", "failed"].includes(each.status))];
          return { ...now, done: now.done + results.length, sums, refused };
        }),
    });
    setJob((now) => ({ ...now, running: false }));
    onDone();
  };
  const pick = (event) => {
    const files = [...event.target.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
    event.target.value = "";
    begin(files);
  };
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    if (!busy) begin(await filesOf(event.dataTransfer));
  };
  return html`
    <section class=${`drop-zone ${large ? "large" : ""} ${over ? "over" : ""}`} aria-label="Add images"
      onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${(event) => { if (!event.currentTarget.contains(event.relatedTarget)) setOver(false); }} onDrop=${drop}>
      <svg class="icon drop-icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M12 16V4M7 9l5-5 5 5M4 16v3a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-3" /></svg>
      <div class="drop-text">
        <h2>${large ? "Drop pictures, folders or an archive here" : "Add images"}</h2>
        <p class="muted small">JPEG, PNG, WebP, BMP or TIFF, as many as you like; a zip or tar may bring VOC or COCO labels along.</p>
      </div>
      <div class="actions">
        <label class="inline-field">Into
          <select value=${split} disabled=${busy} onChange=${(event) => setSplit(event.target.value)}>
            <option value="pool">the pool</option><option value="val">validation</option><option value="test">test</option>
          </select>
        </label>
        <button type="button" class=${large ? "button primary" : "button"} disabled=${busy} onClick=${() => picker.current.click()}>Choose files</button>
        <button type="button" class="button" disabled=${busy} onClick=${() => folderPicker.current.click()}>Choose a folder</button>
        <input ref=${picker} class="file-input" type="file" multiple aria-label="Files to add" tabindex="-1" onChange=${pick} />
        <input ref=${folderPicker} class="file-input" type="file" webkitdirectory aria-label="Folder to add" tabindex="-1" onChange=${pick} />
      </div>
    </section>
    ${job && html`<${UploadReport} job=${job} onStop=${() => controller.current.abort()} onClose=${() => setJob(null)}
      onAgain=${() => begin(job.refused.filter((each) => each.status === "failed").map((each) => each.entry))} />`}
    ${archive && html`<${ArchiveReport} job=${archive} onClose=${() => setArchive(null)} />`}
  `;
}

function UploadReport({ job, onStop, onClose, onAgain }) {
  const { sums } = job;
  const parts = [
    [sums.created, "added", "good"],
    [sums.duplicate, "there already", ""],
    [sums.rejected, "refused", "bad"],
    [sums.failed, "not sent", "warn"],
  ];
  return html`
    <section class="card report" aria-label="Upload">
      <div class="row">
        <h2>${job.running ? `Uploading ${plural(job.total, "file")}` : `${plural(job.done, "file")} done`}</h2>
        <span class="muted">${bytes(job.bytes)}</span>
        <div class="end actions">
          ${!job.running && sums.failed > 0 && html`<button type="button" class="button" onClick=${onAgain}>Send ${count(sums.failed)} again</button>`}
          ${job.running ? html`<button type="button" class="button" onClick=${onStop}>Stop</button>` : html`<button type="button" class="button quiet" onClick=${onClose}>Close</button>`}
        </div>
      </div>
      <div class="live-progress"><${Progress} value=${job.done / job.total} label="Files sent" /><span class="number">${count(job.done)} / ${count(job.total)}</span></div>
      <p class="row" role="status">${parts.filter(([number]) => number > 0).map(([number, text, kind]) => html`<span class=${`badge ${kind}`}>${count(number)} ${text}</span>`)}</p>
      <${Refusals} items=${job.refused} />
    </section>
  `;
}

function Refusals({ items, total = items.length }) {
  if (items.length === 0) return null;
  return html`<div class="refusals scroll" tabindex="0" role="region" aria-label="Refused files">
    <table><tbody>
      ${items.slice(0, SHOWN).map((each) => html`<tr><th scope="row">${each.name}</th><td>${each.reason}</td></tr>`)}
    </tbody></table>
    ${total > SHOWN && html`<p class="muted small">and ${count(total - SHOWN)} more</p>`}
  </div>`;
}

async function sendArchive({ file }, project, split, show, onDone) {
  const first = { name: file.name, size: file.size, state: "running", progress: 0, message: "sending the archive", counts: {}, refused: [], num_refused: 0, error: null };
  show(first);
  const form = new FormData();
  form.append("project", project);
  form.append("split", split);
  form.append("archive", file, file.name);
  try {
    let job = await request("POST", "/imports", { form });
    for (;;) {
      show({ ...first, ...job });
      if (!ACTIVE.has(job.state)) break;
      await new Promise((resolve) => setTimeout(resolve, 700));
      job = await get(`/imports/${job.id}`);
    }
  } catch (error) {
    show({ ...first, state: "failed", error: error.message, message: "" });
  }
  onDone();
}

function ArchiveReport({ job, onClose }) {
  const active = ACTIVE.has(job.state);
  const { created = 0, duplicate = 0, rejected = 0, labeled = 0, boxes = 0 } = job.counts;
  return html`
    <section class="card report" aria-label="Import">
      <div class="row">
        <h2>${active ? `Importing ${job.name}` : job.state === "succeeded" ? `${job.name} is imported` : `${job.name} was not imported`}</h2>
        <span class="muted">${bytes(job.size)}</span>
        ${!active && html`<button type="button" class="button quiet end" onClick=${onClose}>Close</button>`}
      </div>
      ${active && html`<div class="live-progress"><${Progress} value=${job.progress} label="Progress of the import" /></div>`}
      ${job.error ? html`<p class="notice bad">${job.error}</p>` : html`<p class="muted">${job.message}</p>`}
      <p class="row" role="status">
        ${created > 0 && html`<span class="badge good">${count(created)} added</span>`}
        ${duplicate > 0 && html`<span class="badge">${count(duplicate)} there already</span>`}
        ${rejected > 0 && html`<span class="badge bad">${count(rejected)} refused</span>`}
        ${labeled > 0 && html`<span class="badge">${count(labeled)} labeled, ${plural(boxes, "box", "boxes")}</span>`}
      </p>
      <${Refusals} items=${job.refused} total=${job.num_refused} />
    </section>
  `;
}
