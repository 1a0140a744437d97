// Numbers and times in the words of the pages.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12,345 */
export const count = (number) => plain.format(number);

/** "1 box", "3 boxes", "12,345 images" */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** 0.1234 → "12.3 %" */
export const percent = (share, digits = 1) => `${(share * 100).toFixed(digits)} %`;

/** 1536 → "1.5 kB" */
export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = number;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A span of seconds: "40 s", "12 min", "3 h 05 min" */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 100) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** How long ago a time of the API was: "just now", "5 min ago" */
export function ago(time, now = Date.now()) {
  const seconds = (now - new Date(time).getTime()) / 1000;
  if (seconds < 10) return "just now";
  if (seconds < 48 * 3600) return `${span(seconds)} ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}
