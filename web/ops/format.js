// How numbers, times and the gateway's words are written.

// What breaks a line or turns the direction of writing for all that follows.
const unruly = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;

/** @param {Element} element @param {string} text may come from anywhere */
export function write(element, text) {
  const tame = String(text).replace(unruly, '\ufffd');
  if (element.textContent !== tame) element.textContent = tame;
}

/** @param {number|undefined} n */
export function count(n) {
  return (n ?? 0).toLocaleString('en-US');
}

/** @param {number|undefined} rate */
export function perSecond(rate) {
  if (rate === undefined) return '–';
  return rate.toLocaleString('en-US', { minimumFractionDigits: rate < 10 ? 1 : 0, maximumFractionDigits: rate < 10 ? 1 : 0 });
}

/** @param {number|undefined} ms the upper bound of a bucket; the last one begins at 10 s and is open */
export function delay(ms) {
  if (!ms) return '–';
  if (ms >= 30_000) return '>\u00a010\u00a0s';
  return ms >= 1_000 ? `≤\u00a0${ms / 1_000}\u00a0s` : `≤\u00a0${ms}\u00a0ms`;
}

/** @param {number} ms */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString('en-GB');
}

/** @param {number} ms @returns {string} the time of day, with the date when it was another day */
export function moment(ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(ms) : `${date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })}, ${clock(ms)}`;
}

/** @param {number} ms @returns {string} roughly, in one unit */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3_600) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** @param {string} text catching_up becomes Catching up */
export function words(text) {
  const spaced = text.replaceAll('_', ' ');
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

/** @param {string[]} names */
export function list(names) {
  const shown = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names;
  return shown.length > 1 ? `${shown.slice(0, -1).join(', ')} and ${shown.at(-1)}` : shown[0] ?? '';
}
