// One picture of a selection: where the model is uncertain, what it sees, and why it was selected.
import { Dialog } from "../components.js";
import { percent } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { HeatMap } from "./heat_map.js";
import { STATES, badgeOf, uncertainty, whyOf } from "./words.js";

export function QueryView({ queries, index, total, onMove, onClose }) {
  const query = queries[index];
  const [heat, setHeat] = useState(true);
  const [opacity, setOpacity] = useState(0.6);
  const [boxes, setBoxes] = useState(true);
  const [least, setLeast] = useState(0.3);
  const move = (step) => {
    const next = index + step;
    if (next >= 0 && next < queries.length) onMove(next);
  };
  useEffect(() => {
    const press = (event) => {
      if (event.target.matches?.("input, textarea, select")) return;
      if (event.key === "ArrowRight") move(1);
      else if (event.key === "ArrowLeft") move(-1);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [index, queries]);
  const { image } = query;
  const seen = query.predictions.filter((each) => each.score >= least);
  const stroke = Math.max(image.width, image.height) / 320;
  return html`
    <${Dialog} title=${`Rank ${query.rank}: ${image.name}`} onClose=${onClose} wide>
      <div class="query-view">
        <figure class="query-picture">
          <div class="picture-frame" style=${{ aspectRatio: `${image.width} / ${image.height}`, "--ratio": image.width / image.height }}>
            <img key=${image.id} src=${`${image.content_url}?rendition=display`} alt=${image.name} />
            ${heat && query.heatmap_url && html`<${HeatMap} url=${query.heatmap_url} opacity=${opacity} />`}
            ${boxes &&
            html`<svg class="boxes" viewBox=${`0 0 ${image.width} ${image.height}`} aria-hidden="true">
              ${seen.map((box) => html`<g><rect class="under" x=${box.x1} y=${box.y1} width=${box.x2 - box.x1} height=${box.y2 - box.y1} stroke-width=${stroke * 2.2} /><rect x=${box.x1} y=${box.y1} width=${box.x2 - box.x1} height=${box.y2 - box.y1} stroke-width=${stroke} /></g>`)}
            </svg>`}
          </div>
        </figure>
        <div class="query-facts stack">
          <div class="row">
            <button type="button" class="button" disabled=${index === 0} onClick=${() => move(-1)}>‹ Before</button>
            <button type="button" class="button" disabled=${index >= queries.length - 1} onClick=${() => move(1)}>Next ›</button>
            <span class=${`${badgeOf(query.state)} end`}>${STATES[query.state]}</span>
          </div>
          <dl class="facts">
            <div><dt>Rank</dt><dd>${query.rank} of ${total}</dd></div>
            <div><dt>Uncertainty</dt><dd>${uncertainty(query.uncertainty)}</dd></div>
            <div><dt>Size</dt><dd>${image.width} × ${image.height}</dd></div>
          </dl>
          <div>
            <h3>Why this one</h3>
            <p>${whyOf(query, total)}</p>
          </div>
          ${query.heatmap_url
            ? html`<div class="field">
                <label class="check"><input type="checkbox" checked=${heat} onChange=${(event) => setHeat(event.target.checked)} /> Instance uncertainty over the picture</label>
                <input type="range" min="0.1" max="1" step="0.05" value=${opacity} disabled=${!heat} aria-label="Strength of the heat map" onInput=${(event) => setOpacity(Number(event.target.value))} />
                <div class="ramp" aria-hidden="true"><span>certain</span><i></i><span>uncertain</span></div>
              </div>`
            : html`<p class="muted small">Without a model there is no heat map: this picture was drawn at random.</p>`}
          ${query.predictions.length > 0 &&
          html`<div class="field">
            <label class="check"><input type="checkbox" checked=${boxes} onChange=${(event) => setBoxes(event.target.checked)} /> What the model sees, from ${percent(least, 0)} confidence</label>
            <input type="range" min="0" max="0.95" step="0.05" value=${least} disabled=${!boxes} aria-label="Least confidence" onInput=${(event) => setLeast(Number(event.target.value))} />
            <p class="small muted">${seen.length === 0 ? `Nothing that sure; ${query.predictions.length} below.` : seen.slice(0, 8).map((box) => `${box.class} ${percent(box.score, 0)}`).join(" · ")}${seen.length > 8 ? " · …" : ""}</p>
          </div>`}
        </div>
      </div>
    <//>
  `;
}
