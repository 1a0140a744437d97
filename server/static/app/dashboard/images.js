// The pool: every image, filtered, and how more come in.
import { get } from "../api.js";
import { plural } from "../format.js";
import { html, useCallback, useEffect, useState } from "../preact.js";
import { Gallery } from "./gallery.js";
import { Upload } from "./upload.js";
import { badgeOf, uncertainty } from "./words.js";

const SPLITS = { "": "All splits", pool: "Pool", val: "Validation", test: "Test" };

export function Images({ project, scored, allowed, onChange }) {
  const [filter, setFilter] = useState({ split: "", state: "", class: "", order: "ordinal" });
  const [round, setRound] = useState(0);
  const [skipping, setSkipping] = useState(false);
  const set = (change) => setFilter({ ...filter, ...change });
  const load = useCallback(
    (cursor, signal) => {
      // The ranking of the newest cycle has an index of its own; sorting the list would not.
      if (filter.order === "uncertainty") return rankedImages(scored.id, cursor, signal);
      return get(
        "/images",
        { project: project.id, split: filter.split || null, state: filter.state || null, class: filter.class || null, skipped: skipping ? true : null, cursor, limit: 200 },
        { signal },
      );
    },
    [filter, skipping, round, scored?.id],
  );
  const ranked = filter.order === "uncertainty";
  return html`
    ${allowed && html`<${Upload} project=${project} onDone=${() => { setRound(round + 1); onChange(); }} />`}
    ${project.counts.images > 0 &&
    html`
      <div class="toolbar">
        <label class="inline-field">Order
          <select value=${filter.order} onChange=${(event) => set({ order: event.target.value })}>
            <option value="ordinal">As they came</option>
            ${scored && html`<option value="uncertainty">Unlabeled, most uncertain first</option>`}
          </select>
        </label>
        <label class="inline-field">Split
          <select value=${filter.split} disabled=${ranked} onChange=${(event) => set({ split: event.target.value })}>
            ${Object.entries(SPLITS).map(([key, name]) => html`<option value=${key}>${name}</option>`)}
          </select>
        </label>
        <label class="inline-field">State
          <select value=${skipping ? "skipped" : filter.state} disabled=${ranked}
            onChange=${(event) => { const value = event.target.value; setSkipping(value === "skipped"); set({ state: value === "skipped" ? "" : value }); }}>
            <option value="">All states</option><option value="unlabeled">Unlabeled</option><option value="labeled">Labeled</option><option value="skipped">Skipped</option>
          </select>
        </label>
        <label class="inline-field">Class
          <select value=${filter.class} disabled=${ranked} onChange=${(event) => set({ class: event.target.value })}>
            <option value="">All classes</option>
            ${project.classes.map((name) => html`<option>${name}</option>`)}
          </select>
        </label>
        <p class="muted end">${plural(project.counts.images, "image")} in all</p>
      </div>
      <${Gallery} load=${load} width=${150} height=${160} label="Images" empty=${html`<p class="nothing">No image is like that.</p>`}
        tile=${(image) => html`<${ImageTile} image=${image} />`} />
    `}
  `;
}

async function rankedImages(cycle, cursor, signal) {
  const page = await get(`/cycles/${cycle}/scores`, { cursor, limit: 200 }, { signal });
  const items = page.items.map(({ image, rank, uncertainty }) => ({
    id: image.id,
    name: image.name,
    rank,
    uncertainty,
    thumbnail_url: `/images/${image.id}/thumbnail`,
    content_url: `/images/${image.id}/content`,
  }));
  return { ...page, items };
}

function ImageTile({ image }) {
  const state = image.skipped ? "skipped" : image.state;
  return html`
    <a class="tile" href=${`${image.content_url}?rendition=display`} target="_blank" rel="noopener" title=${image.name}>
      <span class="tile-picture"><img src=${image.thumbnail_url} alt="" loading="lazy" decoding="async" />
        ${image.rank !== undefined && html`<span class="rank"><span class="visually-hidden">Rank </span>${image.rank}</span>`}
        ${["labeled", "skipped"].includes(state) && html`<span class=${`${badgeOf(state)} tile-state`}>${state === "labeled" ? plural(image.num_boxes, "box", "boxes") : "Skipped"}</span>`}
      </span>
      <span class="tile-text"><span class="clip">${image.name}</span>${
        image.split && image.split !== "pool" ? html`<span class="muted">${image.split}</span>` : image.uncertainty !== null && html`<span class="number muted">${uncertainty(image.uncertainty)}</span>`
      }</span>
    </a>
  `;
}
