// What there is to do next in a project. Pure.
import { ACTIVE } from "./watch.js";

/**
 * @param {object} project with `counts`
 * @param {object[]} cycles newest first
 * @param {number} open queries that wait to be labeled
 * @returns {{key: string, done: number}} key of the step that is next; how many of the first four
 *   steps are behind the user
 */
export function nextStep(project, cycles, open) {
  const { counts } = project;
  if (counts.images === 0) return { key: "images", done: 1 };
  const newest = cycles[0];
  const succeeded = cycles.filter((cycle) => cycle.state === "succeeded");
  const trained = succeeded.some((cycle) => cycle.kind === "trained");
  const labels = counts.labeled > 0;
  const done = trained ? 5 : labels && open === 0 ? 4 : succeeded.length > 0 || labels ? 3 : 2;
  if (newest && ACTIVE.has(newest.state)) return { key: "watch", done };
  if (newest && ["failed", "cancelled"].includes(newest.state)) return { key: "resume", done };
  if (open > 0) return { key: "annotate", done };
  return { key: succeeded.length === 0 && !labels ? "first-cycle" : "cycle", done };
}
