// Who labeled how much, and how fast.
import { ago, count, plural } from "../format.js";
import { html } from "../preact.js";

const seconds = (value) => (value === null ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} s`);

/** @param {{statistics: object}} props of `GET /projects/{id}/statistics` */
export function Work({ statistics }) {
  const { authors, imported } = statistics;
  if (authors.length === 0 && imported === 0) return html`<p class="nothing">Nobody has labeled anything yet.</p>`;
  return html`
    ${authors.length > 0 &&
    html`<div class="scroll-x" tabindex="0" role="region" aria-label="Who labeled how much"><table>
      <thead><tr><th scope="col">Who</th><th scope="col" class="number">Images</th><th scope="col" class="number">Boxes</th><th scope="col" class="number">Median</th><th scope="col" class="number">Mean</th><th scope="col">Last</th></tr></thead>
      <tbody>${authors.map((row) => html`<tr key=${row.author}><th scope="row" class="clip">${row.author}</th><td class="number">${count(row.images)}</td><td class="number">${count(row.boxes)}</td><td class="number">${seconds(row.seconds_median)}</td><td class="number">${seconds(row.seconds_mean)}</td><td class="muted">${ago(row.last_at)}</td></tr>`)}</tbody>
    </table></div>`}
    ${imported > 0 && html`<p class="muted small">${plural(imported, "image has its label", "images have their labels")} from an import.</p>`}
  `;
}
