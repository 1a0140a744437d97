// mAP over labeled images, cycle by cycle.
import { count } from "../format.js";
import { html, useMemo, useState } from "../preact.js";
import { Chart, FiguresTable, axis } from "./chart.js";
import { curveColumns, curvePoints } from "./curve_data.js";
import { SHAPES, drawShape } from "./shapes.js";
import { STRATEGIES, score, strategyOf } from "./words.js";

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [4, 2], [1, 3]];

export function LearningCurve({ cycles, classes }) {
  const points = useMemo(() => curvePoints(cycles), [cycles]);
  const [shown, setShown] = useState([]);
  const [at, setAt] = useState(null);
  const columns = useMemo(() => curveColumns(points, shown), [points, shown]);
  const options = useMemo(() => (colours) => curveOptions(colours, columns.at, shown.length, setAt), [columns]);

  if (points.length === 0) {
    return html`<p class="nothing">The curve begins with the first trained cycle that has labeled validation images to be measured on.</p>`;
  }
  const newest = points.reduce((a, b) => (a.cycle.number > b.cycle.number ? a : b));
  const looked = at ?? newest;
  const used = [...new Set(points.map((point) => point.cycle.strategy.name))];
  const toggle = (name) => setShown(shown.includes(name) ? shown.filter((each) => each !== name) : [...shown, name]);
  return html`
    <p class="readout" aria-live="off">
      <b class="big">${score(looked.map50)}</b>
      <span>mAP@0.5 of cycle ${looked.cycle.number} · ${count(looked.labeled)} labeled · ${strategyOf(looked.cycle)}${
        looked.validationChanged ? " · validation set changed" : ""
      }</span>
    </p>
    <${Chart} height=${230} data=${columns.data} options=${options}
      label=${`Learning curve: mAP at IoU 0.5 from ${score(points[0].map50)} at ${count(points[0].labeled)} labeled images to ${score(points.at(-1).map50)} at ${count(points.at(-1).labeled)}`} />
    <div class="legend">
      ${used.map(
        (name) => html`<span class="legend-item"><svg viewBox="0 0 12 12" aria-hidden="true"><path class="shape" d=${SHAPES[name] ?? SHAPES.other} /></svg>${STRATEGIES[name]?.name ?? name}</span>`,
      )}
      ${points.some((point) => point.validationChanged) &&
      html`<span class="legend-item"><svg viewBox="0 0 12 12" aria-hidden="true"><path class="dashed" d="M6 0v12" /></svg>validation set changed</span>`}
    </div>
    ${classes.length > 1 &&
    html`<details class="per-class">
      <summary>Per class</summary>
      <div class="checks">
        ${classes.map((name) => {
          const place = shown.indexOf(name);
          return html`<label class="check" key=${name}>
            <input type="checkbox" checked=${place >= 0} onChange=${() => toggle(name)} />
            ${place >= 0 &&
            html`<svg class="swatch" viewBox="0 0 24 12" aria-hidden="true"><path class=${`series-${(place % 6) + 2}`} stroke-dasharray=${DASHES[place % DASHES.length].join(" ")} d="M0 6h24" /></svg>`}
            ${name} <span class="muted">${score(looked.perClass.get(name))}</span>
          </label>`;
        })}
      </div>
    </details>`}
    <${FiguresTable} caption="The learning curve" numbers=${2}
      head=${["Cycle", "Strategy", "Labeled", "Boxes", "mAP@0.5", "mAP", "Validation images", ...classes]}
      rows=${points.map((point) => [
        point.cycle.number,
        strategyOf(point.cycle),
        count(point.labeled),
        count(point.cycle.snapshot?.boxes ?? 0),
        score(point.map50),
        score(point.cycle.metrics.map),
        `${count(point.cycle.metrics.validation_images ?? 0)}${point.validationChanged ? " (changed)" : ""}`,
        ...classes.map((name) => score(point.perClass.get(name))),
      ])} />
  `;
}

function curveOptions(colours, at, classCount, onLook) {
  const labeled = at.filter(Boolean).map((point) => point.labeled);
  const margin = Math.max(1, (Math.max(...labeled) - Math.min(...labeled)) * 0.04);
  const range = [Math.max(0, Math.min(...labeled) - margin), Math.max(...labeled) + margin];
  return {
    padding: [10, 12, 0, 0],
    scales: { x: { time: false, range }, y: { range: (_, __, high) => [0, Math.min(1, Math.max(0.1, high * 1.15))] } },
    axes: [
      axis(colours, { label: "labeled images", labelSize: 20, size: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000], values: (_, values) => values.map(count) }),
      axis(colours, { label: "mAP@0.5", labelSize: 20, size: 42, values: (_, values) => values.map((value) => value.toFixed(2)) }),
    ],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    series: [
      {},
      { stroke: colours.series[0], width: 2, points: { show: false } },
      ...Array.from({ length: classCount }, (_, place) => ({
        stroke: colours.series[(place % 6) + 1],
        width: 1.5,
        dash: DASHES[place % DASHES.length],
        points: { show: true, size: 4, fill: colours.series[(place % 6) + 1] },
      })),
    ],
    hooks: {
      setCursor: [(chart) => onLook(chart.cursor.idx === null || chart.cursor.left < 0 ? null : (at[chart.cursor.idx] ?? null))],
      draw: [
        (chart) => {
          drawChanges(chart, at, colours);
          drawPoints(chart, at, colours);
        },
      ],
    },
  };
}

function drawChanges(chart, at, colours) {
  const { ctx, bbox } = chart;
  ctx.save();
  ctx.strokeStyle = colours.line;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  at.forEach((point, row) => {
    if (point) return;
    const x = chart.valToPos(chart.data[0][row], "x", true);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  });
  ctx.restore();
}

function drawPoints(chart, at, colours) {
  for (const point of at) {
    if (!point) continue;
    const x = chart.valToPos(point.labeled, "x", true);
    const y = chart.valToPos(point.map50, "y", true);
    drawShape(chart.ctx, point.cycle.strategy.name, x, y, devicePixelRatio, colours.series[0], colours.surface);
  }
}
