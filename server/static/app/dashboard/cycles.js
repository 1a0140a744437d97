// All cycles of a project, what each left behind, and two of them side by side.
import { get } from "../api.js";
import { ago, bytes, count, span } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { Compare } from "./compare.js";
import { STATES, badgeOf, score, strategyOf } from "./words.js";

/** Seconds that a cycle took; null while it has not ended. */
export const secondsOf = (cycle) =>
  cycle.started_at && cycle.finished_at ? (new Date(cycle.finished_at) - new Date(cycle.started_at)) / 1000 : null;

/** `allowed`: to take files out. */
export function Cycles({ cycles, classes, allowed }) {
  const [open, setOpen] = useState(null);
  if (cycles.length === 0) {
    return html`<div class="empty small-empty"><h2>No cycle yet</h2><p>A cycle trains on what is labeled, scores the rest, and selects what to label next.</p></div>`;
  }
  return html`
    <div class="card flush">
      <div class="scroll-x" tabindex="0" role="region" aria-label="Cycles">
        <table class="cycles">
          <thead><tr><th scope="col" class="number">No.</th><th scope="col">State</th><th scope="col">Strategy</th><th scope="col" class="number">Labeled</th><th scope="col" class="number">Selected</th><th scope="col" class="number">mAP@0.5</th><th scope="col" class="number">Took</th><th scope="col">Started</th><th scope="col"><span class="visually-hidden">Details</span></th></tr></thead>
          <tbody>
            ${cycles.map(
              (cycle) => html`
                <tr key=${cycle.id}>
                  <td class="number">${cycle.number}</td>
                  <td><span class=${badgeOf(cycle.state)}>${STATES[cycle.state]}</span></td>
                  <td>${strategyOf(cycle)}</td>
                  <td class="number">${cycle.snapshot ? count(cycle.snapshot.labeled_images ?? 0) : "–"}</td>
                  <td class="number">${cycle.num_selected === null ? "–" : count(cycle.num_selected)}</td>
                  <td class="number">${score(cycle.metrics?.map50)}</td>
                  <td class="number">${secondsOf(cycle) === null ? "–" : span(secondsOf(cycle))}</td>
                  <td class="muted">${ago(cycle.created_at)}</td>
                  <td class="number"><button type="button" class="button quiet" aria-expanded=${open === cycle.id} onClick=${() => setOpen(open === cycle.id ? null : cycle.id)}>Details<span class="visually-hidden"> of cycle ${cycle.number}</span></button></td>
                </tr>
                ${open === cycle.id && html`<tr class="details-row"><td colspan="9"><${Details} cycle=${cycle} allowed=${allowed} /></td></tr>`}
              `,
            )}
          </tbody>
        </table>
      </div>
    </div>
    <${Compare} cycles=${cycles} classes=${classes} />
  `;
}

function Details({ cycle, allowed }) {
  const [files, setFiles] = useState(null);
  useEffect(() => {
    get(`/cycles/${cycle.id}/artifacts`).then((page) => setFiles(page.items), (error) => setFiles({ error: error.message }));
  }, [cycle.id]);
  return html`
    <div class="stack">
      <p class=${cycle.error ? "notice bad" : "muted"}>${cycle.error ?? cycle.message}</p>
      <dl class="facts wide">
        <div><dt>Preset</dt><dd>${cycle.training.preset}</dd></div>
        <div><dt>Budget</dt><dd>${count(cycle.budget)}</dd></div>
        <div><dt>Seed</dt><dd>${cycle.seed}</dd></div>
        <div><dt>Boxes</dt><dd>${count(cycle.snapshot?.boxes ?? 0)}</dd></div>
        <div><dt>Pool</dt><dd>${count(cycle.snapshot?.pool_images ?? 0)}</dd></div>
        <div><dt>Validation</dt><dd>${count(cycle.metrics?.validation_images ?? 0)}</dd></div>
      </dl>
      ${files?.error && html`<p class="error">${files.error}</p>`}
      ${Array.isArray(files) &&
      (files.length === 0
        ? html`<p class="muted small">It left no files behind.</p>`
        : html`<ul class="downloads" aria-label="Files of the cycle">${files.map((file) => html`<li>${allowed ? html`<a href=${file.url} download>${file.name}</a>` : file.name} <span class="muted small">${bytes(file.num_bytes)}</span></li>`)}</ul>`)}
    </div>
  `;
}
