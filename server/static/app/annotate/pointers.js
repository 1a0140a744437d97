// Mouse, pen and fingers over the picture.
import { between, handleAt, moved, resized, smallestAt } from "./geometry.js";
import { toImage } from "./view.js";

/** A press that moves less, in stage pixels, is a click. */
const CLICK_PIXELS = 4;
const REACH = { mouse: 7, pen: 10, touch: 22 };
const OPPOSITE = { nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew" };

/** What the pointers do: draw, select, move, resize, pan, pinch. */
export class Pointers {
  constructor(desk, camera) {
    this.desk = desk;
    this.camera = camera;
    this.down = new Map(); // pointer id → last point
    this.gesture = null;
  }

  get editor() {
    return this.desk.editor;
  }

  press(event, point) {
    this.down.set(event.pointerId, point);
    if (this.down.size === 2) {
      // A second finger: whatever the first one began is not meant.
      this.editor.hold(null);
      this.gesture = { kind: "pinch", spread: this.#spread() };
      return;
    }
    if (this.down.size > 2) return;
    if (event.button === 1 || this.desk.isSpaceHeld) {
      this.gesture = { kind: "pan" };
      return;
    }
    if (event.button === 0) this.gesture = this.#begin(event, point);
  }

  #begin(event, start) {
    const at = toImage(this.camera.view, start);
    const box = this.editor.selectedBox;
    const reach = REACH[event.pointerType] / this.camera.view.scale;
    const handle = box && handleAt(box, at, reach);
    if (handle) return { kind: "resize", start, at, box, handle };
    if (box && smallestAt([box], at)) return { kind: "move", start, at, box };
    return { kind: "draw", start, at };
  }

  move(event, point) {
    const last = this.down.get(event.pointerId);
    if (last) this.down.set(event.pointerId, point);
    const { gesture, editor, camera } = this;
    const at = toImage(camera.view, point);
    if (!gesture) {
      if (event.pointerType !== "touch") editor.point(at);
      return;
    }
    if (gesture.kind === "pinch") {
      this.#pinch();
      return;
    }
    if (gesture.kind === "pan") {
      this.desk.wasPanned = true;
      camera.pan(point.x - last.x, point.y - last.y);
      return;
    }
    gesture.isDrag ||= Math.hypot(point.x - gesture.start.x, point.y - gesture.start.y) >= CLICK_PIXELS;
    if (!gesture.isDrag) return;
    editor.crosshair = at;
    editor.hold(this.#result(gesture, at));
  }

  /** The box that a gesture makes, with the pointer at a point of the image. */
  #result({ kind, box, handle, at: from }, at) {
    const { editor } = this;
    if (kind === "move") return moved(box, at.x - from.x, at.y - from.y, editor.size);
    if (kind === "resize") return resized(box, handle, at, editor.size);
    return { id: 0, class: editor.settings.className, difficult: false, ...between(from, at, editor.size) };
  }

  release(event, point) {
    this.down.delete(event.pointerId);
    const { gesture, editor } = this;
    if (!gesture) return;
    if (gesture.kind === "pinch") {
      // The finger that stays draws nothing.
      if (this.down.size === 0) this.gesture = null;
      return;
    }
    this.gesture = null;
    if (gesture.kind === "pan") return;
    const at = toImage(this.camera.view, point);
    editor.preview = null;
    if (!gesture.isDrag) this.#click(at, event);
    else if (gesture.kind === "draw") this.#drawn(this.#result(gesture, at));
    else editor.alter(gesture.box.id, this.#result(gesture, at));
  }

  cancel() {
    this.down.clear();
    this.gesture = null;
    this.editor?.hold(null);
  }

  #drawn({ x1, y1, x2, y2 }) {
    // Begun and ended outside, along the border: nothing of it is in the image.
    if (x2 - x1 <= 1 && y2 - y1 <= 1) {
      this.editor.select(null);
      return;
    }
    const box = this.editor.add({ x1, y1, x2, y2 });
    this.desk.said = `New box: ${box.class}`;
  }

  #click(at, event) {
    const margin = event.pointerType === "touch" ? 10 / this.camera.view.scale : 2 / this.camera.view.scale;
    const { editor } = this;
    const box = smallestAt(editor.boxes, at, margin);
    if (box) {
      editor.select({ box: box.id });
      return;
    }
    const suggestion = smallestAt(editor.suggestions, at, margin);
    editor.select(suggestion ? { suggestion: suggestion.index } : null);
  }

  #spread() {
    const [a, b] = [...this.down.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.hypot(a.x - b.x, a.y - b.y) };
  }

  #pinch() {
    if (this.down.size < 2) return;
    const { gesture, camera } = this;
    const now = this.#spread();
    camera.pan(now.x - gesture.spread.x, now.y - gesture.spread.y);
    if (gesture.spread.distance > 0) camera.zoom(now.distance / gesture.spread.distance, now);
    gesture.spread = now;
  }

  /** What the pointer would do where it is, for its form. */
  get cursor() {
    if (this.gesture?.kind === "pan" || this.desk.isSpaceHeld) return "grab";
    const box = this.editor.selectedBox;
    if (this.gesture?.kind === "resize") return OPPOSITE[this.gesture.handle];
    if (this.gesture?.kind === "move") return "move";
    if (!box || this.gesture) return "draw";
    const handle = handleAt(box, this.editor.crosshair, REACH.mouse / this.camera.view.scale);
    if (handle) return OPPOSITE[handle];
    return smallestAt([box], this.editor.crosshair) ? "move" : "draw";
  }
}
