// One project: what it has, what its cycles found, and what to do next.
import { get } from "../api.js";
import { count, percent } from "../format.js";
import { startPage } from "../frame.js";
import { html, render, useCallback, useEffect, useState } from "../preact.js";
import { toast } from "../toast.js";
import { LabelsPerClass, ScoreHistogram } from "./bars.js";
import { Cycles } from "./cycles.js";
import { FirstSteps, NextAction, sayWaiting } from "./guide.js";
import { Images } from "./images.js";
import { LearningCurve } from "./learning_curve.js";
import { LiveCycle } from "./live_cycle.js";
import { nextStep } from "./next_step.js";
import { PoolBar } from "./pool_bar.js";
import { mayAnnotate, mayChange } from "./roles.js";
import { Selection } from "./selection.js";
import { Settings } from "./settings.js";
import { StartCycle } from "./start_cycle.js";
import { ACTIVE } from "./watch.js";
import { Work } from "./work.js";

const SECTIONS = { overview: "Overview", selection: "Selection", images: "Images", cycles: "Cycles", settings: "Settings" };
// Others start cycles and label too; a running cycle is watched by its events besides.
const LOOK_SECONDS = 15;

const sectionOf = () => (location.hash.slice(1) in SECTIONS ? location.hash.slice(1) : "overview");

