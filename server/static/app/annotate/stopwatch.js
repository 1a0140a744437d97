// Seconds of work on an image: they stand still while the page is hidden or nobody touches it.

const IDLE_SECONDS = 60;

export class Stopwatch {
  #seconds = 0;
  #last = Date.now();

  constructor() {
    for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      addEventListener(kind, () => this.#tick(), { capture: true, passive: true });
    }
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#tick();
      else this.#last = Date.now();
    });
  }

  /** Begin with an image on which so many seconds were spent before. */
  restart(seconds = 0) {
    this.#seconds = seconds;
    this.#last = Date.now();
  }

  /** Seconds so far. */
  get seconds() {
    this.#tick();
    return Math.round(this.#seconds * 10) / 10;
  }

  #tick() {
    const now = Date.now();
    this.#seconds += Math.min((now - this.#last) / 1000, IDLE_SECONDS);
    this.#last = now;
  }
}
