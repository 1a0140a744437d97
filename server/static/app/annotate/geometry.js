// Boxes: pure functions. Coordinates are image pixels, {x1, y1, x2, y2} with x2 > x1, y2 > y1;
// `size` is the image's {width, height}. Every box that leaves here lies inside the image.

/** The smallest side that a box may have, in image pixels. */
export const MIN_SIDE = 1;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
// A hundredth of a pixel is finer than any hand, and keeps what is stored short.
const round = (value) => Math.round(value * 100) / 100;

/** The box between two points, cut off at the image's border. */
export function between(a, b, size) {
  return tidy(
    {
      x1: clamp(Math.min(a.x, b.x), 0, size.width),
      y1: clamp(Math.min(a.y, b.y), 0, size.height),
      x2: clamp(Math.max(a.x, b.x), 0, size.width),
      y2: clamp(Math.max(a.y, b.y), 0, size.height),
    },
    size,
  );
}

/** The box of a width and height around a point, pushed inside the image. */
export function around(point, width, height, size) {
  const w = clamp(width, MIN_SIDE, size.width);
  const h = clamp(height, MIN_SIDE, size.height);
  const x1 = clamp(point.x - w / 2, 0, size.width - w);
  const y1 = clamp(point.y - h / 2, 0, size.height - h);
  return tidy({ x1, y1, x2: x1 + w, y2: y1 + h }, size);
}

/** A box moved, as far as the border lets it; it keeps its width and height. */
export function moved(box, dx, dy, size) {
  const x = clamp(dx, -box.x1, size.width - box.x2);
  const y = clamp(dy, -box.y1, size.height - box.y2);
  const there = { x1: box.x1 + x, y1: box.y1 + y, x2: box.x2 + x, y2: box.y2 + y };
  return { ...box, ...tidy(there, size) };
}

/**
 * A box whose edges were dragged to a point. Dragging over the other edge turns the box over.
 * @param {string} handle of "n", "s", "w", "e" or a corner such as "nw"
 */
export function resized(box, handle, point, size) {
  const a = { x: box.x1, y: box.y1 };
  const b = { x: box.x2, y: box.y2 };
  if (handle.includes("w")) a.x = point.x;
  if (handle.includes("e")) b.x = point.x;
  if (handle.includes("n")) a.y = point.y;
  if (handle.includes("s")) b.y = point.y;
  return { ...box, ...between(a, b, size) };
}

/** A box whose right and lower edge went by so much, not past the border or its other edges. */
export function grown(box, dx, dy, size) {
  const x2 = clamp(box.x2 + dx, box.x1 + MIN_SIDE, size.width);
  const y2 = clamp(box.y2 + dy, box.y1 + MIN_SIDE, size.height);
  return { ...box, ...tidy({ ...box, x2, y2 }, size) };
}

/** Intersection over union, 0 to 1. */
export function iou(a, b) {
  const w = Math.min(a.x2, b.x2) - Math.max(a.x1, b.x1);
  const h = Math.min(a.y2, b.y2) - Math.max(a.y1, b.y1);
  if (w <= 0 || h <= 0) return 0;
  return (w * h) / (area(a) + area(b) - w * h);
}

export const area = (box) => (box.x2 - box.x1) * (box.y2 - box.y1);

/** The smallest of the boxes that a point lies in (a box within a box stays reachable), or null. */
export function smallestAt(boxes, point, margin = 0) {
  const hit = boxes.filter(
    (box) =>
      point.x >= box.x1 - margin &&
      point.x <= box.x2 + margin &&
      point.y >= box.y1 - margin &&
      point.y <= box.y2 + margin,
  );
  return hit.reduce((least, box) => (!least || area(box) < area(least) ? box : least), null);
}

/**
 * Which handle of a box a point is on: a corner before an edge, null if neither.
 * @param {number} reach how far around a handle counts, in image pixels
 */
export function handleAt(box, point, reach) {
  const near = (value, edge) => Math.abs(value - edge) <= reach;
  const within = (value, low, high) => value >= low - reach && value <= high + reach;
  if (!within(point.x, box.x1, box.x2) || !within(point.y, box.y1, box.y2)) return null;
  // In a tiny box both edges are near: the closer one is meant.
  const pick = (value, low, high, first, second) => {
    if (!near(value, low) && !near(value, high)) return "";
    return Math.abs(value - low) <= Math.abs(value - high) ? first : second;
  };
  const vertical = pick(point.y, box.y1, box.y2, "n", "s");
  const horizontal = pick(point.x, box.x1, box.x2, "w", "e");
  return vertical + horizontal || null;
}

function tidy({ x1, y1, x2, y2 }, size) {
  const box = { x1: round(x1), y1: round(y1), x2: round(x2), y2: round(y2) };
  // A side may have shrunk to nothing, by a click or against the border.
  if (box.x2 - box.x1 < MIN_SIDE) {
    box.x1 = clamp(box.x1, 0, Math.max(0, size.width - MIN_SIDE));
    box.x2 = Math.min(box.x1 + MIN_SIDE, size.width);
  }
  if (box.y2 - box.y1 < MIN_SIDE) {
    box.y1 = clamp(box.y1, 0, Math.max(0, size.height - MIN_SIDE));
    box.y2 = Math.min(box.y1 + MIN_SIDE, size.height);
  }
  return box;
}
