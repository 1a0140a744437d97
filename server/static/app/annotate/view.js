// Zoom and pan: pure functions. A view {scale, x, y} takes image pixels to the stage's pixels:
// stage = image * scale + (x, y).

const MAX_SCALE = 40;
const MARGIN = 24;
/** So much of the image, in stage pixels, stays in sight however far it is pushed. */
const KEPT = 60;

/** The view that shows the whole image, centred. */
export function fitted(size, stage) {
  const scale = Math.min(
    Math.max(stage.width - 2 * MARGIN, 50) / size.width,
    Math.max(stage.height - 2 * MARGIN, 50) / size.height,
    MAX_SCALE,
  );
  return {
    scale,
    x: (stage.width - size.width * scale) / 2,
    y: (stage.height - size.height * scale) / 2,
  };
}

/** The view zoomed by a factor, with the image's point under `point` (stage pixels) kept there. */
export function zoomed(view, factor, point, size, stage) {
  const least = Math.min(fitted(size, stage).scale, 1) / 2;
  const scale = Math.min(Math.max(view.scale * factor, least), MAX_SCALE);
  const real = scale / view.scale;
  return kept(
    { scale, x: point.x - (point.x - view.x) * real, y: point.y - (point.y - view.y) * real },
    size,
    stage,
  );
}

/** The view pushed by so many stage pixels. */
export const panned = (view, dx, dy, size, stage) =>
  kept({ ...view, x: view.x + dx, y: view.y + dy }, size, stage);

/** The view in which a box can be seen: the same one if it can already. */
export function showing(view, box, size, stage) {
  const a = toStage(view, { x: box.x1, y: box.y1 });
  const b = toStage(view, { x: box.x2, y: box.y2 });
  const push = (low, high, room) => {
    if (high - low > room || (low >= 0 && high <= room)) return 0;
    return low < 0 ? MARGIN - low : room - MARGIN - high;
  };
  return panned(view, push(a.x, b.x, stage.width), push(a.y, b.y, stage.height), size, stage);
}

export const toImage = (view, point) => ({
  x: (point.x - view.x) / view.scale,
  y: (point.y - view.y) / view.scale,
});

export const toStage = (view, point) => ({
  x: point.x * view.scale + view.x,
  y: point.y * view.scale + view.y,
});

function kept(view, size, stage) {
  const hold = (offset, length, room) =>
    Math.min(Math.max(offset, Math.min(KEPT, room) - length), room - Math.min(KEPT, room));
  return {
    scale: view.scale,
    x: hold(view.x, size.width * view.scale, stage.width),
    y: hold(view.y, size.height * view.scale, stage.height),
  };
}
