// Beside the picture: classes with their keys, suggestions, and the list of boxes.
import { plural } from "../format.js";
import { html } from "../preact.js";
import { PATTERN } from "./canvas.js";
import { classKeys } from "./keys.js";
import { look } from "./palette.js";

/** A class's colour and fill. */
export function Swatch({ index }) {
  const style = look(index);
  return html`<svg class="swatch" viewBox="0 0 16 16" aria-hidden="true">
    <rect x="1" y="1" width="14" height="14" rx="3" fill=${style.colour} fill-opacity=${style.fill === "plain" ? 1 : 0.18} stroke=${style.colour} stroke-width="2" />
    ${style.fill !== "plain" && html`<path d=${PATTERN[style.fill]} transform="translate(4 4)" stroke=${style.colour} stroke-width="1.8" stroke-linecap="round" fill="none" />`}
  </svg>`;
}

export function Panel({ desk }) {
  return html`
    <${Classes} desk=${desk} />
    <${Suggestions} desk=${desk} />
    <${Boxes} desk=${desk} />
  `;
}

function Classes({ desk }) {
  const { project, editor, settings } = desk;
  const keys = classKeys(project.classes);
  const chosen = editor.selectedBox?.class ?? settings.className;
  const numbers = new Map();
  for (const box of editor.boxes) numbers.set(box.class, (numbers.get(box.class) ?? 0) + 1);
  return html`
    <section class="panel-part" aria-labelledby="classes-title">
      <h2 id="classes-title">Class <span class="muted small">${editor.selectedBox ? "of the selected box" : "of the next box"}</span></h2>
      <ul class="classes">
        ${project.classes.map(
          (name, index) => html`<li key=${name}>
            <button
              type="button"
              class="class-button"
              aria-pressed=${chosen === name ? "true" : "false"}
              onClick=${() => {
                editor.setClass(name);
                desk.keepSettings();
              }}
            >
              <${Swatch} index=${index} />
              <span class="class-name">${name}</span>
              ${numbers.get(name) && html`<span class="muted small">${numbers.get(name)}</span>`}
              ${keys[index] && html`<kbd>${keys[index].toUpperCase()}</kbd>`}
            </button>
          </li>`,
        )}
      </ul>
    </section>
  `;
}

function Suggestions({ desk }) {
  const { editor, settings } = desk;
  if (editor.predictions.length === 0) {
    return html`<section class="panel-part" aria-labelledby="suggestions-title">
      <h2 id="suggestions-title">Suggestions</h2>
      <p class="muted small">None for this image: it was chosen without a model, or the model saw nothing.</p>
    </section>`;
  }
  const number = editor.suggestions.length;
  return html`
    <section class="panel-part" aria-labelledby="suggestions-title">
      <div class="panel-head">
        <h2 id="suggestions-title">Suggestions</h2>
        <button
          type="button"
          class="icon-button"
          aria-pressed=${settings.suggestionsShown ? "true" : "false"}
          aria-label="Show suggestions"
          title="Show suggestions (H)"
          onClick=${() => desk.run({ name: "suggestions" })}
        >
          <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M2 12s3.6-7 10-7 10 7 10 7-3.6 7-10 7S2 12 2 12Z" /><circle cx="12" cy="12" r="3" /></svg>
        </button>
      </div>
      <div class="slider">
        <label for="threshold">Confidence from</label>
        <output for="threshold">${Math.round(settings.threshold * 100)} %</output>
        <input
          id="threshold"
          type="range"
          min="0"
          max="100"
          step="1"
          value=${Math.round(settings.threshold * 100)}
          onInput=${(event) => {
            settings.threshold = Number(event.target.value) / 100;
            desk.keepSettings();
          }}
        />
      </div>
      <button type="button" class="button" disabled=${number === 0} onClick=${() => desk.run({ name: "accept" })}>
        ${editor.selectedSuggestion ? "Accept the selected one" : number === 0 ? "None to accept" : `Accept ${number}`}
        <kbd>Enter</kbd>
      </button>
    </section>
  `;
}

function Boxes({ desk }) {
  const { editor, project } = desk;
  return html`
    <section class="panel-part grows" aria-labelledby="boxes-title">
      <h2 id="boxes-title">${plural(editor.boxes.length, "box", "boxes")}</h2>
      ${editor.boxes.length === 0 &&
      html`<p class="muted small">Draw over the picture, or press <kbd>N</kbd>. Nothing to box here? Press <kbd>X</kbd>.</p>`}
      <ul class="boxes">
        ${editor.boxes.map((box) => {
          const isSelected = editor.selected?.box === box.id;
          const width = Math.round(box.x2 - box.x1);
          const height = Math.round(box.y2 - box.y1);
          return html`<li key=${box.id} class=${isSelected ? "selected" : ""}>
            <button
              type="button"
              class="box-button"
              aria-pressed=${isSelected ? "true" : "false"}
              onClick=${() => desk.selectBox(box.id)}
            >
              <${Swatch} index=${Math.max(0, project.classes.indexOf(box.class))} />
              <span class="class-name">${box.class}</span>
              <span class="muted small number">${width} × ${height}</span>
            </button>
            <button
              type="button"
              class="icon-button"
              aria-pressed=${box.difficult ? "true" : "false"}
              aria-label=${`Difficult: ${box.class} ${width} by ${height}`}
              title="Difficult (D)"
              onClick=${() => editor.toggleDifficult(box.id)}
            >
              <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M9.2 9a3 3 0 1 1 4.3 2.8c-1 .5-1.5 1.2-1.5 2.2M12 17.5h.01" /><circle cx="12" cy="12" r="9.5" /></svg>
            </button>
            <button
              type="button"
              class="icon-button"
              aria-label=${`Remove: ${box.class} ${width} by ${height}`}
              title="Remove (Delete)"
              onClick=${() => {
                editor.selected = { box: box.id };
                editor.remove();
              }}
            >
              <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="M6 6l12 12M18 6 6 18" /></svg>
            </button>
          </li>`;
        })}
      </ul>
    </section>
  `;
}
