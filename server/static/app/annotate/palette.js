// How a class looks. Colours of Okabe and Ito, which colour-blind people tell apart; after them
// the fill changes. Nothing depends on colour alone: every box carries its class's name.

const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#b8bec6"];
const DARK_TEXT = new Set(["#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#b8bec6"]);
export const FILLS = ["plain", "stripes", "dots", "grid"];

/** `{colour, text, fill}` of the class with this index. */
export function look(index) {
  const colour = COLOURS[index % COLOURS.length];
  return {
    colour,
    text: DARK_TEXT.has(colour) ? "#14181d" : "#ffffff",
    fill: FILLS[Math.floor(index / COLOURS.length) % FILLS.length],
    id: index % (COLOURS.length * FILLS.length),
  };
}
