// What each command does, whether it came from a key or from a button; and the keyboard itself.
import { plural } from "../format.js";
import { command } from "./keys.js";

const ZOOM_STEP = 1.4;
/** An arrow moves by one image pixel; held down, by so many pixels of the screen. */
const HELD_PIXELS = 8;

/** These belong to the picture: elsewhere the keys do what they always do. */
const ONLY_ON_STAGE = new Set(["walk", "leave", "accept", "save", "move", "resize"]);

/** Give the desk its `run` and `selectBox`. */
export function equip(desk, camera, stageRef) {
  const describe = () => {
    const { editor } = desk;
    const box = editor.selectedBox;
    const suggestion = editor.selectedSuggestion;
    if (box) {
      const place = editor.boxes.indexOf(box) + 1;
      const [x, y, w, h] = [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1].map(Math.round);
      desk.said = `Box ${place} of ${editor.boxes.length}: ${box.class}, ${w} by ${h} pixels at ${x}, ${y}${box.difficult ? ", difficult" : ""}`;
    } else if (suggestion) {
      desk.said = `Suggestion: ${suggestion.class}, ${Math.round(suggestion.score * 100)} percent`;
    }
    if (box ?? suggestion) camera.show(box ?? suggestion);
  };

  const acts = {
    save: () => desk.save(),
    nothing: () => desk.save(true),
    previous: () => desk.previous(),
    skip: () => (desk.canSkip ? desk.open("skip") : desk.say("Only an image that waits to be labeled can be skipped")),
    keys: () => desk.open("keys"),
    instructions: () => desk.open("instructions"),
    new: () => {
      desk.editor.addAtCrosshair(camera.sight);
      describe();
    },
    class: ({ index }) => {
      const name = desk.project.classes[index];
      if (name === undefined) return;
      desk.editor.setClass(name);
      desk.keepSettings();
      desk.said = `Class ${name}`;
    },
    move: ({ dx, dy }, isHeld) => {
      const step = isHeld ? Math.max(1, HELD_PIXELS / camera.view.scale) : 1;
      desk.editor.move(dx * step, dy * step, isHeld);
      describe();
    },
    resize: ({ dx, dy }, isHeld) => {
      const step = isHeld ? Math.max(1, HELD_PIXELS / camera.view.scale) : 1;
      desk.editor.resize(dx * step, dy * step, isHeld);
      describe();
    },
    walk: ({ dx }) => {
      if (!desk.editor.walk(dx)) return false; // nothing to walk: Tab goes on through the page
      describe();
      return true;
    },
    leave: () => {
      if (desk.editor.preview || desk.editor.selected) {
        desk.editor.preview = null;
        desk.editor.select(null);
      } else {
        document.querySelector(".work-foot button:enabled").focus();
      }
    },
    accept: () => {
      const number = desk.editor.accept();
      desk.say(number === 0 ? "There is no suggestion to accept" : `Accepted ${plural(number, "suggestion")}`);
    },
    remove: () => {
      if (desk.editor.remove()) desk.said = `Removed; ${plural(desk.editor.boxes.length, "box", "boxes")} left`;
      desk.changed();
    },
    difficult: () => {
      desk.editor.toggleDifficult();
      describe();
    },
    suggestions: () => {
      desk.settings.suggestionsShown = !desk.settings.suggestionsShown;
      desk.said = desk.settings.suggestionsShown ? "Suggestions are shown" : "Suggestions are hidden";
      desk.keepSettings();
    },
    why: () => {
      if (!desk.item.query?.heatmap) {
        desk.say("There is no heat map: this image was chosen without a model");
        return;
      }
      desk.whyShown = !desk.whyShown;
      desk.changed();
    },
    undo: () => desk.editor.undo() || desk.say("Nothing to undo"),
    redo: () => desk.editor.redo() || desk.say("Nothing to redo"),
    "zoom-in": () => camera.zoom(ZOOM_STEP),
    "zoom-out": () => camera.zoom(1 / ZOOM_STEP),
    "zoom-fit": () => camera.fit(),
  };

  desk.run = (what, isHeld = false) => {
    if (desk.phase === "working" && !desk.isLeaving) return acts[what.name](what, isHeld);
    if (desk.phase === "empty" && what.name === "previous") return desk.previous();
    if (what.name === "keys") return desk.open("keys");
    return undefined;
  };
  desk.selectBox = (id) => {
    desk.editor.select({ box: id });
    describe();
    stageRef.current.focus();
  };
}

/** Listen to the keyboard, for as long as the page lives. */
export function listen(desk, stageRef) {
  const isTyping = (target) => target.closest?.("input:not([type=range]), textarea, select, dialog");
  const isOnStage = (target) => target === document.body || target.id === "main" || stageRef.current?.contains(target);

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || isTyping(event.target)) return;
    const what = command(event);
    if (!what) return;
    const onStage = isOnStage(event.target);
    const fromSlider = event.target.type === "range" && what.name === "accept";
    if (ONLY_ON_STAGE.has(what.name) && !onStage && !fromSlider) return;
    if (what.name === "save") {
      // Held down it drags the picture; let go without a drag it saves.
      event.preventDefault();
      if (!event.repeat) Object.assign(desk, { isSpaceHeld: true, wasPanned: false });
      return;
    }
    if (event.repeat && !["move", "resize", "zoom-in", "zoom-out", "undo", "redo", "walk"].includes(what.name)) {
      event.preventDefault();
      return;
    }
    if (what.name === "walk" && (event.target === document.body || !desk.editor)) return;
    if (desk.run(what, event.repeat) !== false) event.preventDefault();
  });

  document.addEventListener("keyup", (event) => {
    if (event.key !== " " || !desk.isSpaceHeld) return;
    event.preventDefault();
    desk.isSpaceHeld = false;
    if (!desk.wasPanned) desk.run({ name: "save" });
    else desk.changed();
  });
  addEventListener("blur", () => {
    desk.isSpaceHeld = false;
  });
}
