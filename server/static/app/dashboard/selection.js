// What a cycle selected, best first.
import { get } from "../api.js";
import { count } from "../format.js";
import { html, useCallback, useState } from "../preact.js";
import { Gallery } from "./gallery.js";
import { QueryView } from "./query_view.js";
import { STATES, badgeOf, strategyOf, uncertainty } from "./words.js";

export function Selection({ project, cycles }) {
  const succeeded = cycles.filter((cycle) => cycle.state === "succeeded");
  const [chosen, setChosen] = useState(null);
  const [state, setState] = useState("all");
  const [items, setItems] = useState([]);
  const [open, setOpen] = useState(null);
  const cycle = succeeded.find((each) => each.id === chosen) ?? succeeded[0];
  const load = useCallback(
    (cursor, signal) => get("/queries", { cycle: cycle?.id, state, cursor, limit: 60, count: cursor ? undefined : true }, { signal }),
    [cycle?.id, state],
  );
  if (!cycle) {
    return html`<div class="empty small-empty"><h2>Nothing is selected yet</h2><p>A cycle selects the pictures that annotators get next. They appear here with the reason for each.</p></div>`;
  }
  const total = cycle.num_selected ?? items.length;
  return html`
    <div class="toolbar">
      <label class="inline-field">Cycle
        <select value=${cycle.id} onChange=${(event) => setChosen(event.target.value)}>
          ${succeeded.map((each) => html`<option value=${each.id}>${each.number} · ${strategyOf(each)}</option>`)}
        </select>
      </label>
      <label class="inline-field">State
        <select value=${state} onChange=${(event) => setState(event.target.value)}>
          <option value="all">All</option>
          ${["open", "claimed", "labeled", "skipped", "withdrawn"].map((each) => html`<option value=${each}>${STATES[each]}</option>`)}
        </select>
      </label>
      <p class="muted end">${count(total)} selected from ${count(cycle.snapshot?.pool_images ?? 0)}</p>
    </div>
    <${Gallery} key=${`${cycle.id} ${state}`} load=${load} width=${180} height=${196} label="Selected images, best first" onItems=${(all) => setItems([...all])}
      empty=${html`<p class="nothing">No image of this selection is in this state.</p>`}
      tile=${(query, index) => html`<${QueryTile} query=${query} onOpen=${() => setOpen(index)} />`} />
    ${open !== null && items[open] &&
    html`<${QueryView} queries=${items} index=${open} total=${total} onMove=${setOpen} onClose=${() => setOpen(null)} />`}
  `;
}

function QueryTile({ query, onOpen }) {
  return html`
    <button type="button" class="tile" onClick=${onOpen}>
      <span class="tile-picture"><img src=${query.image.thumbnail_url} alt="" loading="lazy" decoding="async" />
        <span class="rank"><span class="visually-hidden">Rank </span>${query.rank}</span>
        ${query.state !== "open" && html`<span class=${`${badgeOf(query.state)} tile-state`}>${STATES[query.state]}</span>`}
      </span>
      <span class="tile-text"><span class="clip"><span class="visually-hidden">${query.image.name}: </span>${query.reason.replace("-", " ")}</span><span class="number">${uncertainty(query.uncertainty)}</span></span>
    </button>
  `;
}
