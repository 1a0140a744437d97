// The picture and the boxes over it; mouse, pen and touch. Boxes are SVG in the stage's pixels, so
// lines and handles keep their width at every zoom.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../preact.js";
import { between, handleAt, moved, resized, smallestAt } from "./geometry.js";
import { look } from "./palette.js";
import { fitted, panned, showing, toImage, toStage, zoomed } from "./view.js";

/** A press that moves less, in stage pixels, is a click. */
const CLICK_PIXELS = 4;
const REACH = { mouse: 7, pen: 10, touch: 22 };
const WHEEL_STEP = 1.0018;
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const OPPOSITE = { nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw", n: "ns", s: "ns", e: "ew", w: "ew" };

/** Zoom and pan of the stage; the desk's commands and the pointers share it. */
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

/** What the pointers do: draw, select, move, resize, pan, pinch. */
class Pointers {
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

/** @param {{desk: object, camera: Camera, stageRef: object}} props */
export function Stage({ desk, camera, stageRef }) {
  const [pointers] = useState(() => new Pointers(desk, camera));
  const { editor, item } = desk;

  useLayoutEffect(() => {
    const stage = stageRef.current;
    const measure = () => camera.resize({ width: stage.clientWidth, height: stage.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(stage);
    measure();
    const wheel = (event) => {
      event.preventDefault();
      // Lines and pages, as some mice report, are worth some pixels.
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      camera.zoom(WHEEL_STEP ** -pixels, pointOf(event, stage));
    };
    stage.addEventListener("wheel", wheel, { passive: false });
    return () => {
      observer.disconnect();
      stage.removeEventListener("wheel", wheel);
    };
  }, []);

  useLayoutEffect(() => {
    pointers.cancel();
    camera.fit();
  }, [editor]);

  const handle = (act) => (event) => act(event, pointOf(event, stageRef.current));
  const boxes = editor.shown;
  const number = boxes.length;
  return html`
    <div
      ref=${stageRef}
      class="stage"
      tabindex="0"
      role="application"
      aria-roledescription="image with boxes"
      aria-label=${`${item.image.name}, ${number} ${number === 1 ? "box" : "boxes"}`}
      aria-describedby="stage-help"
      data-cursor=${camera.view ? pointers.cursor : "draw"}
      onPointerDown=${handle((event, point) => {
        if (event.button === 1) event.preventDefault();
        event.currentTarget.focus({ preventScroll: true });
        // A drag that leaves the stage goes on, and ends here.
        event.currentTarget.setPointerCapture(event.pointerId);
        pointers.press(event, point);
      })}
      onPointerMove=${handle((event, point) => pointers.move(event, point))}
      onPointerUp=${handle((event, point) => pointers.release(event, point))}
      onPointerCancel=${() => pointers.cancel()}
    >
      ${camera.view &&
      html`
        <${Picture} desk=${desk} view=${camera.view} />
        <${Layer} desk=${desk} view=${camera.view} boxes=${boxes} />
      `}
    </div>
  `;
}

function pointOf(event, stage) {
  const frame = stage.getBoundingClientRect();
  return { x: event.clientX - frame.left, y: event.clientY - frame.top };
}

function Picture({ desk, view }) {
  const holder = useRef(null);
  const [state, setState] = useState("loading");
  const { image, query } = desk.item;

  const load = () => {
    let current = true;
    const picture = desk.pictures.get(image);
    holder.current.replaceChildren(picture.element);
    setState(picture.element.complete && picture.element.naturalWidth ? "ready" : "loading");
    picture.ready.then(
      () => {
        if (!current) return;
        setState("ready");
        requestAnimationFrame(noteShown);
      },
      () => current && setState("failed"),
    );
    return () => {
      current = false;
    };
  };
  useLayoutEffect(load, [image.id]);

  // More pixels than the display rendition has are fetched when somebody looks that closely.
  const isSharp = view.scale * Math.max(image.width, image.height) <= 2600 || Math.max(image.width, image.height) <= 2048;
  useEffect(() => {
    if (isSharp) return undefined;
    let current = true;
    desk.pictures.sharp(image).then(
      (element) => current && holder.current.replaceChildren(element),
      () => {}, // a format that browsers do not show: the rendition stays
    );
    return () => {
      current = false;
    };
  }, [image.id, isSharp]);

  const box = {
    width: `${image.width}px`,
    height: `${image.height}px`,
    transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})`,
  };
  const crisp = view.scale >= 6 ? " crisp" : "";
  return html`
    <div class=${`picture ${state}${crisp}`} style=${box} ref=${holder}></div>
    ${desk.whyShown &&
    query?.heatmap &&
    html`<img class="heatmap" style=${box} src=${query.heatmap} alt="Where the model was unsure" />`}
    ${state === "loading" && html`<p class="stage-note">Loading the picture…</p>`}
    ${state === "failed" &&
    html`<div class="stage-note" role="alert">
      <p>The picture could not be loaded.</p>
      <button type="button" class="button" onPointerDown=${(event) => event.stopPropagation()} onClick=${load}>Try again</button>
    </div>`}
  `;
}

/** For whoever measures: from the press of Space to the next picture on the screen. */
function noteShown() {
  if (performance.getEntriesByName("save", "mark").length === 0) return;
  performance.measure("save-and-next", "save");
  performance.clearMarks("save");
}

function Layer({ desk, view, boxes }) {
  const { editor, project } = desk;
  const selected = editor.selected;
  const isSelected = (box) => (editor.preview ? editor.preview.id === box.id : selected?.box === box.id);
  // The selected one lies on top, so that its handles are never covered.
  const ordered = [...boxes].sort((a, b) => isSelected(a) - isSelected(b));
  const classOf = (name) => Math.max(0, project.classes.indexOf(name));
  const cross = toStage(view, editor.crosshair);
  return html`
    <svg class="layer" aria-hidden="true">
      <${Patterns} classes=${project.classes} />
      <path class="crosshair" d=${`M0 ${cross.y}H9999M${cross.x} 0V9999`} />
      ${editor.suggestions.map(
        (each) => html`<${Shape}
          key=${`s${each.index}`}
          view=${view}
          box=${each}
          index=${classOf(each.class)}
          label=${`${each.class} ${Math.round(each.score * 100)} %`}
          dashed
          selected=${selected?.suggestion === each.index}
        />`,
      )}
      ${ordered.map(
        (box) => html`<${Shape}
          key=${box.id}
          view=${view}
          box=${box}
          index=${classOf(box.class)}
          label=${box.class + (box.difficult ? " (difficult)" : "")}
          selected=${isSelected(box)}
        />`,
      )}
    </svg>
  `;
}

function Shape({ view, box, index, label, dashed = false, selected = false }) {
  const a = toStage(view, { x: box.x1, y: box.y1 });
  const b = toStage(view, { x: box.x2, y: box.y2 });
  const style = look(index);
  const frame = { x: a.x, y: a.y, width: b.x - a.x, height: b.y - a.y };
  const tag = labelPlace(a, b, label);
  return html`
    <g class=${`shape${dashed ? " suggestion" : ""}${selected ? " selected" : ""}`}>
      ${!dashed && html`<rect ...${frame} class="fill" fill=${style.fill === "plain" ? style.colour : `url(#fill-${style.id})`} />`}
      <rect ...${frame} class="halo" />
      <rect ...${frame} class="line" stroke=${style.colour} />
      ${(selected || frame.width > 26) &&
      html`
        <rect class="tag" x=${tag.x} y=${tag.y} width=${tag.width} height="17" rx="3" fill=${style.colour} />
        <text class="tag-text" x=${tag.x + 5} y=${tag.y + 12.5} fill=${style.text}>${label}</text>
      `}
      ${selected && !dashed && html`<${Handles} a=${a} b=${b} />`}
      ${selected &&
      html`<text class="measure" x=${(a.x + b.x) / 2} y=${b.y + 16}>${Math.round(box.x2 - box.x1)} × ${Math.round(box.y2 - box.y1)} px</text>`}
    </g>
  `;
}

function Handles({ a, b }) {
  const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  const pick = (name, low, high, axis) =>
    name.includes(low) ? a[axis] : name.includes(high) ? b[axis] : middle[axis];
  return HANDLES.map(
    (name) => html`<rect
      class="handle"
      key=${name}
      x=${pick(name, "w", "e", "x") - 4}
      y=${pick(name, "n", "s", "y") - 4}
      width="8"
      height="8"
      rx="2"
    />`,
  );
}

function Patterns({ classes }) {
  const looks = new Map(classes.map((_, index) => [look(index).id, look(index)]));
  return html`<defs>
    ${[...looks.values()]
      .filter((style) => style.fill !== "plain")
      .map(
        (style) => html`<pattern id=${`fill-${style.id}`} key=${style.id} width="8" height="8" patternUnits="userSpaceOnUse">
          <path d=${PATTERN[style.fill]} stroke=${style.colour} stroke-width="1.6" stroke-linecap="round" fill="none" />
        </pattern>`,
      )}
  </defs>`;
}

/** How the fills are drawn, also in the list of classes. */
export const PATTERN = {
  stripes: "M-2 2L2 -2M0 8L8 0M6 10L10 6",
  dots: "M2 2h.01M6 6h.01",
  grid: "M0 4H8M4 0V8",
};

const widths = new Map();
let pen = null;

function labelPlace(a, b, label) {
  if (!widths.has(label)) {
    pen ??= document.createElement("canvas").getContext("2d");
    pen.font = "600 11px system-ui, sans-serif";
    widths.set(label, Math.ceil(pen.measureText(label).width) + 11);
  }
  // Above the box; inside it where there is no room above.
  return { x: a.x - 1, y: a.y >= 18 ? a.y - 18 : a.y + 2, width: widths.get(label) };
}
