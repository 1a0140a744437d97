// The events of a cycle, from the beginning and then as they happen.

export const ACTIVE = new Set(["queued", "running"]);

const COME_BACK_SECONDS = 5;

/**
 * Watch a cycle until it has ended. Events that come together are handed over together.
 * @param {string} id
 * @param {(events: object[]) => void} onEvents in order; each is what the cycle was just after
 * @param {() => void} onEnd the cycle has ended, or nothing can be heard of it now: look at it anew.
 *   Until it is stopped, the watch comes back by itself after some seconds
 * @returns {() => void} stops watching
 */
export function watchCycle(id, onEvents, onEnd) {
  let source = null;
  let waiting = [];
  let timer = null;
  let again = null;

  const end = () => {
    source.close();
    onEnd();
    // A proxy's error ends a stream as well, and browsers do not come back after one.
    again = setTimeout(open, COME_BACK_SECONDS * 1000);
  };
  const handOver = () => {
    timer = null;
    const events = waiting;
    waiting = [];
    onEvents(events);
    if (!ACTIVE.has(events.at(-1).state) || source.readyState === EventSource.CLOSED) end();
  };
  const take = (event) => {
    waiting.push(JSON.parse(event.data));
    timer ??= setTimeout(handOver, 60);
  };
  const open = () => {
    source = new EventSource(`/cycles/${encodeURIComponent(id)}/events`);
    source.addEventListener("state", take);
    source.addEventListener("progress", take);
    source.addEventListener("error", () => {
      // A broken line the browser mends by itself.
      if (source.readyState === EventSource.CLOSED && timer === null) end();
    });
  };
  open();
  return () => {
    clearTimeout(timer);
    clearTimeout(again);
    source.close();
  };
}
