// Bars: a histogram of uncertainties, and labels per class.
import { get } from "../api.js";
import { count, plural } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { FiguresTable } from "./chart.js";
import { uncertainty } from "./words.js";

const WIDTH = 400;
const HEIGHT = 96;

/** How the uncertainties of a cycle's pool are distributed, its selection in another colour. */
export function ScoreHistogram({ cycle }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    const controller = new AbortController();
    setFound(null);
    get(`/cycles/${cycle.id}/histogram`, { bins: 40 }, { signal: controller.signal })
      .then(setFound)
      .catch((error) => {
        if (error.name !== "AbortError") setFound({ error: error.message });
      });
    return () => controller.abort();
  }, [cycle.id]);
  if (found === null) return html`<div class="histogram-place"></div>`;
  if (found.error) return html`<p class="error">${found.error}</p>`;
  if (found.bins.length === 0) {
    return html`<p class="nothing">An initial cycle ranks at random: there is no model yet that could be uncertain.</p>`;
  }
  const highest = Math.max(...found.bins.map((bin) => bin.images));
  const total = found.bins.reduce((sum, bin) => sum + bin.images, 0);
  const selected = found.bins.reduce((sum, bin) => sum + bin.selected, 0);
  const step = WIDTH / found.bins.length;
  const rise = (images) => (images === 0 ? 0 : Math.max(1.5, (images / highest) * HEIGHT));
  const [low, high] = [found.bins[0].low, found.bins.at(-1).high];
  return html`
    <svg class="histogram" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
      aria-label=${`Distribution of ${plural(total, "uncertainty", "uncertainties")} from ${uncertainty(low)} to ${uncertainty(high)}; ${count(selected)} were selected`}>
      ${found.bins.map(
        (bin, place) => html`
          <rect class="bar" x=${place * step + 0.5} width=${step - 1} y=${HEIGHT - rise(bin.images)} height=${rise(bin.images)} />
          ${bin.selected > 0 &&
          html`<rect class="bar chosen" x=${place * step + 0.5} width=${step - 1} y=${HEIGHT - rise(bin.selected)} height=${rise(bin.selected)} />`}
        `,
      )}
    </svg>
    <div class="histogram-axis small muted"><span>${uncertainty(low)}</span><span>uncertainty</span><span>${uncertainty(high)}</span></div>
    <p class="legend"><span class="legend-item"><i class="key-bar"></i>${plural(total, "scored image")}</span><span class="legend-item"><i class="key-bar chosen"></i>${count(selected)} selected</span>${
      found.unscored > 0 && html`<span class="legend-item muted">${count(found.unscored)} without a score</span>`
    }</p>
    <${FiguresTable} caption="Distribution of uncertainties" head=${["From", "To", "Images", "Selected"]}
      rows=${found.bins.map((bin) => [uncertainty(bin.low), uncertainty(bin.high), count(bin.images), count(bin.selected)])} />
  `;
}

/** Boxes of each class. @param {{classes: {class: string, boxes: number, images: number}[]}} props */
export function LabelsPerClass({ classes }) {
  const highest = Math.max(1, ...classes.map((row) => row.boxes));
  return html`
    <table class="bars">
      <thead class="visually-hidden"><tr><th scope="col">Class</th><th scope="col">Share</th><th scope="col">Boxes</th><th scope="col">Images</th></tr></thead>
      <tbody>
        ${classes.map(
          (row) => html`<tr key=${row.class}>
            <th scope="row" class="clip">${row.class}</th>
            <td class="bar-cell"><svg class="bar-line" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="bar" width=${(row.boxes / highest) * 100} height="8" /></svg></td>
            <td class="number">${plural(row.boxes, "box", "boxes")}</td>
            <td class="number muted">${plural(row.images, "image")}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  `;
}
