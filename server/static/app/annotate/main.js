// The Annotate page: puts the desk together and draws it.
import { Empty, Progress } from "../components.js";
import { count, plural } from "../format.js";
import { startPage } from "../frame.js";
import { html, render, useEffect, useLayoutEffect, useState } from "../preact.js";
import { Camera } from "./camera.js";
import { Stage } from "./canvas.js";
import { Claims } from "./claims.js";
import { equip, listen } from "./commands.js";
import { Desk } from "./desk.js";
import { DeskDialog, WhoAreYou } from "./dialogs.js";
import { Drafts } from "./drafts.js";
import { Outbox } from "./outbox.js";
import { Panel } from "./panel.js";
import { Pictures } from "./pictures.js";
import { Review } from "./review.js";

const REASONS = {
  uncertainty: "the model is unsure",
  entropy: "the classifier is unsure",
  "class-balance": "may show a rare class",
  diversity: "unlike the others",
  "core-set": "unlike what is labeled",
  random: "chosen at random",
  validation: "to measure the model",
};

function App({ desk, camera, stageRef }) {
  const [, draw] = useState(0);
  useEffect(() => {
    const again = () => draw((number) => number + 1);
    desk.addEventListener("change", again);
    return () => desk.removeEventListener("change", again);
  }, []);
  return html`
    <${SaveStatus} desk=${desk} />
    <div class="visually-hidden" role="status" aria-live="polite">${desk.said}</div>
    <p id="stage-help" class="visually-hidden">N makes a box, arrows move it, Shift and arrows resize it, Tab goes from box to box, Space saves and goes on, question mark shows all keys, Escape leaves the image.</p>
    ${desk.phase === "working"
      ? html`<${Workspace} desk=${desk} camera=${camera} stageRef=${stageRef} />`
      : html`<${Elsewhere} desk=${desk} />`}
    <${DeskDialog} desk=${desk} />
  `;
}

function Workspace({ desk, camera, stageRef }) {
  const { item } = desk;
  const isReview = !item.query;
  return html`
    <div class="workspace">
      <section class="work" aria-label="Picture">
        <div class="work-head">
          <h1 class="image-name" title=${item.image.name}>${item.image.name}</h1>
          <span class="muted small number">${item.image.width} × ${item.image.height}</span>
          ${item.query && html`<span class="badge" title=${uncertaintyText(item.query)}>#${item.query.rank}: ${REASONS[item.query.reason] ?? item.query.reason}</span>`}
          ${isReview && item.remark && html`<span class="badge">${item.remark}</span>`}
          ${isReview && html`<${ReviewOrder} by=${desk.source.by} />`}
          ${item.state === "saved" && html`<span class="badge good">labeled</span>`}
          ${item.state === "skipped" && html`<span class="badge warn">skipped</span>`}
          ${item.lapsed && item.state === "open" && html`<span class="badge warn">claim lapsed</span>`}
          <${Tools} desk=${desk} />
        </div>
        <${Stage} desk=${desk} camera=${camera} stageRef=${stageRef} />
        ${desk.notice && html`<p class=${`desk-notice ${desk.notice.kind}`}>${desk.notice.text}</p>`}
        <div class="work-foot">
          <button type="button" class="button" disabled=${!desk.canGoBack} onClick=${() => desk.run({ name: "previous" })}>
            Back <kbd>⌫</kbd>
          </button>
          ${!isReview &&
          html`<button type="button" class="button" disabled=${!desk.canSkip} onClick=${() => desk.run({ name: "skip" })}>Skip <kbd>S</kbd></button>`}
          <${Standing} desk=${desk} />
          <button type="button" class="button" onClick=${() => desk.run({ name: "nothing" })}>Nothing to box <kbd>X</kbd></button>
          <button type="button" class="button primary" onClick=${() => desk.run({ name: "save" })}>
            ${isReview && !desk.editor.isEdited ? "Next" : "Save and next"} <kbd>Space</kbd>
          </button>
        </div>
      </section>
      <aside class="panel" aria-label="Classes, suggestions and boxes"><${Panel} desk=${desk} /></aside>
    </div>
  `;
}

function ReviewOrder({ by }) {
  return html`<select
    class="review-order"
    aria-label="Order of the review"
    value=${by}
    onChange=${(event) => location.assign(`?review=${event.target.value}`)}
  >
    <option value="disagreement">most disagreement first</option>
    <option value="uncertainty">most uncertain first</option>
  </select>`;
}

const uncertaintyText = (query) =>
  query.uncertainty === null ? "Selected without a model" : `Uncertainty ${query.uncertainty.toPrecision(3)}`;

function Standing({ desk }) {
  const { item, standing } = desk;
  if (item.place) {
    return html`<div class="standing"><span class="muted small number">${count(item.place)} of ${count(item.of)}</span></div>`;
  }
  if (!standing?.total) return html`<div class="standing"></div>`;
  const done = Math.min(standing.done, standing.total);
  return html`<div class="standing">
    <${Progress} value=${done / standing.total} label="Done of this selection" />
    <span class="muted small number">${count(done)} of ${count(standing.total)}</span>
  </div>`;
}

function Tools({ desk }) {
  const tool = (name, label, path, more = {}) => html`<button
    type="button"
    class="icon-button"
    aria-label=${label}
    title=${label}
    onClick=${() => desk.run({ name })}
    ...${more}
  >
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${path} /></svg>
  </button>`;
  const { history } = desk.editor;
  return html`<div class="tools" role="group" aria-label="Tools">
    ${tool("undo", "Undo (Ctrl+Z)", "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3", { disabled: history.past.length === 0 })}
    ${tool("redo", "Redo (Ctrl+Y)", "m15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3", { disabled: history.future.length === 0 })}
    <span class="tool-divider"></span>
    ${tool("zoom-out", "Zoom out (−)", "M5 12h14")}
    ${tool("zoom-fit", "Whole image (0)", "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5")}
    ${tool("zoom-in", "Zoom in (+)", "M5 12h14M12 5v14")}
    <span class="tool-divider"></span>
    ${desk.item.query?.heatmap &&
    tool("why", "Where the model was unsure (W)", "M12 21c4 0 7-2.7 7-6.7 0-3.7-2.6-5.5-4-8.3-.8 1.7-1.8 2.6-3 3.2C11 7 10.600 5 9 3c.3 4.300-4 6.300-4 11.300C5 18.300 8 21 12 21Z", { "aria-pressed": desk.whyShown ? "true" : "false" })}
    ${tool("instructions", "Instructions (I)", "M5 4h11l3 3v13H5ZM8.500 9h7M8.500 13h7M8.500 17h4")}
    ${tool("keys", "Keys (?)", "M3 7h18v10H3ZM7 10.500h.01M10.500 10.500h.01M14 10.500h.01M17 10.500h.01M8 14h8")}
  </div>`;
}

/** What stands in the header: is everything on the server? */
function SaveStatus({ desk }) {
  const place = document.getElementById("header-status");
  const { entries, stopped } = desk.outbox;
  const troubled = entries.filter((entry) => entry.state !== "waiting").length;
  const waiting = entries.length - troubled;
  let [kind, text] = ["good", "All saved"];
  if (troubled > 0) [kind, text] = ["bad", `${plural(troubled, "save")} to look at`];
  else if (stopped === "offline") [kind, text] = ["warn", waiting > 0 ? `Offline: ${waiting} kept here` : "Offline"];
  else if (stopped === "signed-out") [kind, text] = ["warn", `Signed out: ${waiting} kept here`];
  else if (stopped) [kind, text] = ["warn", `${waiting} kept here`];
  else if (waiting > 0 || desk.isLeaving) [kind, text] = ["", "Saving…"];
  useLayoutEffect(() => {
    render(
      html`<button type="button" class=${`badge status ${kind}`} onClick=${() => desk.open("unsaved")} title="What is not on the server yet">
        <span class="dot" aria-hidden="true"></span>${text}
      </button>`,
      place,
    );
  });
  return html`<span class="visually-hidden" role="status">${stopped || troubled ? text : ""}</span>`;
}

/** Nothing to label just now: why, and what to do. */
function Elsewhere({ desk }) {
  if (desk.phase === "loading") return html`<p class="loading muted" role="status">Fetching the next image…</p>`;
  if (desk.phase === "failed") {
    const offline = desk.problem.name === "NetworkError";
    return html`<${Empty}
      title=${offline ? "The server cannot be reached" : "The next image could not be fetched"}
      actions=${html`<button type="button" class="button primary" onClick=${() => desk.again()}>Try again</button>`}
    >
      <p>${offline ? "What you drew is kept in this browser and sent as soon as the network is back." : desk.problem.message}</p>
    <//>`;
  }
  return desk.source.describe(desk.standing, {
    project: desk.project,
    back: desk.canGoBack && html`<button type="button" class="button" onClick=${() => desk.previous()}>Back to the last image <kbd>⌫</kbd></button>`,
  });
}

