// The boxes of one image while they are drawn: what is selected, every change, undo and redo.
import { around, grown, moved } from "./geometry.js";
import { begun, changed, redone, undone } from "./history.js";
import { waiting } from "./suggestions.js";

const CORNERS = ["x1", "y1", "x2", "y2"];

/** Boxes as the API takes them. */
export const plain = (boxes) =>
  boxes.map((box) => ({
    class: box.class,
    ...Object.fromEntries(CORNERS.map((corner) => [corner, box[corner]])),
    difficult: box.difficult ?? false,
  }));

export const sameBoxes = (a, b) => JSON.stringify(plain(a)) === JSON.stringify(plain(b));

/** A history that begins with boxes of the API. */
export const historyOf = (boxes) =>
  begun({ boxes: boxes.map((box, index) => ({ ...box, id: index + 1 })), dismissed: [] });

export class Editor {
  /**
   * @param {{size: {width, height}, predictions: object[], history: object, settings: object,
   *   onChange: (edited: boolean) => void}} given `settings` is shared by all images of a visit:
   *   {className, threshold, suggestionsShown}; `onChange` hears of every change to be drawn, with
   *   true for one of the boxes
   */
  constructor({ size, predictions, history, settings, onChange }) {
    Object.assign(this, { size, predictions, history, settings, onChange });
    this.begin = history.past[0] ?? history.present;
    /** {box: id} or {suggestion: index}, or null. */
    this.selected = null;
    this.crosshair = { x: size.width / 2, y: size.height / 2 };
    /** A box that is being drawn, moved or resized: in place of its old self until it is done. */
    this.preview = null;
    const states = [...history.past, history.present, ...history.future];
    this.lastId = Math.max(0, ...states.flatMap((state) => state.boxes.map((box) => box.id)));
  }

  get state() {
    return this.history.present;
  }

  get boxes() {
    return this.state.boxes;
  }

  /** Boxes as they are to be drawn, the one in hand included. */
  get shown() {
    const { preview } = this;
    if (!preview) return this.boxes;
    const there = this.boxes.some((box) => box.id === preview.id);
    return there ? this.boxes.map((box) => (box.id === preview.id ? preview : box)) : [...this.boxes, preview];
  }

  get suggestions() {
    if (!this.settings.suggestionsShown) return [];
    return waiting(this.predictions, this.state, this.settings.threshold);
  }

  get selectedBox() {
    return this.boxes.find((box) => box.id === this.selected?.box) ?? null;
  }

  get selectedSuggestion() {
    return this.suggestions.find((each) => each.index === this.selected?.suggestion) ?? null;
  }

  get isEdited() {
    return this.history.past.length > 0 || this.history.future.length > 0;
  }

  select(selected) {
    this.selected = selected;
    this.onChange(false);
  }

  /** A box in hand: shown, not yet a change. */
  hold(preview) {
    this.preview = preview;
    this.onChange(false);
  }

  add(corners, more = {}) {
    this.lastId += 1;
    const box = { id: this.lastId, class: this.settings.className, difficult: false, ...more, ...corners };
    this.selected = { box: box.id };
    this.#change({ ...this.state, boxes: [...this.boxes, box] });
    return box;
  }

  /** A new box at the crosshair, an eighth of what is in sight. */
  addAtCrosshair(sight) {
    const side = Math.max(8, Math.min(sight.width, sight.height) / 8);
    return this.add(around(this.crosshair, side, side, this.size));
  }

  /** Put changes on the box with this id; one step to undo, or part of the last one. */
  alter(id, changes, merge = false) {
    const boxes = this.boxes.map((box) =>
      box.id === id ? { ...box, ...changes, touched: box.from === undefined ? undefined : true } : box,
    );
    this.#change({ ...this.state, boxes }, merge);
  }

