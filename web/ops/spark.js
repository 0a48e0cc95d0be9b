const points = 60; // a minute of seconds
const height = 40;
const namespace = 'http://www.w3.org/2000/svg';

/** The last minute of one rate as a small line. */
export class Sparkline {
  /** @type {number[]} */ #values = [];

  /** @param {HTMLElement} root @param {string} name what the line shows */
  constructor(root, name) {
    this.name = name;
    this.svg = document.createElementNS(namespace, 'svg');
    this.svg.setAttribute('viewBox', `0 0 ${points - 1} ${height}`);
    this.svg.setAttribute('preserveAspectRatio', 'none');
    this.svg.setAttribute('role', 'img');
    this.svg.setAttribute('aria-label', `${name}: no values yet`);
    this.area = document.createElementNS(namespace, 'path');
    this.area.setAttribute('class', 'area');
    this.line = document.createElementNS(namespace, 'path');
    this.svg.append(this.area, this.line);
    root.replaceChildren(this.svg);
  }

  /** @param {number} value */
  add(value) {
    this.#values.push(value);
    if (this.#values.length > points) this.#values.shift();
    const highest = Math.max(...this.#values);
    const first = points - this.#values.length;
    const path = this.#values.map((v, i) => `${first + i},${y(v, highest)}`).join(' L');
    this.line.setAttribute('d', `M${path}`);
    this.area.setAttribute('d', `M${first},${height} L${path} L${points - 1},${height} Z`);
    this.svg.setAttribute('aria-label', `${this.name}, last minute: now ${round(value)}, highest ${round(highest)}`);
  }
}

/** @param {number} value @param {number} highest */
function y(value, highest) {
  const usable = height - 2; // the line's own width stays inside
  return (height - 1 - (highest > 0 ? (value / highest) * usable : 0)).toFixed(1);
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 10) / 10;
}
