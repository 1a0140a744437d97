// Undo and redo without limit: pure functions over {past, present, future}, all of them states
// that are never changed in place.

export const begun = (state) => ({ past: [], present: state, future: [] });

/**
 * The history after a change.
 * @param {boolean} merge the change goes on with the last one (a key held down): one step to undo
 */
export function changed(history, state, merge = false) {
  if (merge && history.past.length > 0) return { ...history, present: state, future: [] };
  return { past: [...history.past, history.present], present: state, future: [] };
}

/** One step back; the same history if there is none. */
export function undone(history) {
  if (history.past.length === 0) return history;
  return {
    past: history.past.slice(0, -1),
    present: history.past.at(-1),
    future: [history.present, ...history.future],
  };
}

/** One step forward again; the same history if there is none. */
export function redone(history) {
  if (history.future.length === 0) return history;
  const [next, ...future] = history.future;
  return { past: [...history.past, history.present], present: next, future };
}
