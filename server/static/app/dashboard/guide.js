// The first steps of a project, and the next one at every later time.
import { count, plural } from "../format.js";
import { html } from "../preact.js";

const STEPS = [
  ["Create the project", "done"],
  ["Add images", "Drop the pictures that your detector is to learn from."],
  ["Start the first cycle", "It draws pictures at random: nothing is labeled yet that a model could learn from."],
  ["Annotate what it drew", "Boxes by mouse, touch or keyboard. A few dozen are a beginning."],
  ["Start the next cycle", "It trains on your boxes and selects the pictures it would learn most from."],
];

/** @param {{done: number, action: any}} props how many steps are behind; the button of the next */
export function FirstSteps({ done, action }) {
  return html`
    <section class="card guide" aria-labelledby="guide-title">
      <h2 id="guide-title">First steps</h2>
      <ol>
        ${STEPS.map(
          ([title, text], index) => html`<li class=${index < done ? "done" : index === done ? "now" : "todo"} aria-current=${index === done ? "step" : undefined}>
            <span class="mark" aria-hidden="true">${index < done ? "✓" : index + 1}</span>
            <div><b>${title}</b><span class="visually-hidden">${index < done ? " (done)" : ""}</span>${index === done && html`<p class="muted">${text}</p>${action}`}</div>
          </li>`,
        )}
      </ol>
    </section>
  `;
}

/** The button of what is next; null where there is nothing to press. */
export function NextAction({ step, open, project, allowed, mayAnnotate, onStart, onAdd }) {
  const annotate = `/app/projects/${project.id}/annotate`;
  switch (step) {
    case "images":
      return allowed && html`<button type="button" class="button primary" onClick=${onAdd}>Add images</button>`;
    case "first-cycle":
      return allowed && html`<button type="button" class="button primary" onClick=${onStart}>Start the first cycle</button>`;
    case "annotate":
      return mayAnnotate && html`<a class="button primary" href=${annotate}>Annotate ${plural(open, "image")}</a>`;
    case "cycle":
    case "resume":
      return allowed && html`<button type="button" class=${step === "cycle" ? "button primary" : "button"} onClick=${onStart}>Start a cycle</button>`;
    default:
      return null;
  }
}

/** How much waits, for the line under the title. */
export function sayWaiting(open, counts, active) {
  if (active) return `cycle ${active.number} ${active.state === "queued" ? "waits for a worker" : "is running"}`;
  if (open > 0) return `${plural(open, "image waits", "images wait")} to be labeled`;
  return counts.images === 0 ? "no images yet" : `${count(counts.images)} images`;
}
