// Saves on their way to the server. An annotator never waits for one: it is kept in the browser
// first, sent in order, and sent again until there is an answer.
//
// An entry: {key, user, project, image: {id, name, width, height}, kind: "save"|"skip", query,
// token, version, boxes, seconds, source, author, reason, state, problem, current}. `state`:
//   waiting    not answered yet
//   conflict   somebody else saved another version, which is in `current`; a person must decide
//   refused    the server will not have it (claimed by somebody else, deleted …): `problem` says why
import { post, put } from "../api.js";

const RETRY_SECONDS = [1, 2, 5, 10, 30];

export class Outbox extends EventTarget {
  /** Events: "change"; "signed-out"; "saved" with detail {entry, answer}; "trouble" with {entry}. */
  constructor(drafts, user) {
    super();
    this.drafts = drafts;
    this.user = user;
    this.entries = [];
    /** Why nothing can be sent just now: null, "offline", "signed-out" or "server". */
    this.stopped = null;
    this.failures = 0;
    this.sending = null;
    this.timer = null;
    addEventListener("online", () => this.send());
  }

  /** Take up what an earlier visit left, and send it. */
  async start() {
    this.entries = await this.drafts.entries(this.user);
    this.#changed();
    this.send();
  }

  /** Keep an entry and send it in the background. Resolves when it is kept, not when it is sent. */
  async add(entry) {
    const kept = { ...entry, user: this.user, state: "waiting" };
    kept.key = await this.drafts.queue(kept);
    this.entries.push(kept);
    this.#changed();
    this.send();
  }

  /** The newest entry of an image that the server does not have, or undefined. */
  of(image) {
    return this.entries.findLast((entry) => entry.image.id === image && entry.kind === "save");
  }

  /** Forget an entry. */
  async remove(entry) {
    this.entries = this.entries.filter((each) => each !== entry);
    await this.drafts.remove(entry.key);
    this.#changed();
  }

  /** Send an entry again, on top of another version where one is given. */
  async retry(entry, version = entry.version) {
    Object.assign(entry, { version, state: "waiting", problem: null, current: null });
    await this.drafts.change(entry);
    this.#changed();
    this.send();
  }

  /**
   * An image was claimed anew, its first claim having lapsed: what is on its way needs the new
   * token. Gives whether there is anything.
   */
  async renewToken(image, token) {
    const entries = this.entries.filter((entry) => entry.image.id === image && entry.state !== "conflict");
    for (const entry of entries) {
      entry.token = token;
      await this.retry(entry);
    }
    return entries.length > 0;
  }

  /** Send what waits, one after the other. */
  send() {
    clearTimeout(this.timer);
    this.sending ??= this.#sendAll()
      .finally(() => {
        this.sending = null;
      })
      .then(() => {
        // What came in while the last one was answered.
        if (this.stopped === null && this.#waiting().length > 0) this.send();
      });
    return this.sending;
  }

  #waiting() {
    return this.entries.filter((entry) => entry.state === "waiting");
  }

  async #sendAll() {
    for (let entry; (entry = this.#waiting()[0]); ) {
      if (!(await this.drafts.hasEntry(entry.key))) {
        // Another tab has sent it.
        this.entries = this.entries.filter((each) => each !== entry);
        continue;
      }
      const { token } = entry;
      try {
        const answer = await this.#request(entry);
        this.failures = 0;
        this.stopped = null;
        await this.#sent(entry, answer);
      } catch (error) {
        if (!["ApiError", "NetworkError"].includes(error.name)) throw error;
        if (isPassing(error)) {
          this.#stop(error);
          return;
        }
        // Claimed anew while it was on its way: it goes again, with the new token.
        if (entry.token === token) await this.#refused(entry, error);
      }
    }
    this.stopped = null;
    this.#changed();
  }

  #request(entry) {
    const options = { stay: true };
    if (entry.kind === "skip") {
      const body = { claim_token: entry.token, reason: entry.reason };
      return post(`/queries/${entry.query}/skip`, body, options);
    }
    const body = { version: entry.version, boxes: entry.boxes, seconds: entry.seconds, source: entry.source };
    if (entry.token) body.claim_token = entry.token;
    if (entry.author) body.author = entry.author;
    return put(`/images/${entry.image.id}/annotations`, body, options);
  }

  async #sent(entry, answer) {
    if (entry.kind === "save") {
      // What was drawn meanwhile on the same image is based on what was just saved.
      for (const later of this.entries) {
        if (later !== entry && later.image.id === entry.image.id && later.version === entry.version) {
          later.version = answer.version;
          await this.drafts.change(later);
        }
      }
      await this.drafts.rebase(this.user, entry.image.id, entry.version, answer.version);
    }
    this.dispatchEvent(new CustomEvent("saved", { detail: { entry, answer } }));
    await this.remove(entry);
  }

  async #refused(entry, error) {
    if (entry.kind === "skip" && error.code === "stale_claim" && entry.token) {
      // Whoever's claim has lapsed may still skip an image that nobody took.
      entry.token = null;
      return;
    }
    entry.state = error.code === "version_conflict" ? "conflict" : "refused";
    entry.problem = error.message;
    entry.current = error.body?.current ?? null;
    await this.drafts.change(entry);
    this.dispatchEvent(new CustomEvent("trouble", { detail: { entry } }));
    this.#changed();
  }

  #stop(error) {
    const before = this.stopped;
    if (error.name === "NetworkError") this.stopped = "offline";
    else this.stopped = error.status === 401 ? "signed-out" : "server";
    if (this.stopped === "signed-out" && before !== "signed-out") this.dispatchEvent(new Event("signed-out"));
    const seconds = RETRY_SECONDS[Math.min(this.failures, RETRY_SECONDS.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.send(), seconds * 1000);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether the same request may well be answered later. */
const isPassing = (error) =>
  error.name === "NetworkError" || error.status >= 500 || [401, 429].includes(error.status) || error.code === "csrf";
