// The sign of each strategy on a chart: a shape, so that nobody has to tell colours apart.

/** Paths in a square of 12. */
export const SHAPES = {
  "mi-aod": "M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
  entropy: "M6 1l5.5 9.5h-11z",
  "core-set": "M6 .5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
  random: "M1.5 1.5h9v9h-9z",
  other: "M1 4.5h10v3h-10z",
};

/** Draw one on a canvas, its middle at x, y. */
export function drawShape(context, name, x, y, ratio, colour, edge) {
  context.save();
  context.translate(x - 6 * ratio, y - 6 * ratio);
  context.scale(ratio, ratio);
  const path = new Path2D(SHAPES[name] ?? SHAPES.other);
  context.lineWidth = 3;
  context.strokeStyle = edge;
  context.stroke(path);
  context.fillStyle = colour;
  context.fill(path);
  context.restore();
}
