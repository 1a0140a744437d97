// One project: what it has.
import { count } from "./format.js";
import { startPage } from "./frame.js";
import { html, render } from "./preact.js";

function Overview({ project }) {
  const { counts } = project;
  const figures = [
    ["Images", counts.images],
    ["Labeled", counts.labeled],
    ["Unlabeled", counts.unlabeled],
    ["Boxes", counts.boxes],
  ];
  return html`
    <h1>${project.name}</h1>
    <dl class="figures">
      ${figures.map(([name, value]) => html`<div class="figure"><dt>${name}</dt><dd>${count(value)}</dd></div>`)}
    </dl>
  `;
}

startPage((place, { project }) => render(html`<${Overview} project=${project} />`, place));
