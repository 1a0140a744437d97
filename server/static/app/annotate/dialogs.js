// What opens over the desk: keys, instructions, skip, unsent saves, a conflict, and who one is.
import { signIn } from "../api.js";
import { Dialog } from "../components.js";
import { ago, plural } from "../format.js";
import { html, useState } from "../preact.js";
import { HELP } from "./keys.js";
import { look } from "./palette.js";

const REASONS = ["Too blurred or too dark", "Not of this project", "Broken picture", "Cannot decide"];

export function DeskDialog({ desk }) {
  const { dialog } = desk;
  if (!dialog) return null;
  const close = () => desk.close();
  switch (dialog.name) {
    case "keys":
      return html`<${Keys} onClose=${close} />`;
    case "instructions":
      return html`<${Dialog} title="Instructions" onClose=${close}>
        ${desk.project.instructions
          ? html`<p class="instructions">${desk.project.instructions}</p>`
          : html`<p class="muted">This project has no instructions yet.</p>`}
      <//>`;
    case "skip":
      return html`<${Skip} desk=${desk} onClose=${close} />`;
    case "unsaved":
      return html`<${Unsaved} desk=${desk} onClose=${close} />`;
    case "conflict":
      return html`<${Conflict} desk=${desk} entry=${dialog.entry} onClose=${close} />`;
  }
  return null;
}

function Keys({ onClose }) {
  return html`<${Dialog} title="Keys" onClose=${onClose} wide>
    <div class="help">
      ${HELP.map(
        ([group, rows]) => html`<section key=${group}>
          <h3>${group}</h3>
          <dl>
            ${rows.map(
              ([keys, text]) => html`<div>
                <dt>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dt>
                <dd>${text}</dd>
              </div>`,
            )}
          </dl>
        </section>`,
      )}
    </div>
  <//>`;
}

function Skip({ desk, onClose }) {
  const [reason, setReason] = useState("");
  const skip = (text) => desk.skip(text.trim());
  return html`<${Dialog} title="Skip this image" onClose=${onClose}>
    <p class="muted">It is not asked for again until somebody un-skips it. Why can it not be labeled?</p>
    <div class="reasons">
      ${REASONS.map(
        (text, index) => html`<button type="button" class="button" autofocus=${index === 0} onClick=${() => skip(text)}>${text}</button>`,
      )}
    </div>
    <form
      class="row"
      onSubmit=${(event) => {
        event.preventDefault();
        skip(reason);
      }}
    >
      <label class="visually-hidden" for="skip-reason">Another reason</label>
      <input id="skip-reason" maxlength="1000" placeholder="Another reason" value=${reason} onInput=${(event) => setReason(event.target.value)} />
      <button type="submit" class="button primary" disabled=${reason.trim() === ""}>Skip</button>
    </form>
  <//>`;
}

function Unsaved({ desk, onClose }) {
  const { entries, stopped } = desk.outbox;
  const why = {
    offline: "The server cannot be reached. Everything below is kept in this browser and sent as soon as it can be.",
    "signed-out": "You are signed out. Sign in again: what is below is kept in this browser.",
    server: "The server has trouble. Everything below is kept in this browser and sent again.",
  };
  return html`<${Dialog} title="Not saved on the server yet" onClose=${onClose}>
    ${stopped && html`<p class="notice warn">${why[stopped]}</p>`}
    ${stopped === "signed-out" && html`<p><button type="button" class="button primary" autofocus onClick=${signIn}>Sign in</button></p>`}
    ${entries.length === 0 && html`<p>Everything is saved.</p>`}
    <ul class="entries">
      ${entries.map(
        (entry) => html`<li key=${entry.key}>
          <div>
            <strong>${entry.image.name}</strong>
            <span class="muted small"> ${entry.kind === "skip" ? "skipped" : plural(entry.boxes.length, "box", "boxes")}, ${ago(entry.at)}</span>
            ${entry.problem && entry.state === "refused" && html`<p class="error small">${entry.problem}</p>`}
          </div>
          ${entry.state === "waiting" && html`<span class="badge">waiting</span>`}
          ${entry.state === "conflict" &&
          html`<button type="button" class="button" onClick=${() => desk.open("conflict", entry)}>Compare</button>`}
          ${entry.state === "refused" &&
          html`<div class="actions">
            <button type="button" class="button" onClick=${() => desk.outbox.retry(entry)}>Try again</button>
            <button type="button" class="button danger" onClick=${() => desk.discard(entry)}>Discard</button>
          </div>`}
        </li>`,
      )}
    </ul>
    ${stopped && stopped !== "signed-out" && html`<button type="button" class="button" onClick=${() => desk.outbox.send()}>Send now</button>`}
  <//>`;
}

