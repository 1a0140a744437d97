// A heat map of the API (grey, white where the uncertainty is greatest) as colour over a picture.
import { html, useEffect, useRef, useState } from "../preact.js";

// From dark violet over red to yellow: lightness rises with the value, so that it reads without
// colours too.
const RAMP = [
  [0, 40, 11, 84],
  [0.35, 136, 34, 106],
  [0.6, 212, 72, 66],
  [0.8, 250, 141, 10],
  [1, 252, 255, 164],
];

function tableOfColours() {
  const table = new Uint8ClampedArray(256 * 4);
  for (let value = 0; value < 256; value += 1) {
    const share = value / 255;
    const above = RAMP.findIndex(([stop]) => stop >= share);
    const [high, low] = [RAMP[above], RAMP[Math.max(0, above - 1)]];
    const between = high[0] === low[0] ? 0 : (share - low[0]) / (high[0] - low[0]);
    for (let channel = 0; channel < 3; channel += 1) {
      table[value * 4 + channel] = low[channel + 1] + between * (high[channel + 1] - low[channel + 1]);
    }
    table[value * 4 + 3] = Math.min(255, 30 + share * 225);
  }
  return table;
}

const COLOURS = tableOfColours();

/** @param {{url: string, opacity: number}} props opacity from 0 to 1 */
export function HeatMap({ url, opacity }) {
  const canvas = useRef(null);
  const [ready, setReady] = useState(false);
  useEffect(() => {
    setReady(false);
    const picture = new Image();
    let wanted = true;
    picture.onload = () => {
      if (!wanted || !canvas.current) return;
      const { naturalWidth: width, naturalHeight: height } = picture;
      Object.assign(canvas.current, { width, height });
      const context = canvas.current.getContext("2d");
      context.drawImage(picture, 0, 0);
      const pixels = context.getImageData(0, 0, width, height);
      for (let at = 0; at < pixels.data.length; at += 4) {
        const colour = pixels.data[at] * 4;
        for (let channel = 0; channel < 4; channel += 1) pixels.data[at + channel] = COLOURS[colour + channel];
      }
      context.putImageData(pixels, 0, 0);
      setReady(true);
    };
    picture.src = url;
    return () => {
      wanted = false;
    };
  }, [url]);
  return html`<canvas ref=${canvas} class="heat-map" aria-hidden="true" data-ready=${ready} style=${{ opacity: String(opacity) }}></canvas>`;
}
