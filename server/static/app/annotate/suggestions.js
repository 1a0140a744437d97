// The model's predictions as suggestions: pure functions. A state is {boxes, dismissed}; a box that
// was a suggestion has its index in `from`.
import { iou } from "./geometry.js";

/** Two boxes of a class that overlap so much are the same thing. */
const SAME = 0.7;

/** The suggestions that wait for an answer, each with its `index`: sure enough, and not boxed yet. */
export function waiting(predictions, { boxes, dismissed }, threshold) {
  return predictions
    .map((prediction, index) => ({ ...prediction, index }))
    .filter(
      (each) =>
        each.score >= threshold &&
        !dismissed.includes(each.index) &&
        !boxes.some((box) => box.from === each.index || (box.class === each.class && iou(box, each) >= SAME)),
    );
}

/** The boxes of both, without those of `mine` that `theirs` has as well. */
export function merged(theirs, mine) {
  return [...theirs, ...mine.filter((box) => !theirs.some((other) => other.class === box.class && iou(box, other) >= 0.9))];
}
