// Two cycles side by side.
import { count, span } from "../format.js";
import { html, useState } from "../preact.js";
import { ScoreHistogram } from "./bars.js";
import { secondsOf } from "./cycles.js";
import { sayValue } from "./settings_values.js";
import { score, strategyOf } from "./words.js";

export function Compare({ cycles, classes }) {
  const ended = cycles.filter((cycle) => cycle.state === "succeeded");
  const trained = ended.filter((cycle) => cycle.kind === "trained");
  const [left, setLeft] = useState(null);
  const [right, setRight] = useState(null);
  if (ended.length < 2) return null;
  const find = (id, standard) => ended.find((cycle) => cycle.id === id) ?? standard;
  const a = find(left, trained[1] ?? ended[1]);
  const b = find(right, trained[0] ?? ended[0]);
  const changed =
    a.metrics && b.metrics && a.metrics.validation_sha256 !== b.metrics.validation_sha256;
  return html`
    <section class="card compare" aria-labelledby="compare-title">
      <h2 id="compare-title">Side by side</h2>
      ${changed && html`<p class="notice warn">The validation set changed between the two: their mAP was measured on different images or labels.</p>`}
      <div class="scroll-x" tabindex="0" role="region" aria-label="Two cycles side by side">
        <table>
          <thead><tr><th scope="col"><span class="visually-hidden">Figure</span></th>
            <th scope="col" class="number"><${Choice} label="First cycle" cycles=${ended} value=${a.id} onChange=${setLeft} /></th>
            <th scope="col" class="number"><${Choice} label="Second cycle" cycles=${ended} value=${b.id} onChange=${setRight} /></th>
            <th scope="col" class="number">Difference</th></tr></thead>
          <tbody>
            ${rowsOf(a, b, classes).map(
              ([name, first, second, difference]) => html`<tr><th scope="row">${name}</th><td class="number">${first}</td><td class="number">${second}</td><td class="number">${difference ?? ""}</td></tr>`,
            )}
          </tbody>
        </table>
      </div>
      <div class="two">
        ${[a, b].map((cycle) => html`<div key=${cycle.id}><h3>Uncertainties of cycle ${cycle.number}</h3><${ScoreHistogram} cycle=${cycle} /></div>`)}
      </div>
    </section>
  `;
}

function Choice({ label, cycles, value, onChange }) {
  return html`<select aria-label=${label} value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${cycles.map((cycle) => html`<option value=${cycle.id}>Cycle ${cycle.number}</option>`)}
  </select>`;
}

function signed(first, second, digits = 3) {
  if (typeof first !== "number" || typeof second !== "number") return "";
  const by = second - first;
  const text = digits === 0 ? count(Math.abs(by)) : Math.abs(by).toFixed(digits);
  return Number(text.replaceAll(",", "")) === 0 ? "=" : `${by > 0 ? "+" : "−"}${text}`;
}

function rowsOf(a, b, classes) {
  const whole = (name, value) => [name, ...[a, b].map((cycle) => (typeof value(cycle) === "number" ? count(value(cycle)) : "–")), signed(value(a), value(b), 0)];
  const figure = (name, value) => [name, score(value(a)), score(value(b)), signed(value(a), value(b))];
  const text = (name, value) => [name, value(a), value(b)];
  const ap = (cycle, name) => cycle.metrics?.per_class?.find((row) => row.class === name)?.ap50;
  const fields = Object.keys({ ...a.training, ...b.training }).filter((name) => JSON.stringify(a.training[name]) !== JSON.stringify(b.training[name]));
  return [
    text("Strategy", strategyOf),
    whole("Labeled images", (cycle) => cycle.snapshot?.labeled_images),
    whole("Boxes", (cycle) => cycle.snapshot?.boxes),
    whole("Selected", (cycle) => cycle.num_selected),
    figure("mAP@0.5", (cycle) => cycle.metrics?.map50),
    figure("mAP", (cycle) => cycle.metrics?.map),
    ...classes.map((name) => figure(`AP@0.5 ${name}`, (cycle) => ap(cycle, name))),
    whole("Validation images", (cycle) => cycle.metrics?.validation_images),
    text("Took", (cycle) => (secondsOf(cycle) === null ? "–" : span(secondsOf(cycle)))),
    text("Seed", (cycle) => String(cycle.seed)),
    ...fields.map((field) => text(field, (cycle) => sayValue(cycle.training[field]) || "–")),
  ];
}
