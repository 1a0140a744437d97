// How much of a pool is labeled, as a bar.
import { count } from "../format.js";
import { html } from "../preact.js";

/** @param {{counts: object}} props counts of the API's project */
export function PoolBar({ counts }) {
  const total = counts.labeled + counts.unlabeled;
  const label = `${count(counts.labeled)} of ${count(total)} pool images are labeled`;
  return html`<progress class="progress" max=${Math.max(1, total)} value=${counts.labeled} aria-label=${label}></progress>`;
}
