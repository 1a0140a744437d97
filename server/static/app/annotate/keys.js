// The keyboard: pure functions from key events to commands, and the tables that the help shows.

/** What a single letter does; classes get the others. */
const LETTERS = {
  n: "new",
  x: "nothing",
  s: "skip",
  d: "difficult",
  h: "suggestions",
  i: "instructions",
  w: "why",
};

const CLASS_KEYS = [..."123456789", ..."abcdefghijklmnopqrstuvwxyz"].filter((key) => !(key in LETTERS));

/** The key of each class, in the order of the classes; undefined for those after the last key. */
export const classKeys = (classes) => classes.map((_, index) => CLASS_KEYS[index]);

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * The command of a key event, or null if it is none of ours.
 * @param {{key: string, ctrlKey: boolean, metaKey: boolean, altKey: boolean, shiftKey: boolean}} event
 * @returns {{name: string, dx?: number, dy?: number, index?: number}|null} names: undo, redo, move,
 *   resize, walk, leave, accept, remove, save, previous, keys, zoom-in, zoom-out, zoom-fit, class,
 *   and those of the letters
 */
export function command(event) {
  const { key } = event;
  if (event.altKey) return null;
  const letter = key.length === 1 ? key.toLowerCase() : key;
  if (event.ctrlKey || event.metaKey) {
    if (letter === "z") return { name: event.shiftKey ? "redo" : "undo" };
    if (letter === "y") return { name: "redo" };
    return null;
  }
  if (key in ARROWS) {
    const [dx, dy] = ARROWS[key];
    return { name: event.shiftKey ? "resize" : "move", dx, dy };
  }
  switch (key) {
    case "Tab":
      return { name: "walk", dx: event.shiftKey ? -1 : 1 };
    case "Escape":
      return { name: "leave" };
    case "Enter":
      return { name: "accept" };
    case "Delete":
      return { name: "remove" };
    case " ":
      return { name: "save" };
    case "Backspace":
      return { name: "previous" };
    case "?":
      return { name: "keys" };
    case "+":
    case "=":
      return { name: "zoom-in" };
    case "-":
      return { name: "zoom-out" };
    case "0":
      return { name: "zoom-fit" };
  }
  if (letter in LETTERS) return { name: LETTERS[letter] };
  const index = CLASS_KEYS.indexOf(letter);
  return index < 0 ? null : { name: "class", index };
}

/** What the help shows: [group, [[keys, what they do], …]]. */
export const HELP = [
  [
    "Images",
    [
      [["Space"], "save and go on"],
      [["X"], "nothing to box: save as empty and go on"],
      [["S"], "skip, with a reason"],
      [["Backspace"], "back to the previous image"],
    ],
  ],
  [
    "Boxes",
    [
      [["N"], "new box at the crosshair"],
      [["1", "…"], "class of the selected box, and of the next ones"],
      [["Arrows"], "move the box, or the crosshair if no box is selected; hold for more"],
      [["Shift", "Arrows"], "resize the box"],
      [["Tab"], "next box (with Shift: the one before)"],
      [["D"], "difficult, on and off"],
      [["Delete"], "remove the box, or dismiss the suggestion"],
      [["Ctrl", "Z"], "undo, without limit"],
      [["Ctrl", "Y"], "redo"],
    ],
  ],
  [
    "Suggestions",
    [
      [["Enter"], "accept the selected suggestion, or all above the slider"],
      [["H"], "hide and show"],
    ],
  ],
  [
    "View",
    [
      [["+"], "zoom in (also the wheel, or two fingers)"],
      [["−"], "zoom out"],
      [["0"], "whole image"],
      [["Space", "drag"], "move the image (also the middle button, or two fingers)"],
      [["W"], "where the model was unsure"],
      [["I"], "instructions of the project"],
      [["Esc"], "let go of the box; again: leave the image"],
      [["?"], "this table"],
    ],
  ],
];
