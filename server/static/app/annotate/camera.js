// What of the picture is in sight: zoom and pan, for the desk's commands and the pointers alike.
import { fitted, panned, showing, zoomed } from "./view.js";

export class Camera {
  constructor(desk) {
    this.desk = desk;
    this.stage = { width: 0, height: 0 };
    this.view = null;
    this.isFitted = true;
  }

  get size() {
    return this.desk.item.image;
  }

  resize(stage) {
    this.stage = stage;
    if (this.desk.editor && (this.isFitted || !this.view)) this.fit();
    else this.desk.changed();
  }

  fit() {
    this.isFitted = true;
    this.#set(fitted(this.size, this.stage));
  }

  zoom(factor, point = { x: this.stage.width / 2, y: this.stage.height / 2 }) {
    this.isFitted = false;
    this.#set(zoomed(this.view, factor, point, this.size, this.stage));
  }

  pan(dx, dy) {
    this.isFitted = false;
    this.#set(panned(this.view, dx, dy, this.size, this.stage));
  }

  show(box) {
    this.#set(showing(this.view, box, this.size, this.stage));
  }

  /** Width and height of what is in sight, in image pixels. */
  get sight() {
    const { width, height } = this.size;
    return {
      width: Math.min(width, this.stage.width / this.view.scale),
      height: Math.min(height, this.stage.height / this.view.scale),
    };
  }

  #set(view) {
    this.view = view;
    this.desk.changed();
  }
}