  /** Move the selected box, or the crosshair if none is selected. */
  move(dx, dy, merge) {
    const box = this.selectedBox;
    if (box) {
      this.alter(box.id, moved(box, dx, dy, this.size), merge);
      return;
    }
    const clamp = (value, high) => Math.min(Math.max(value, 0), high);
    this.point({
      x: clamp(this.crosshair.x + dx, this.size.width),
      y: clamp(this.crosshair.y + dy, this.size.height),
    });
  }

  /** Put the crosshair at a point of the image. */
  point(crosshair) {
    this.crosshair = crosshair;
    this.onChange(false);
  }

  resize(dx, dy, merge) {
    const box = this.selectedBox;
    if (box) this.alter(box.id, grown(box, dx, dy, this.size), merge);
  }

  /** The class of the next boxes, and of the selected one. */
  setClass(className) {
    this.settings.className = className;
    const box = this.selectedBox;
    if (box && box.class !== className) this.alter(box.id, { class: className });
    else this.onChange(false);
  }

  toggleDifficult(id = this.selected?.box) {
    const box = this.boxes.find((each) => each.id === id);
    if (box) this.alter(box.id, { difficult: !box.difficult });
  }

  /** Remove the selected box, or dismiss the selected suggestion; the next one is selected. */
  remove() {
    const order = this.#order();
    const place = order.findIndex((each) => same(each, this.selected));
    if (place < 0) return false;
    const next = order[place + 1] ?? order[place - 1] ?? null;
    const { box, suggestion } = this.selected;
    this.selected = next;
    if (box !== undefined) {
      this.#change({ ...this.state, boxes: this.boxes.filter((each) => each.id !== box) });
    } else {
      this.#change({ ...this.state, dismissed: [...this.state.dismissed, suggestion] });
    }
    return true;
  }

  /** Make a box of the selected suggestion, or of all that are shown; gives how many. */
  accept() {
    const one = this.selectedSuggestion;
    const accepted = one ? [one] : this.suggestions;
    if (accepted.length === 0) return 0;
    const boxes = accepted.map((each) => {
      this.lastId += 1;
      const corners = Object.fromEntries(CORNERS.map((corner) => [corner, each[corner]]));
      const inside = {
        x1: Math.max(0, corners.x1),
        y1: Math.max(0, corners.y1),
        x2: Math.min(this.size.width, corners.x2),
        y2: Math.min(this.size.height, corners.y2),
      };
      return { id: this.lastId, class: each.class, ...inside, difficult: false, from: each.index };
    });
    if (one) this.selected = { box: boxes[0].id };
    this.#change({ ...this.state, boxes: [...this.boxes, ...boxes] });
    return boxes.length;
  }

  /** Select the next box, then the suggestions, around in a circle; false if there is nothing. */
  walk(step) {
    const order = this.#order();
    if (order.length === 0) return false;
    const place = order.findIndex((each) => same(each, this.selected));
    const next = place < 0 ? (step > 0 ? 0 : order.length - 1) : (place + step + order.length) % order.length;
    this.select(order[next]);
    return true;
  }

  undo() {
    return this.#travel(undone(this.history));
  }

  redo() {
    return this.#travel(redone(this.history));
  }

  /** "human", or "suggestion" if every box is the model's as it was. */
  get source() {
    const untouched = this.boxes.every((box) => box.from !== undefined && !box.touched);
    return this.boxes.length > 0 && untouched ? "suggestion" : "human";
  }

  #order() {
    return [
      ...this.boxes.map((box) => ({ box: box.id })),
      ...this.suggestions.map((each) => ({ suggestion: each.index })),
    ];
  }

  #change(state, merge = false) {
    this.history = changed(this.history, state, merge);
    this.onChange(true);
  }

  #travel(history) {
    if (history === this.history) return false;
    this.history = history;
    this.preview = null;
    if (!this.selectedBox && !this.selectedSuggestion) this.selected = null;
    this.onChange(true);
    return true;
  }
}

const same = (a, b) => Boolean(a && b) && a.box === b.box && a.suggestion === b.suggestion;