function useSection() {
  const [section, setSection] = useState(sectionOf());
  useEffect(() => {
    const change = () => setSection(sectionOf());
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return section;
}

/** What is needed besides the project before anything can be shown. */
async function readRest(id) {
  const [cycles, open] = await Promise.all([
    get("/cycles", { project: id, limit: 1000 }),
    get("/queries", { project: id, state: "open", limit: 1, count: true }),
  ]);
  return { cycles: cycles.items.sort((a, b) => b.number - a.number), open: open.total };
}

async function read(id) {
  const [project, rest] = await Promise.all([get(`/projects/${id}`), readRest(id)]);
  return { project, ...rest };
}

function ProjectPage({ first, session }) {
  const [found, setFound] = useState(first);
  const [starting, setStarting] = useState(false);
  const section = useSection();
  const { project, cycles, open } = found;
  const refresh = useCallback(
    () => read(first.project.id).then(setFound, (error) => toast(error.message, "error")),
    [first.project.id],
  );

  // What others did: the newest cycle and what waits cost little to ask for; the rest only after news.
  const newest = cycles[0];
  useEffect(() => {
    const look = async () => {
      if (document.hidden) return;
      const [page, queries] = await Promise.all([
        get("/cycles", { project: project.id, limit: 1 }),
        get("/queries", { project: project.id, state: "open", limit: 1, count: true }),
      ]);
      const there = page.items[0];
      const same = there?.id === newest?.id && there?.state === newest?.state && queries.total === open;
      if (!same) await refresh();
    };
    const timer = setInterval(() => look().catch(() => {}), LOOK_SECONDS * 1000); // the next look may reach it
    return () => clearInterval(timer);
  }, [project.id, newest?.id, newest?.state, open]);

  const allowed = mayChange(session);
  const step = nextStep(project, cycles, open);
  const shown = newest && (ACTIVE.has(newest.state) || ["failed", "cancelled"].includes(newest.state)) ? newest : null;
  const replace = (cycle) => setFound((now) => ({ ...now, cycles: [cycle, ...now.cycles.filter((each) => each.id !== cycle.id)] }));
  const action = html`<${NextAction} step=${step.key} open=${open} project=${project} allowed=${allowed} mayAnnotate=${mayAnnotate(session)}
    onStart=${() => setStarting(true)} onAdd=${() => (location.hash = "images")} />`;
  const beginner = step.done < 5;
  return html`
    <div class="page-head">
      <h1>${project.name}</h1>
      <p class="muted clip">${sayWaiting(open, project.counts, newest && ACTIVE.has(newest.state) ? newest : null)}</p>
      <div class="end actions">
        ${allowed && ["annotate"].includes(step.key) && project.counts.labeled > 0 && html`<button type="button" class="button" onClick=${() => setStarting(true)}>Start a cycle</button>`}
        ${!(beginner && section === "overview") && action}
      </div>
    </div>
    <nav class="sections" aria-label="Sections">
      ${Object.entries(SECTIONS).filter(([key]) => allowed || key !== "settings").map(([key, name]) => html`<a key=${key} href=${`#${key}`} aria-current=${section === key ? "true" : undefined}>${name}</a>`)}
    </nav>
    ${section === "overview" &&
    html`
      ${beginner && html`<${FirstSteps} done=${step.done} action=${action} />`}
      ${shown && html`<${LiveCycle} key=${shown.id} cycle=${shown} allowed=${allowed} onChange=${replace} onEnd=${refresh} />`}
      ${project.counts.images > 0 && html`<${Overview} project=${project} cycles=${cycles} open=${open} />`}
    `}
    ${section === "selection" && html`<${Selection} project=${project} cycles=${cycles} />`}
    ${section === "images" &&
    html`<${Images} project=${project} scored=${cycles.find((cycle) => cycle.state === "succeeded" && cycle.kind === "trained" && cycle.id === cycles.find((each) => each.state === "succeeded")?.id)} allowed=${allowed} onChange=${refresh} />`}
    ${section === "cycles" && html`<${Cycles} cycles=${cycles} classes=${project.classes} allowed=${allowed} />`}
    ${section === "settings" && (allowed
      ? html`<${Settings} project=${project} session=${session} onChange=${refresh} />`
      : html`<p class="nothing">Settings, members and downloads are for engineers and admins.</p>`)}
    ${starting &&
    html`<${StartCycle} project=${project} trains=${project.counts.labeled > 0 && project.counts.boxes > 0} onClose=${() => setStarting(false)}
      onStart=${(cycle) => { setStarting(false); replace(cycle); location.hash = "overview"; }} />`}
  `;
}

function Overview({ project, cycles, open }) {
  const [statistics, setStatistics] = useState(null);
  // Every annotation is read for them: last of all, and again only when the project was.
  useEffect(() => {
    get(`/projects/${project.id}/statistics`).then(setStatistics, (error) => toast(error.message, "error"));
  }, [project]);
  const { counts } = project;
  const pool = counts.labeled + counts.unlabeled;
  const scored = cycles.find((cycle) => cycle.state === "succeeded" && cycle.kind === "trained");
  const figures = [
    ["Labeled", counts.labeled, pool > 0 ? `${percent(counts.labeled / pool, 0)} of ${count(pool)}` : "of the pool"],
    ["Unlabeled", counts.unlabeled, counts.skipped > 0 ? `${count(counts.skipped)} of them skipped` : "in the pool"],
    ["Waiting", open, "selected, to be labeled"],
    ["Validation", counts.val, `${count(counts.val_labeled)} labeled`],
    ["Boxes", counts.boxes, counts.test > 0 ? `${count(counts.test)} test images` : "in all labels"],
  ];
  return html`
    <div class="pool">
      <dl class="figures">
        ${figures.map(([name, value, note]) => html`<div class="figure" key=${name}><dt>${name}</dt><dd>${count(value)}</dd><dd class="figure-note">${note}</dd></div>`)}
      </dl>
      <${PoolBar} counts=${counts} />
    </div>
    <div class="dashboard">
      <div class="stack">
        <section class="card" aria-labelledby="curve-title"><h2 id="curve-title">Learning curve</h2><${LearningCurve} cycles=${cycles} classes=${project.classes} /></section>
        <section class="card" aria-labelledby="scores-title"><h2 id="scores-title">Uncertainty of the pool${scored ? html` <span class="muted">cycle ${scored.number}</span>` : ""}</h2>${
          scored ? html`<${ScoreHistogram} cycle=${scored} />` : html`<p class="nothing">A trained cycle scores every unlabeled image. How those scores are distributed appears here.</p>`
        }</section>
      </div>
      <div class="stack">
        <section class="card" aria-labelledby="classes-title"><h2 id="classes-title">Labels per class</h2>${statistics && html`<${LabelsPerClass} classes=${statistics.classes} />`}</section>
        <section class="card" aria-labelledby="work-title"><h2 id="work-title">Who labeled</h2>${statistics && html`<${Work} statistics=${statistics} />`}</section>
      </div>
    </div>
  `;
}

// On its way while the frame still asks who is there; the frame says what fails for both.
const rest = readRest(document.getElementById("page").dataset.project);
rest.catch(() => {});

startPage(async (place, { session, project }) => {
  const first = { project, ...(await rest) };
  render(html`<${ProjectPage} first=${first} session=${session} />`, place);
});
