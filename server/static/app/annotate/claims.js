// Where the next images come from: queries claimed in small batches, kept by heartbeats.
import { get, post } from "../api.js";
import { Empty, Progress } from "../components.js";
import { count, percent, plural } from "../format.js";
import { html } from "../preact.js";

/** Claimed at a time, and so many are kept ahead of the annotator. */
const BATCH = 4;
const CLAIM_SECONDS = 300;
const HEARTBEAT_SECONDS = 60;
/** Whoever touches nothing for so long is not here: the claims lapse and others get the images. */
const AWAY_SECONDS = 900;

/** An item: {image, query, token, version, predictions, state}, state "open", "saved" or "skipped". */
function itemOf(query, token) {
  const { annotation_version: version, ...image } = query.image;
  return {
    image,
    query: {
      id: query.id,
      rank: query.rank,
      reason: query.reason,
      uncertainty: query.uncertainty,
      heatmap: query.heatmap_url,
    },
    token,
    version,
    predictions: query.predictions,
    state: "open",
  };
}

export class Claims extends EventTarget {
  /** Event "lapsed" with detail {items}: they may be somebody else's by now. */
  constructor(project, author) {
    super();
    this.project = project;
    this.author = author;
    this.items = () => []; // what is held, newest state; the desk tells
    this.active = Date.now();
    this.timer = setInterval(() => this.beat(), HEARTBEAT_SECONDS * 1000);
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.beat();
    });
    addEventListener("online", () => this.beat());
    for (const kind of ["pointerdown", "keydown", "wheel"]) {
      addEventListener(kind, () => (this.active = Date.now()), { capture: true, passive: true });
    }
  }

  /** Claim more; an empty list if nothing is left. */
  async more() {
    const body = { project: this.project, limit: BATCH, seconds: CLAIM_SECONDS };
    if (this.author) body.author = this.author;
    const claim = await post("/queries/claim", body);
    return claim.items.map((query) => itemOf(query, claim.claim_token));
  }

  /** Prolong what is held. Items whose claim has lapsed are told in the event "lapsed". */
  async beat() {
    if (Date.now() - this.active > AWAY_SECONDS * 1000) return;
    const held = this.items().filter((item) => item.state === "open" && item.token && !item.lapsed);
    const tokens = new Set(held.map((item) => item.token));
    for (const token of tokens) {
      const batch = held.filter((item) => item.token === token);
      await this.#prolong(token, batch);
    }
  }

  async #prolong(token, batch) {
    // One answer speaks for the whole batch, unless the one that is asked for has ended.
    for (const item of batch) {
      try {
        const body = { claim_token: token, seconds: CLAIM_SECONDS };
        await post(`/queries/${item.query.id}/heartbeat`, body, { stay: true });
        return;
      } catch (error) {
        if (![404, 409].includes(error.status)) return; // no answer: the next beat tries again
        item.lapsed = true;
        this.dispatchEvent(new CustomEvent("lapsed", { detail: { item } }));
      }
    }
  }

  /** Give everything back that is not begun; also while the page is being left. */
  release(items) {
    for (const item of items) {
      if (item.state !== "open" || !item.token) continue;
      post(`/queries/${item.query.id}/release`, { claim_token: item.token }, { keepalive: true, stay: true }).catch(
        () => {}, // it lapses by itself
      );
    }
  }

  /**
   * Why nothing can be claimed.
   * @returns {{total, done, open, held, cycle}} counts of the newest selection, and the newest cycle
   */
  async standing() {
    const of = (state) => get("/queries", { project: this.project, state, limit: 1, count: true });
    const [all, open, held, labeled, skipped, cycles] = await Promise.all([
      of("all"),
      of("open"),
      of("claimed"),
      of("labeled"),
      of("skipped"),
      get("/cycles", { project: this.project, limit: 1 }),
    ]);
    return {
      total: all.total,
      open: open.total,
      held: held.total,
      labeled: labeled.total,
      done: labeled.total + skipped.total,
      cycle: cycles.items[0] ?? null,
    };
  }

  /** What the page says when nothing can be claimed. */
  describe(standing, { project, back }) {
    const overview = (text) => html`<a class="button primary" href=${`/app/projects/${project.id}`}>${text}</a>`;
    const { cycle } = standing;
    if (cycle && ["queued", "running"].includes(cycle.state)) {
      return html`<${Empty} title="A cycle is choosing the next images" actions=${[back, overview("Watch it")]}>
        <p>${cycle.message || (cycle.state === "queued" ? "It waits for a worker." : `It is in the stage "${cycle.stage}".`)} This page goes on by itself when images are there.</p>
        <${Progress} value=${cycle.progress} label="Progress of the cycle" />
        <p class="number">${percent(cycle.progress, 0)}</p>
      <//>`;
    }
    if (standing.total === 0) {
      return html`<${Empty} title="Nothing has been selected yet" actions=${overview("To the overview")}>
        <p>Images to label come from a cycle: upload pictures and start one on the overview. This page goes on by itself when images are there.</p>
      <//>`;
    }
    if (standing.held > 0) {
      return html`<${Empty} title="The last images are with others" actions=${[back, overview("To the overview")]}>
        <p>${plural(standing.held, "image")} of this selection ${standing.held === 1 ? "is" : "are"} being labeled just now. If one is given back, it appears here by itself.</p>
      <//>`;
    }
    return html`<${Empty}
      title="All done"
      actions=${[back, html`<a class="button" href="?review=disagreement">Review labels</a>`, overview("Start the next cycle")]}
    >
      <p>${standing.total === 1 ? "The image of this selection is" : `All ${count(standing.total)} images of this selection are`} answered${standing.labeled < standing.total ? html`: ${count(standing.labeled)} labeled, ${count(standing.done - standing.labeled)} skipped` : ""}. The next cycle learns from them and chooses new ones.</p>
    <//>`;
  }
}
