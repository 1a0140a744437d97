// The cycle that runs or waits, as it happens; or the one that ended without success.
import { get, post } from "../api.js";
import { Progress } from "../components.js";
import { percent, span } from "../format.js";
import { html, useEffect, useMemo, useRef, useState } from "../preact.js";
import { toast } from "../toast.js";
import { Chart, FiguresTable, axis } from "./chart.js";
import { stagesOf, trainingStagesOf } from "./stages.js";
import { ACTIVE, watchCycle } from "./watch.js";
import { STATES, badgeOf, lossName, score, strategyOf } from "./words.js";

const QUEUE_SECONDS = 3;

/**
 * @param {object} props
 * @param {object} props.cycle of the API
 * @param {boolean} props.allowed whether to offer cancel and resume
 * @param {(cycle: object) => void} props.onChange the cycle as it is now, after an action
 * @param {() => void} props.onEnd the cycle has ended
 */
export function LiveCycle({ cycle, allowed, onChange, onEnd }) {
  const [now, setNow] = useState(cycle);
  const [losses, setLosses] = useState([]);
  const [busy, setBusy] = useState(false);
  const active = ACTIVE.has(cycle.state);
  useEffect(() => setNow(cycle), [cycle]);

  useEffect(() => {
    if (!active) return undefined;
    setLosses([]);
    return watchCycle(
      cycle.id,
      (events) => {
        const last = events.at(-1);
        setNow((before) => ({ ...before, ...movingPart(last) }));
        const news = events.filter((event) => event.losses).map((event) => ({ step: event.step, losses: event.losses }));
        if (news.length) setLosses((before) => mergeLosses(before, news));
      },
      onEnd,
    );
  }, [cycle.id, active]);

  // Why it waits changes without an event: nobody is there who could write one.
  useEffect(() => {
    if (now.state !== "queued") return undefined;
    const timer = setInterval(() => {
      get(`/cycles/${cycle.id}`).then(
        (found) => found.state === "queued" && setNow((before) => (before.state === "queued" ? found : before)),
        () => {}, // the next look may reach it
      );
    }, QUEUE_SECONDS * 1000);
    return () => clearInterval(timer);
  }, [cycle.id, now.state]);

  const act = async (verb) => {
    setBusy(true);
    try {
      onChange(await post(`/cycles/${cycle.id}/${verb}`));
    } catch (error) {
      toast(error.message, "error");
    } finally {
      setBusy(false);
    }
  };
  const cancelling = now.cancel_requested && ACTIVE.has(now.state);
  const waits = now.state === "queued";
  return html`
    <section class="card live" aria-labelledby="live-title">
      <div class="row">
        <h2 id="live-title">Cycle ${now.number}</h2>
        <span class=${badgeOf(now.state)} data-state=${now.state}>${cancelling ? "Cancelling" : STATES[now.state]}</span>
        <span class="muted clip">${strategyOf(now)} · budget ${now.budget}</span>
        <div class="end actions">
          ${allowed && ACTIVE.has(now.state) && html`<button type="button" class="button" disabled=${busy || cancelling} onClick=${() => act("cancel")}>Cancel cycle</button>`}
          ${allowed && ["failed", "cancelled"].includes(now.state) && html`<button type="button" class="button primary" disabled=${busy} onClick=${() => act("resume")}>Resume</button>`}
        </div>
      </div>
      <${StageLine} stages=${stagesOf(now)} label="Stages" />
      ${trainingStagesOf(now).length > 0 && html`<${StageLine} stages=${trainingStagesOf(now)} label="Stages of the training" small />`}
      ${ACTIVE.has(now.state) &&
      html`<div class="live-progress">
        <${Progress} value=${now.progress} label=${`Progress of cycle ${now.number}`} />
        <span class="number">${percent(now.progress, 0)}</span>
        <span class="muted number left">${waits ? "waits" : now.seconds_left === null ? "time left: not known yet" : `about ${span(now.seconds_left)} left`}</span>
      </div>`}
      <p class=${now.state === "failed" ? "notice bad" : waits && now.message ? "notice warn" : "muted message"}>${
        now.error ?? (now.message || (waits ? "waits for a worker" : ""))
      }</p>
      ${waits && /no worker/.test(now.message) &&
      html`<p class="small muted">Start one with <code>python -m worker</code> on a machine that shares the server's data folder and database; <code>make run</code> starts one beside the server.</p>`}
      ${["failed", "cancelled"].includes(now.state) &&
      html`<p class="small muted">Resume goes on at its last checkpoint with what was labeled when it began. A new cycle trains on what is labeled now.</p>`}
      ${losses.length > 1 && ACTIVE.has(now.state) && html`<${Losses} losses=${losses} />`}
    </section>
  `;
}

const MOVING = ["state", "progress", "stage", "message", "error", "attempts", "worker", "cancel_requested", "step", "steps", "losses", "seconds_left"];
const movingPart = (event) => Object.fromEntries(MOVING.map((name) => [name, event[name] ?? null]));

/** Steps rise; an attempt that goes back to a checkpoint replaces what came after it. */
function mergeLosses(before, news) {
  const first = news[0].step;
  const kept = before.filter((each) => each.step < first);
  return [...kept, ...news].filter((each, index, all) => index === 0 || each.step > all[index - 1].step);
}

function StageLine({ stages, label, small = false }) {
  return html`<ol class=${small ? "stages small" : "stages"} aria-label=${label}>
    ${stages.map(
      (stage) => html`<li key=${stage.key} class=${stage.state} aria-current=${stage.state === "now" ? "step" : undefined}>
        <span>${stage.name}</span><span class="visually-hidden">${stage.state === "done" ? " (done)" : ""}</span>
      </li>`,
    )}
  </ol>`;
}

function Losses({ losses }) {
  const seen = useRef([]);
  const given = [...new Set(losses.flatMap((each) => Object.keys(each.losses)))];
  // The gradient's norm is told along with the losses, and is none.
  const names = ["total", ...given.filter((name) => !["total", "gradient_norm"].includes(name))];
  // The same array as long as the names are the same: another one draws the chart anew.
  if (names.join() !== seen.current.join()) seen.current = names;
  const data = useMemo(
    () => [losses.map((each) => each.step), ...seen.current.map((name) => losses.map((each) => each.losses[name] ?? null))],
    [losses],
  );
  const options = useMemo(
    () => (colours) => ({
      padding: [8, 12, 0, 0],
      scales: { x: { time: false }, y: { range: (_, __, high) => [0, high * 1.1 || 1] } },
      axes: [
        axis(colours, { label: "step", labelSize: 18, size: 28, values: (_, values) => values.map((value) => (Number.isInteger(value) ? value : "")) }),
        axis(colours, { label: "loss", labelSize: 18, size: 42 }),
      ],
      cursor: { show: false },
      series: [
        {},
        ...seen.current.map((name, place) => ({
          stroke: colours.series[place % 7],
          width: name === "total" ? 2 : 1.5,
          dash: DASHES[place % DASHES.length],
          spanGaps: true,
          points: { show: false },
        })),
      ],
    }),
    [seen.current],
  );
  const last = losses.at(-1).losses;
  return html`
    <div class="losses">
      <${Chart} height=${140} options=${options} data=${data} label=${`Losses over ${losses.at(-1).step} steps; ${seen.current.map((name) => `${lossName(name)} ${score(last[name])}`).join(", ")}`} />
      <div class="legend">
        ${seen.current.map(
          (name, place) => html`<span class="legend-item" key=${name}><svg class="swatch" viewBox="0 0 24 12" aria-hidden="true"><path class=${`series-${(place % 7) + 1}`} stroke-dasharray=${DASHES[place % DASHES.length].join(" ")} d="M0 6h24" /></svg>${lossName(name)} <span class="number muted">${score(last[name])}</span></span>`,
        )}
      </div>
      <${FiguresTable} caption="Losses" head=${["Step", ...seen.current.map(lossName)]} rows=${losses.map((each) => [each.step, ...seen.current.map((name) => score(each.losses[name], 4))])} />
    </div>
  `;
}

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [4, 2], [1, 3], [10, 4]];
