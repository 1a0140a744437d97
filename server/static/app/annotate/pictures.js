// Pictures of images, fetched and decoded before they are wanted.

/** Decoded pictures that are held at a time: each takes up to 16 MB. */
const HELD = 8;

export class Pictures {
  #held = new Map(); // image id → {element, ready}

  /**
   * The picture of an image: an <img> that is being loaded.
   * @returns {{element: HTMLImageElement, ready: Promise<void>}} `ready` rejects if it cannot be had
   */
  get(image) {
    const held = this.#held.get(image.id);
    if (held) {
      this.#held.delete(image.id); // most recently wanted: last
      this.#held.set(image.id, held);
      return held;
    }
    const element = new Image();
    element.alt = "";
    element.draggable = false;
    element.src = `/images/${image.id}/content?rendition=display`;
    const picture = { element, ready: element.decode() };
    picture.ready.catch(() => this.#held.delete(image.id)); // the next one who asks tries again
    this.#held.set(image.id, picture);
    for (const id of this.#held.keys()) {
      if (this.#held.size <= HELD) break;
      this.#held.delete(id);
    }
    return picture;
  }

  /** The picture with all its pixels, for a close look; rejects for formats that no browser shows. */
  async sharp(image) {
    const element = new Image();
    element.alt = "";
    element.draggable = false;
    element.src = `/images/${image.id}/content`;
    await element.decode();
    return element;
  }

  /** Have these ready soon. */
  prefetch(images) {
    for (const image of images) this.get(image);
  }
}
