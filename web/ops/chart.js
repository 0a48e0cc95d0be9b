import { clock, perSecond, write } from './format.js';
import { windowMS } from './history.js';

/** @type {any} */ const uPlot = globalThis.uPlot; // loaded by the page before this

const height = 132;
const shortestMS = 60_000; // what the chart spans at least

/** A rate over the last minutes. */
export class Chart {
  #root;
  #name;
  #readout;
  #plot;

  /**
   * @param {HTMLElement} root @param {string} name what the line shows
   * @param {HTMLElement} readout where the value under the pointer is written
   */
  constructor(root, name, readout) {
    this.#root = root;
    this.#name = name;
    this.#readout = readout;
    this.#plot = new uPlot(this.#options(), [[], []], root);
    new ResizeObserver(() => this.#plot.setSize({ width: root.clientWidth, height })).observe(root);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#plot.redraw(true, true));
    root.setAttribute('aria-label', `${name}: no values yet`);
  }

  /** @param {number[]} times unix milliseconds @param {(number|null)[]} values */
  set(times, values) {
    this.#plot.setData([times.map((ms) => ms / 1_000), values]);
    const known = values.filter((value) => value !== null);
    if (known.length === 0) return;
    const text = `${this.#name}, last 5 minutes: now ${perSecond(known.at(-1))} per second, highest ${perSecond(Math.max(...known))}`;
    if (this.#root.getAttribute('aria-label') !== text) this.#root.setAttribute('aria-label', text);
  }

  #options() {
    const font = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
    return {
      width: this.#root.clientWidth || 300,
      height,
      padding: [8, 26, 0, 0], // half of the last time is beyond the line
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { range: (/** @type {any} */ _plot, /** @type {number} */ from, /** @type {number} */ to) => span(from, to) },
        y: { range: (/** @type {any} */ _plot, /** @type {number} */ _min, /** @type {number} */ max) => [0, ceiling(max)] },
      },
      axes: [
        {
          stroke: color('--muted'), font, size: 24, gap: 6, space: 70, grid: { show: false }, ticks: { show: false },
          incrs: [5, 10, 15, 30, 60, 120], values: (/** @type {any} */ _plot, /** @type {number[]} */ at) => at.map((s) => clock(s * 1_000)),
        },
        {
          stroke: color('--muted'), font, size: 46, gap: 6, space: 32, grid: { stroke: color('--line'), width: 1 }, ticks: { show: false },
          values: (/** @type {any} */ _plot, /** @type {number[]} */ at) => at.map((n) => n.toLocaleString('en-US', { notation: 'compact' })),
        },
      ],
      series: [{}, { stroke: color('--accent'), fill: color('--accent-soft'), width: 1.5, points: { show: false } }],
      hooks: { setCursor: [(/** @type {any} */ plot) => this.#read(plot)] },
    };
  }

  #read(plot) {
    const index = plot.cursor.idx;
    const value = index === null || index === undefined ? null : plot.data[1][index];
    const text = value === null || value === undefined ? '' : `${perSecond(value)}/s at ${clock(plot.data[0][index] * 1_000)}`;
    write(this.#readout, text);
  }
}

/** @param {number} from @param {number} to seconds @returns {[number, number]} */
function span(from, to) {
  if (!Number.isFinite(to)) return [0, 1];
  return [Math.max(to - windowMS / 1_000, Math.min(from, to - shortestMS / 1_000)), to];
}

/** @param {number} max @returns {number} the next of 1, 2, 5, 10, …, so that the scale seldom moves */
function ceiling(max) {
  if (!(max > 1)) return 1;
  const magnitude = 10 ** Math.floor(Math.log10(max));
  return magnitude * ([1, 2, 5, 10].find((step) => max <= step * magnitude) ?? 10);
}

// Read when it is drawn, so that a change of scheme shows.
/** @param {string} name */
function color(name) {
  return () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
