// A uPlot chart that follows the page's colours and width, with its figures as a table beside it.
import uPlot from "../../vendor/uplot-1.6.32.js";
import { html, useEffect, useRef } from "../preact.js";

/** What a canvas cannot take from a style sheet: the values of the theme's tokens. */
function coloursOf(element) {
  const probe = document.createElement("span");
  element.append(probe);
  const resolve = (token) => {
    probe.style.color = `var(${token})`;
    return getComputedStyle(probe).color;
  };
  const colours = {
    text: resolve("--muted"),
    strong: resolve("--text"),
    grid: resolve("--border"),
    line: resolve("--border-strong"),
    surface: resolve("--surface"),
    series: [1, 2, 3, 4, 5, 6, 7].map((number) => resolve(`--series-${number}`)),
  };
  probe.remove();
  return colours;
}

const FONT = '12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif';

/** An axis in the page's colours; `more` goes over it. */
export function axis(colours, more = {}) {
  return {
    stroke: colours.text,
    font: FONT,
    labelFont: FONT,
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1, size: 4 },
    ...more,
  };
}

/**
 * @param {object} props
 * @param {string} props.label what the chart shows, for those who do not see it
 * @param {number} props.height pixels
 * @param {(colours: object) => object} props.options uPlot's, without width and height; a new
 *   function draws the chart anew
 * @param {Array} props.data uPlot's
 */
export function Chart({ label, height, options, data }) {
  const place = useRef(null);
  const chart = useRef(null);
  useEffect(() => {
    const element = place.current;
    const draw = () => {
      chart.current?.destroy();
      const size = { width: Math.max(160, element.clientWidth), height };
      chart.current = new uPlot({ ...size, legend: { show: false }, ...options(coloursOf(element)) }, data, element);
    };
    draw();
    const resized = new ResizeObserver(() => {
      if (element.clientWidth !== chart.current.width && element.clientWidth > 0) {
        chart.current.setSize({ width: Math.max(160, element.clientWidth), height });
      }
    });
    resized.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    document.documentElement.addEventListener("themechange", draw);
    return () => {
      resized.disconnect();
      scheme.removeEventListener("change", draw);
      document.documentElement.removeEventListener("themechange", draw);
      chart.current.destroy();
      chart.current = null;
    };
  }, [options, height]);
  useEffect(() => chart.current?.setData(data), [data]);
  return html`<div ref=${place} class="chart" role="img" aria-label=${label}></div>`;
}

/**
 * The figures of a chart, behind a disclosure.
 * @param {{caption: string, head: string[], rows: any[][], numbers?: number}} props the columns
 *   from `numbers` on are numbers
 */
export function FiguresTable({ caption, head, rows, numbers = 0 }) {
  const kind = (column) => (column >= numbers ? "number" : "");
  return html`
    <details class="figures-table">
      <summary>As a table</summary>
      <div class="scroll-x" tabindex="0" role="region" aria-label=${caption}>
        <table>
          <caption class="visually-hidden">${caption}</caption>
          <thead><tr>${head.map((text, column) => html`<th scope="col" class=${kind(column)}>${text}</th>`)}</tr></thead>
          <tbody>${rows.map((row) => html`<tr>${row.map((cell, column) => html`<td class=${kind(column)}>${cell}</td>`)}</tr>`)}</tbody>
        </table>
      </div>
    </details>
  `;
}