function Conflict({ desk, entry, onClose }) {
  const { current } = entry;
  const theirs = current.boxes ?? [];
  return html`<${Dialog} title=${`Two versions of ${entry.image.name}`} onClose=${onClose} wide>
    <p>${current.author} saved this image while you worked on it. Nothing is overwritten until you decide; earlier versions stay in the history.</p>
    <div class="versions">
      <${Version} desk=${desk} image=${entry.image} boxes=${entry.boxes} title="Yours, not saved" subtitle=${`based on version ${entry.version}`} />
      <${Version} desk=${desk} image=${entry.image} boxes=${theirs} title=${`Saved by ${current.author}`} subtitle=${`version ${current.version}, ${ago(current.updated_at)}`} />
    </div>
    <div class="actions">
      <button type="button" class="button primary" onClick=${() => desk.settle(entry, "both")}>Edit, starting from both</button>
      <button type="button" class="button" onClick=${() => desk.settle(entry, "theirs")}>Keep theirs</button>
      <button type="button" class="button" onClick=${() => desk.settle(entry, "mine")}>Save mine as the next version</button>
    </div>
  <//>`;
}

function Version({ desk, image, boxes, title, subtitle }) {
  const line = Math.max(image.width, image.height) / 220;
  return html`<figure class="version">
    <figcaption>
      <strong>${title}</strong>
      <span class="muted small">${subtitle}, ${plural(boxes.length, "box", "boxes")}</span>
    </figcaption>
    <svg viewBox=${`0 0 ${image.width} ${image.height}`} role="img" aria-label=${boxes.map((box) => box.class).join(", ") || "no boxes"}>
      <image href=${`/images/${image.id}/content?rendition=display`} width=${image.width} height=${image.height} />
      ${boxes.map((box) => {
        const style = look(Math.max(0, desk.project.classes.indexOf(box.class)));
        return html`<rect x=${box.x1} y=${box.y1} width=${box.x2 - box.x1} height=${box.y2 - box.y1} fill="none" stroke=${style.colour} stroke-width=${line} />
          <text class="version-label" x=${box.x1} y=${Math.max(box.y1 - line * 2, line * 7)} font-size=${line * 7} stroke-width=${line * 1.6}>${box.class}</text>`;
      })}
    </svg>
  </figure>`;
}

/** Who annotates, where the server has no accounts. */
export function WhoAreYou({ name, onName, onClose }) {
  const [text, setText] = useState(name);
  return html`<${Dialog} title="Who is annotating?" onClose=${onClose}>
    <p class="muted">This server has no accounts. Your name stands beside what you label; it is kept in this browser.</p>
    <form
      class="row"
      onSubmit=${(event) => {
        event.preventDefault();
        onName(text.trim());
      }}
    >
      <label class="visually-hidden" for="author">Your name</label>
      <input id="author" maxlength="100" required autofocus autocomplete="name" value=${text} onInput=${(event) => setText(event.target.value)} />
      <button type="submit" class="button primary" disabled=${text.trim() === ""}>Start</button>
    </form>
  <//>`;
}