function authorName() {
  return localStorage.getItem("miaod-author");
}

/** On an open server nobody signs in: a name is asked for once. */
function askName(place) {
  return new Promise((resolve) => {
    const done = (name) => {
      if (name) localStorage.setItem("miaod-author", name);
      render(null, place);
      resolve(name);
    };
    render(html`<${WhoAreYou} name=${authorName() ?? ""} onName=${done} onClose=${() => done(authorName() ?? "anonymous")} />`, place);
  });
}

function showName(name) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button quiet user-name";
  button.textContent = name;
  button.title = "Change your name";
  button.addEventListener("click", () => {
    localStorage.removeItem("miaod-author");
    location.reload();
  });
  document.getElementById("header-user").replaceChildren(button);
}

startPage(async (place, { session, project }) => {
  const author = session.open ? (authorName() ?? (await askName(place))) : null;
  if (author) showName(author);
  // By name, not by key: whoever gets a new key finds what was not saved with the old one.
  const user = author ?? session.user.name;
  const review = new URLSearchParams(location.search).get("review");
  const drafts = await Drafts.open();
  const desk = new Desk({
    project,
    user,
    author,
    drafts,
    outbox: new Outbox(drafts, user),
    pictures: new Pictures(),
    source: review ? new Review(project.id, review) : new Claims(project.id, author),
    storageKey: `miaod-desk:${user}:${project.id}:${review ?? "claims"}`,
  });
  const camera = new Camera(desk);
  const stageRef = { current: null };
  equip(desk, camera, stageRef);
  listen(desk, stageRef);
  desk.addEventListener("image", () => {
    // After it is drawn; a dialog that is open keeps the keyboard.
    requestAnimationFrame(() => {
      if (!document.querySelector("dialog[open]")) stageRef.current?.focus({ preventScroll: true });
    });
  });
  // Who leaves for another page gives back what he has not begun; a reload keeps it.
  document.querySelector(".site-header").addEventListener("click", (event) => {
    if (event.target.closest("a[href]") && !event.metaKey && !event.ctrlKey) desk.giveBack();
  });
  render(html`<${App} desk=${desk} camera=${camera} stageRef=${stageRef} />`, place);
  await desk.outbox.start();
  await desk.start();
});
