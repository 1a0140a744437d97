// A project's cycles as points of a learning curve. Pure.

/**
 * The measured cycles, by labeled images.
 * @param {object[]} cycles of the API
 * @returns {{cycle: object, labeled: number, map50: number, perClass: Map<string, number|null>,
 *   validationChanged: boolean}[]}
 */
export function curvePoints(cycles) {
  const points = cycles
    .filter((cycle) => cycle.state === "succeeded" && typeof cycle.metrics?.map50 === "number")
    .map((cycle) => ({
      cycle,
      labeled: cycle.snapshot?.labeled_images ?? 0,
      map50: cycle.metrics.map50,
      perClass: new Map((cycle.metrics.per_class ?? []).map((row) => [row.class, row.ap50])),
      validationChanged: false,
    }))
    .sort((a, b) => a.cycle.number - b.cycle.number);
  points.forEach((point, index) => {
    const before = points[index - 1];
    point.validationChanged =
      before !== undefined &&
      before.cycle.metrics.validation_sha256 !== point.cycle.metrics.validation_sha256;
  });
  // The figures before and after a change are of different exams: the curve is broken there.
  return points.sort((a, b) => a.labeled - b.labeled || a.cycle.number - b.cycle.number);
}

/**
 * Columns for uPlot: x, mAP, and one for each class; a row of nulls breaks the lines where the
 * validation set changed. `at[i]` is the point of row i, null for a break.
 */
export function curveColumns(points, classNames) {
  const at = [];
  points.forEach((point, index) => {
    if (point.validationChanged && index > 0) at.push(null);
    at.push(point);
  });
  const x = at.map((point, row) =>
    point ? point.labeled : (at[row - 1].labeled + at[row + 1].labeled) / 2,
  );
  const column = (value) => at.map((point) => (point ? value(point) : null));
  const data = [
    x,
    column((point) => point.map50),
    ...classNames.map((name) => column((point) => point.perClass.get(name) ?? null)),
  ];
  return { at, data };
}
