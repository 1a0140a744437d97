// The annotator's desk: which image lies on it, what comes next, what was done, what went wrong.
import { get } from "../api.js";
import { plural } from "../format.js";
import { Editor, historyOf, plain, sameBoxes } from "./editor.js";
import { dropLateDraft, keepDesk, keepLateDraft, keepSettings, lateDraft, leftOnDesk, settingsOf } from "./memory.js";
import { Stopwatch } from "./stopwatch.js";
import { merged } from "./suggestions.js";

const AHEAD = 3;
/** Images of a visit that one can go back to. */
const REMEMBERED = 30;
const EMPTY_POLL_SECONDS = 5;

export class Desk extends EventTarget {
  /**
   * Event "change": something is to be drawn anew.
   * @param {{project: object, user: string, author: string|null, drafts: object, outbox: object,
   *   pictures: object, source: object, storageKey: string}} given `source` gives items: see
   *   claims.js and review.js
   */
  constructor(given) {
    super();
    Object.assign(this, given);
    /** "loading", "working", "empty", "failed" */
    this.phase = "loading";
    this.items = [];
    this.index = -1;
    this.editor = null;
    this.standing = null;
    this.problem = null;
    /** null, or {name: "keys"|"skip"|"instructions"|"unsaved"|"conflict", entry?} */
    this.dialog = null;
    /** What screen readers are told, and what stands beside the image for a while. */
    this.said = "";
    this.notice = null;
    this.whyShown = false;
    this.stopwatch = new Stopwatch();
    this.settings = settingsOf(this.project);
    this.turn = 0;
    /** A draft that is being written: lost if the page goes now. */
    this.late = null;
    addEventListener("pagehide", () => {
      if (this.late) keepLateDraft(this.storageKey, this.late);
    });
    this.source.items = () => this.items;
    this.source.addEventListener("lapsed", (event) => this.#lapsed(event.detail.item));
    this.outbox.addEventListener("change", () => this.changed());
    this.outbox.addEventListener("signed-out", () => this.open("unsaved"));
    this.outbox.addEventListener("saved", (event) => this.#saved(event.detail));
    this.outbox.addEventListener("trouble", (event) => this.#trouble(event.detail.entry));
  }

  get item() {
    return this.items[this.index] ?? null;
  }

  get canGoBack() {
    return this.index > 0;
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** Say something: to screen readers, and briefly beside the image. */
  say(text, kind = "info") {
    this.said = text;
    this.notice = { text, kind };
    clearTimeout(this.noticeTimer);
    this.noticeTimer = setTimeout(() => {
      this.notice = null;
      this.changed();
    }, 5000);
    this.changed();
  }

  open(name, entry = null) {
    this.dialog = { name, entry };
    this.changed();
  }

  close() {
    this.dialog = null;
    this.changed();
  }

  /** Begin: with what an earlier visit left on the desk, or with the next image. */
  async start() {
    try {
      const left = leftOnDesk(this.storageKey);
      const late = lateDraft(this.storageKey);
      if (late) await this.drafts.keep(late);
      dropLateDraft(this.storageKey);
      this.items = left.items;
      if (this.items.length > 0) await this.source.beat();
      await this.#takeUpDrafts();
      const place = this.items.indexOf(left.items[left.index]);
      await this.#goTo(Math.max(place, 0));
      this.#refreshStanding();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Save what is drawn and go on. @param {boolean} nothing there is nothing to box */
  async save(nothing = false) {
    const { item, editor } = this;
    if (!item || !editor || this.phase !== "working" || this.isLeaving) return;
    if (nothing && editor.boxes.length > 0) {
      this.say(`There ${editor.boxes.length === 1 ? "is 1 box" : `are ${editor.boxes.length} boxes`}: remove them first, or save with Space`, "warn");
      return;
    }
    const unchanged = item.state !== "open" && sameBoxes(editor.boxes, item.saved ?? []);
    if (!nothing && editor.boxes.length === 0 && !unchanged) {
      this.say("No box is drawn. Press X if there is nothing to box here", "warn");
      return;
    }
    performance.mark("save");
    if (unchanged) {
      await this.#leave(async () => this.drafts.drop(this.user, item.image.id));
      return;
    }
    const boxes = plain(editor.boxes);
    await this.#leave(async () => {
      await this.outbox.add({
        ...this.#entry(item),
        kind: "save",
        boxes,
        source: editor.source,
        seconds: this.stopwatch.seconds,
      });
      if (item.state === "open" && this.standing) this.standing.done += 1;
      Object.assign(item, { state: "saved", saved: boxes });
      this.said = `Saved ${item.image.name} with ${plural(boxes.length, "box", "boxes")}`;
    });
  }

  /** Skip the image, and go on. */
  async skip(reason) {
    const { item } = this;
    this.dialog = null;
    await this.#leave(async () => {
      await this.outbox.add({ ...this.#entry(item), kind: "skip", reason });
      if (item.state === "open" && this.standing) this.standing.done += 1;
      item.state = "skipped";
      this.said = `Skipped ${item.image.name}`;
    });
  }

  get canSkip() {
    return this.item?.state === "open" && this.item.query !== null;
  }

  async previous() {
    if (this.isLeaving) return;
    if (!this.canGoBack) {
      this.say("This is the first image of this visit");
      return;
    }
    await this.#goTo(this.index - 1);
  }

  /** Try again after a failure, or look whether there is something to do now. */
  async again() {
    this.phase = "loading";
    this.changed();
    await this.#goTo(this.items.length).catch((error) => this.#fail(error));
    this.#refreshStanding();
  }

  /** Settle a conflict: "theirs", "mine" (saved as the next version), or "both" to look at. */
  async settle(entry, how) {
    const { current } = entry;
    const item = this.items.find((each) => each.image.id === entry.image.id);
    this.dialog = null;
    if (how === "mine") {
      await this.outbox.retry(entry, current.version);
      this.say(`Saving your version of ${entry.image.name} as version ${current.version + 1}`);
      return;
    }
    await this.outbox.remove(entry);
    const theirs = current.boxes ?? [];
    if (item) Object.assign(item, { version: current.version, saved: theirs, state: "saved", token: null });
    if (how === "theirs") {
      if (item && item === this.item) await this.#goTo(this.index);
      this.say(`Kept what ${current.author} saved`);
      return;
    }
    const history = historyOf(theirs);
    const boxes = merged(theirs, entry.boxes).map((box, index) => ({ ...box, id: index + 1 }));
    const draft = { past: [history.present], present: { boxes, dismissed: [] }, future: [] };
    const opened = item ?? reopened(entry, current);
    await this.drafts.keep(this.#draft(opened, draft, entry.seconds ?? 0));
    if (!item) this.items.splice(this.index, 0, opened);
    await this.#goTo(this.items.indexOf(opened));
    this.say("Both versions lie on top of each other: keep what is right, and save");
  }

  /** Forget a save that the server refused. */
  async discard(entry) {
    await this.outbox.remove(entry);
    this.close();
  }

  /** Give back what is held and not begun: others may have it. */
  giveBack() {
    const begun = this.editor?.isEdited ? this.item : null;
    const idle = this.items.filter((item) => item.state === "open" && item !== begun);
    this.source.release(idle);
    this.items = this.items.filter((item) => !idle.includes(item));
    this.index = this.items.indexOf(begun);
    this.#remember();
  }

  keepSettings() {
    keepSettings(this.project, this.settings);
    this.changed();
  }

  // --- from image to image

  async #leave(keep) {
    this.isLeaving = true;
    this.changed();
    try {
      await this.keeping; // a draft that is being written must not come after its removal
      if (await this.#isKept(keep)) await this.#goTo(this.index + 1);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.isLeaving = false;
      this.changed();
    }
  }

  /** Whether this browser could keep it; if not, the image stays on the desk. */
  async #isKept(keep) {
    try {
      await keep();
      return true;
    } catch (error) {
      this.say(`This browser could not keep the save (${error.message}): make room on its disk, and save again`, "bad");
      return false;
    }
  }

  async #goTo(index) {
    this.turn += 1;
    const { turn } = this;
    if (index >= this.items.length) await this.#fetch();
    if (turn !== this.turn) return;
    if (index >= this.items.length) {
      await this.#runOut();
      return;
    }
    const item = this.items[index];
    const { history, predictions, seconds } = await this.#contents(item);
    if (turn !== this.turn) return;
    this.index = index;
    this.notice = null;
    this.editor = new Editor({
      size: item.image,
      predictions,
      history,
      settings: this.settings,
      onChange: (edited) => {
        if (edited) this.#keepDraft();
        this.changed();
      },
    });
    this.stopwatch.restart(seconds);
    this.phase = "working";
    this.#remember();
    this.changed();
    this.dispatchEvent(new Event("image"));
    this.#lookAhead();
  }

  async #contents(item) {
    const draft = await this.drafts.get(this.user, item.image.id);
    const unsent = this.outbox.of(item.image.id);
    if (item.saved === undefined || item.predictions === null) await this.#prepare(item);
    const predictions = item.predictions ?? [];
    if (draft) {
      item.version = draft.version;
      return { history: draft.history, predictions, seconds: draft.seconds };
    }
    return { history: historyOf(unsent?.boxes ?? item.saved ?? []), predictions, seconds: 0 };
  }

  /** Have what the server holds of an item: the boxes of its version, and predictions. */
  async #prepare(item) {
    item.preparing ??= (async () => {
      const path = `/images/${item.image.id}`;
      const [annotation, found] = await Promise.all([
        item.version > 0 ? get(`${path}/annotations`) : { boxes: null, version: 0 },
        item.predictions === null ? get(`${path}/predictions`) : item,
      ]);
      Object.assign(item, {
        saved: annotation.boxes ?? [],
        version: annotation.version,
        predictions: found.predictions ?? [],
      });
    })();
    try {
      await item.preparing;
    } finally {
      delete item.preparing;
    }
  }

  async #fetch() {
    this.fetching ??= this.#claimMore().finally(() => {
      this.fetching = null;
    });
    await this.fetching;
  }

  async #claimMore() {
    for (const item of await this.source.more()) {
      const there = this.items.find((each) => each.state === "open" && each.image.id === item.image.id);
      if (there) Object.assign(there, { token: item.token, query: item.query, lapsed: false });
      // Ours before, and saved or skipped since: its answer is on the way already.
      else if (!(await this.outbox.renewToken(item.image.id, item.token))) this.items.push(item);
    }
    this.#remember();
  }

  async #lookAhead() {
    try {
      if (this.items.length - this.index - 1 < AHEAD) await this.#fetch();
      const coming = this.items.slice(this.index + 1, this.index + 1 + AHEAD);
      this.pictures.prefetch(coming.map((item) => item.image));
      for (const item of coming) {
        if (item.saved === undefined || item.predictions === null) await this.#prepare(item);
      }
    } catch {
      // Nothing is lost by it: it is asked for again when it is needed, and the failure shown then.
    }
  }

  async #runOut() {
    // What was just saved counts as done, unless it cannot be sent.
    await this.outbox.send();
    this.standing = await this.source.standing();
    this.phase = "empty";
    this.editor = null;
    this.index = this.items.length;
    this.#remember();
    this.changed();
    clearTimeout(this.pollTimer);
    this.pollTimer = setTimeout(() => this.#poll(), EMPTY_POLL_SECONDS * 1000);
  }

  async #poll() {
    if (this.phase !== "empty") return;
    try {
      await this.#goTo(this.items.length);
    } catch {
      this.pollTimer = setTimeout(() => this.#poll(), EMPTY_POLL_SECONDS * 1000);
    }
  }

  #fail(error) {
    this.phase = "failed";
    this.problem = error;
    this.changed();
    if (!["ApiError", "NetworkError"].includes(error.name)) throw error;
    if (error.name === "NetworkError") addEventListener("online", () => this.again(), { once: true });
  }

  async #refreshStanding() {
    try {
      this.standing = await this.source.standing();
      this.changed();
    } catch {
      // A figure beside the work, no more.
    }
  }

  // --- what is kept

  #entry(item) {
    return {
      project: this.project.id,
      image: item.image,
      query: item.query?.id ?? null,
      token: item.token,
      version: item.version,
      author: this.author,
      at: Date.now(),
    };
  }

  #draft(item, history, seconds) {
    const { preparing: _, ...plainItem } = item;
    return {
      user: this.user,
      project: this.project.id,
      image: item.image.id,
      item: plainItem,
      version: item.version,
      history,
      seconds,
    };
  }

  #keepDraft() {
    const { item, editor } = this;
    const draft = this.#draft(item, editor.history, this.stopwatch.seconds);
    this.late = draft;
    const kept = () => {
      if (this.late === draft) this.late = null;
    };
    this.keeping = this.drafts.keep(draft).then(kept, (error) => {
      kept();
      this.say(`This browser keeps no draft (${error.message}): save before you leave`, "bad");
    });
  }

  /** Drafts of a visit that ended before they were saved come first. */
  async #takeUpDrafts() {
    const drafts = await this.drafts.ofProject(this.user, this.project.id);
    const known = new Set(this.items.map((item) => item.image.id));
    // Claims that lapsed while the page was closed, without anything drawn: others may have them.
    const drawn = new Set(drafts.map((draft) => draft.image));
    this.items = this.items.filter((item) => item.state !== "open" || !item.lapsed || drawn.has(item.image.id));
    const found = drafts.filter((draft) => !known.has(draft.image)).map((draft) => draft.item);
    const next = this.items.findIndex((item) => item.state === "open");
    this.items.splice(next < 0 ? this.items.length : next, 0, ...found);
    if (found.length > 0) this.say(`Took up ${plural(found.length, "image")} that you had not saved`);
  }

  #remember() {
    const first = Math.max(0, this.index - REMEMBERED);
    if (first > 0) {
      this.items.splice(0, first);
      this.index -= first;
    }
    keepDesk(this.storageKey, this.items, this.index);
  }

  // --- what happens meanwhile

  #saved({ entry, answer }) {
    if (entry.kind !== "save") return;
    for (const item of this.items) {
      if (item.image.id === entry.image.id) Object.assign(item, { version: answer.version, token: null });
    }
    this.#remember();
    if (this.phase === "empty") this.#refreshStanding();
  }

  #trouble(entry) {
    if (entry.state === "conflict") {
      this.say(`Somebody else saved ${entry.image.name} meanwhile: compare both versions`, "warn");
    } else {
      this.say(`${entry.image.name} could not be saved: ${entry.problem}`, "bad");
    }
  }

  #lapsed(item) {
    if (item === this.item) {
      this.say("Your claim on this image has lapsed. What you draw still counts unless somebody else takes it", "warn");
    } else if (this.items.indexOf(item) > this.index && this.index >= 0) {
      this.items = this.items.filter((each) => each !== item);
      this.#remember();
    }
    this.changed();
  }
}

const reopened = (entry, current) => ({
  image: entry.image,
  query: null,
  token: null,
  version: current.version,
  predictions: null,
  saved: current.boxes ?? [],
  state: "saved",
});
