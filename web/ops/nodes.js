import { count, delay, duration, perSecond, write } from './format.js';
import { isSilent } from './problems.js';

/**
 * @typedef {object} View what a cell may show
 * @property {any} node @property {boolean} leads @property {number} now @property {number|undefined} rate
 */

/** @typedef {{label: string, value: (view: View) => string|number, text: (view: View) => string, down?: boolean}} Column */

// down: the highest first, when sorted by it for the first time.
/** @type {Column[]} */
const columns = [
  { label: 'Node', value: ({ node }) => String(node.node ?? '?'), text: ({ node }) => String(node.node ?? '?') },
  { label: 'State', value: ({ node }) => stateOf(node).rank, text: ({ node }) => stateOf(node).text },
  number('WebSocket', ({ node }) => node.connections?.ws ?? 0),
  number('SSE', ({ node }) => node.connections?.sse ?? 0),
  { label: 'Delivered/s', value: ({ rate }) => rate ?? -1, text: ({ rate }) => perSecond(rate), down: true },
  lag('Lag at node', 'hub'),
  lag('Lag at socket', 'write'),
  number('Replays', ({ node }) => (node.counters?.ring_replays ?? 0) + (node.counters?.log_replays ?? 0)),
  number('Resets', ({ node }) => node.counters?.resets_told ?? 0),
  number('Slow', ({ node }) => node.counters?.slow ?? 0),
  { label: 'Up', value: ({ node, now }) => now - node.started_ms, text: ({ node, now }) => (node.started_ms ? duration(now - node.started_ms) : '–'), down: true },
  { label: 'Version', value: ({ node }) => String(node.version ?? ''), text: ({ node }) => String(node.version || '–') },
];
const stateColumn = columns[1];
const textColumns = new Set(['Node', 'State', 'Version']);

/** The nodes, one row each; rows are kept, so that focus and selection survive. */
export class NodeTable {
  #table;
  #sort = { column: stateColumn, down: false }; // problems first
  /** @type {Map<string, {row: HTMLTableRowElement, cells: HTMLElement[], mark: HTMLElement}>} */ #rows = new Map();
  /** @type {View[]} */ #views = [];

  /** @param {HTMLTableElement} table */
  constructor(table) {
    this.#table = table;
    const row = table.createTHead().insertRow();
    for (const column of columns) row.append(this.#header(column));
    this.#showSort();
  }

  /** @param {any[]} nodes @param {string} leader @param {number} now @param {Map<string, number>} rates */
  show(nodes, leader, now, rates) {
    this.#views = nodes.map((node) => ({ node, leads: node.node === leader, now, rate: rates.get(node.node) }));
    for (const [name, { row }] of this.#rows) {
      if (nodes.some((node) => node.node === name)) continue;
      row.remove();
      this.#rows.delete(name);
    }
    for (const view of this.#views) this.#fill(view);
    this.#order();
  }

  /** @param {Column} column */
  #header(column) {
    const cell = document.createElement('th');
    cell.scope = 'col';
    if (!textColumns.has(column.label)) cell.dataset.number = '';
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = column.label;
    button.addEventListener('click', () => {
      const again = this.#sort.column === column;
      this.#sort = { column, down: again ? !this.#sort.down : column.down ?? false };
      this.#showSort();
      this.#order();
    });
    cell.append(button);
    return cell;
  }

  #showSort() {
    for (const [i, cell] of [...this.#table.tHead.rows[0].cells].entries()) {
      if (columns[i] === this.#sort.column) cell.setAttribute('aria-sort', this.#sort.down ? 'descending' : 'ascending');
      else cell.removeAttribute('aria-sort');
    }
  }

  /** @param {View} view */
  #fill(view) {
    const { row, cells, mark } = this.#rows.get(view.node.node) ?? this.#newRow(view.node.node);
    for (const [i, column] of columns.entries()) write(cells[i], column.text(view));
    mark.hidden = !view.leads;
    row.dataset.tone = stateOf(view.node).tone;
  }

  /** @param {string} name */
  #newRow(name) {
    const row = document.createElement('tr');
    const mark = document.createElement('span');
    mark.className = 'mark';
    mark.textContent = 'leader';
    const cells = columns.map((column, i) => {
      const cell = document.createElement(i === 0 ? 'th' : 'td');
      row.append(cell);
      if (i > 0) {
        if (!textColumns.has(column.label)) cell.dataset.number = '';
        if (column === stateColumn) cell.className = 'state';
        return cell;
      }
      cell.setAttribute('scope', 'row');
      const text = document.createElement('span');
      text.className = 'mono';
      cell.append(text, mark);
      return text;
    });
    const made = { row, cells, mark };
    this.#rows.set(name, made);
    return made;
  }

  #order() {
    const { column, down } = this.#sort;
    const byName = (/** @type {View} */ a, /** @type {View} */ b) => compare(columns[0].value(a), columns[0].value(b));
    const sorted = [...this.#views].sort((a, b) => (down ? -1 : 1) * compare(column.value(a), column.value(b)) || byName(a, b));
    const body = this.#table.tBodies[0];
    for (const [i, view] of sorted.entries()) {
      const row = /** @type {{row: HTMLTableRowElement}} */ (this.#rows.get(view.node.node)).row;
      if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
    }
  }
}

/** @param {any} node @returns {{rank: number, tone: string, text: string}} the worst has the lowest rank */
function stateOf(node) {
  if (isSilent(node)) return { rank: 0, tone: 'bad', text: 'Silent' };
  if (node.draining) return { rank: 4, tone: 'warn', text: 'Draining' };
  if (!node.ready) return { rank: 1, tone: 'bad', text: 'Not ready' };
  if (node.status?.state === 'stale') return { rank: 2, tone: 'bad', text: 'Stale' };
  if (node.status?.state === 'catching_up') return { rank: 3, tone: 'warn', text: 'Catching up' };
  return { rank: 5, tone: 'good', text: 'Ready' };
}

/** @param {string|number} a @param {string|number} b */
function compare(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), 'en', { numeric: true });
}

/** @param {string} label @param {(view: View) => number} value @returns {Column} */
function number(label, value) {
  return { label, value, text: (view) => count(value(view)), down: true };
}

/** @param {string} label @param {string} hop @returns {Column} */
function lag(label, hop) {
  const value = (/** @type {View} */ { node }) => node.lag_ms?.[hop]?.p99 ?? 0;
  return { label, value, text: (view) => delay(value(view)), down: true };
}
