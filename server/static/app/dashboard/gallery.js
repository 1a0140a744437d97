// A grid of as many tiles as a list of the API has: pages are fetched as they come near, and only
// the rows that are in sight exist in the page.
import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "../preact.js";

const GAP = 12;
const OVERSCAN = 3; // rows above and below what is in sight

/**
 * @param {object} props
 * @param {(cursor: string|undefined, signal: AbortSignal) => Promise<{items: object[], next_cursor: string|null, total?: number}>} props.load
 *   one page; another function begins anew
 * @param {(item: object, index: number) => any} props.tile
 * @param {number} props.width least width of a tile, pixels
 * @param {number} props.height of a tile
 * @param {any} props.empty shown when there is nothing
 * @param {string} props.label
 * @param {(items: object[]) => void} [props.onItems] hears of all that was loaded so far
 */
export function Gallery({ load, tile, width, height, empty, label, onItems }) {
  const place = useRef(null);
  const list = useRef(null); // {items, cursor, total, loading, controller}
  const [, redraw] = useState(0);
  const [shape, setShape] = useState({ columns: 1, first: 0, last: 20 });
  const [error, setError] = useState(null);

  const more = useCallback(async () => {
    const mine = list.current;
    if (mine.loading || mine.cursor === null) return;
    mine.loading = true;
    setError(null);
    try {
      const page = await load(mine.cursor, mine.controller.signal);
      if (list.current !== mine) return;
      mine.items.push(...page.items);
      mine.cursor = page.next_cursor;
      mine.total = page.total ?? mine.total;
      onItems?.(mine.items);
    } catch (problem) {
      if (problem.name === "AbortError" || list.current !== mine) return;
      setError(problem.message);
    } finally {
      mine.loading = false;
    }
    redraw((number) => number + 1);
  }, [load]);

  useEffect(() => {
    list.current = { items: [], cursor: undefined, total: null, loading: false, controller: new AbortController() };
    redraw((number) => number + 1);
    more();
    return () => list.current.controller.abort();
  }, [more]);

  // Which rows are in sight.
  useLayoutEffect(() => {
    const measure = () => {
      const box = place.current.getBoundingClientRect();
      const columns = Math.max(1, Math.floor((box.width + GAP) / (width + GAP)));
      const row = height + GAP;
      const first = Math.max(0, Math.floor(-box.top / row) - OVERSCAN);
      const last = Math.max(first, Math.ceil((innerHeight - box.top) / row) + OVERSCAN);
      setShape((now) => (now.columns === columns && now.first === first && now.last === last ? now : { columns, first, last }));
    };
    let asked = false;
    const soon = () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        if (place.current) measure();
      });
    };
    measure();
    const resized = new ResizeObserver(soon);
    resized.observe(place.current);
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    return () => {
      resized.disconnect();
      removeEventListener("scroll", soon);
      removeEventListener("resize", soon);
    };
  }, [width, height]);

  const { items = [], cursor, total } = list.current ?? {};
  const rows = Math.ceil(items.length / shape.columns);
  useEffect(() => {
    if (list.current && error === null && shape.last + 6 >= rows) more();
  });
  const from = shape.first * shape.columns;
  const until = Math.min(items.length, shape.last * shape.columns);
  const blank = items.length === 0 && cursor === null;
  return html`
    <div ref=${place} class="gallery" style=${{ minHeight: `${Math.max(0, rows * (height + GAP) - GAP)}px` }}>
      ${items.length > 0 &&
      html`<ul class="gallery-rows" aria-label=${label}
        style=${{ transform: `translateY(${shape.first * (height + GAP)}px)`, gridTemplateColumns: `repeat(${shape.columns}, minmax(0, 1fr))`, gridAutoRows: `${height}px` }}>
        ${items.slice(from, until).map(
          (item, offset) => html`<li key=${item.id} aria-setsize=${total ?? (cursor === null ? items.length : -1)} aria-posinset=${from + offset + 1}>${tile(item, from + offset)}</li>`,
        )}
      </ul>`}
      ${blank && empty}
    </div>
    ${error !== null &&
    html`<p class="error" role="alert">${error} <button type="button" class="button" onClick=${() => { setError(null); more(); }}>Try again</button></p>`}
    ${error === null && cursor !== null && html`<p class="muted small loading" role="status">Loading …</p>`}
  `;
}
