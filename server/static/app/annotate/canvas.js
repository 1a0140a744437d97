// The picture and the boxes over it. Boxes are SVG in the stage's pixels, so lines and handles keep
// their width at every zoom.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../preact.js";
import { look } from "./palette.js";
import { Pointers } from "./pointers.js";
import { toStage } from "./view.js";

const WHEEL_STEP = 1.0018;
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

/** @param {{desk: object, camera: object, stageRef: object}} props */
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
