/**
 * The operations page: asks for the cluster's numbers each second and shows
 * them. Rates are made here, from what the counters did in between.
 */

import { Rates } from './rates.js';
import { Sparkline } from './spark.js';

const pollMS = 1_000;
const timeoutMS = 5_000;
const hops = ['upstream', 'append', 'hub', 'write'];

const statusPill = element('status');
const notice = element('notice');
const numbers = element('numbers');
const rates = new Rates();
const appendedSpark = new Sparkline(element('appended-spark'), 'Events in per second');
const deliveredSpark = new Sparkline(element('delivered-spark'), 'Deliveries per second');

let etag = '';
let answeredAt = 0; // when the numbers were last confirmed, by our clock

async function poll() {
  try {
    const stats = await ask();
    answeredAt = Date.now();
    if (stats) show(stats);
    showReachable();
  } catch (err) {
    showUnreachable(err instanceof Error ? err.message : '');
  }
  setTimeout(poll, pollMS);
}

/** @returns {Promise<any>} null when nothing changed */
async function ask() {
  const res = await fetch('/api/v1/stats', {
    headers: etag ? { 'If-None-Match': etag } : {},
    cache: 'no-store', // so that a 304 reaches us
    signal: AbortSignal.timeout(timeoutMS),
  }).catch(() => {
    throw new Error('The gateway does not answer.');
  });
  if (res.status === 304) return null;
  if (!res.ok) throw new Error(`The gateway answered ${res.status}.`);
  const stats = await res.json().catch(() => null);
  if (typeof stats !== 'object' || stats === null) throw new Error('The gateway answered something unreadable.');
  etag = res.headers.get('ETag') ?? '';
  return stats;
}

function showReachable() {
  notice.hidden = true;
  numbers.removeAttribute('data-old');
  setText('updated', `updated ${clock(answeredAt)}`);
}

/** @param {string} problem */
function showUnreachable(problem) {
  setPill(statusPill, 'bad', 'Unreachable');
  const old = answeredAt ? ` The numbers below are from ${clock(answeredAt)}.` : '';
  const text = `${problem}${old} Trying again each second.`;
  if (notice.textContent !== text) notice.textContent = text; // read out once
  notice.hidden = false;
  element('loading').hidden = true;
  numbers.toggleAttribute('data-old', answeredAt > 0);
  etag = ''; // the next answer must draw the status again
}

/** @param {any} stats */
function show(stats) {
  const nodes = Array.isArray(stats.nodes) ? stats.nodes : [];
  const rate = rates.add(stats.now_ms || Date.now(), nodes);
  element('loading').hidden = true;
  numbers.hidden = false;
  setText('stream', stats.stream ?? '–');
  showState(statusPill, stats.status);
  showTraffic(stats, rate);
  showUpstream(stats.upstream ?? {});
  element('nodes-empty').hidden = nodes.length > 0;
  element('nodes').hidden = nodes.length === 0;
  element('lag-section').hidden = nodes.length === 0;
  body('nodes').replaceChildren(...nodes.map((/** @type {any} */ node) => nodeRow(node, stats.leader, rate)));
  body('lag').replaceChildren(...nodes.map(lagRow));
}

/** @param {any} stats @param {import('./rates.js').Rate|null} rate */
function showTraffic(stats, rate) {
  const { totals = {}, log = {} } = stats;
  const { ws = 0, sse = 0 } = totals.connections ?? {};
  setText('connections', count(ws + sse));
  setText('connections-ws', count(ws));
  setText('connections-sse', count(sse));
  setText('leader', stats.leader || 'none');
  setText('log-seq', count(log.seq));
  setText('log-epoch', log.epoch || '–');
  setText('appended-total', count(totals.appended));
  setText('delivered-total', count(totals.delivered));
  setText('appended-rate', perSecond(rate?.appended));
  setText('delivered-rate', perSecond(rate?.delivered));
  if (!rate) return;
  appendedSpark.add(rate.appended);
  deliveredSpark.add(rate.delivered);
}

/** @param {any} upstream */
function showUpstream(upstream) {
  showState(element('upstream-state'), upstream);
  const reason = element('upstream-reason');
  reason.textContent = upstream.reason ?? '';
  reason.hidden = !upstream.reason;
  setText('upstream-frames', count(upstream.frames));
  setText('upstream-reconnects', count(upstream.reconnects));
  setText('upstream-quarantined', count(upstream.quarantined));
}

/** @param {HTMLElement} pill @param {{state?: string, reason?: string, since_ms?: number}|undefined} status */
function showState(pill, status) {
  const { state = 'unknown', reason = '', since_ms: since = 0 } = status ?? {};
  const tone = { live: 'good', catching_up: 'warn', stale: 'bad' }[state] ?? '';
  const suffix = pill === statusPill && reason ? ` — ${reason}` : '';
  setPill(pill, tone, `${words(state)}${since ? ` since ${moment(since)}` : ''}${suffix}`);
}

/** @param {any} node @param {string} leader @param {import('./rates.js').Rate|null} rate */
function nodeRow(node, leader, rate) {
  const { ws = 0, sse = 0 } = node.connections ?? {};
  const { delivered = 0, slow = 0, resets = 0 } = node.counters ?? {};
  const row = make('tr', 'row');
  const name = nameCell(node);
  if (node.leader || (leader && node.node === leader)) {
    const mark = document.createElement('span');
    mark.className = 'mark';
    mark.textContent = 'leader';
    name.append(' ', mark);
  }
  const state = cell('State', node.draining ? 'Draining' : node.ready ? 'Ready' : 'Not ready');
  state.dataset.tone = node.draining ? 'warn' : node.ready ? '' : 'bad';
  const slowCell = numberCell('Slow', count(slow));
  slowCell.dataset.tone = slow > 0 ? 'warn' : '';
  row.append(
    name,
    state,
    numberCell('WebSocket', count(ws)),
    numberCell('SSE', count(sse)),
    numberCell('Delivered', count(delivered)),
    numberCell('Per second', perSecond(rate?.byNode.get(node.node))),
    slowCell,
    numberCell('Resets', count(resets)),
  );
  return row;
}

/** @param {any} node */
function lagRow(node) {
  const row = make('tr', 'row');
  row.append(nameCell(node), ...hops.map((hop) => {
    const { p50, p99 } = node.lag_ms?.[hop] ?? {};
    return numberCell(words(hop), p99 ? `${count(p50)} / ${count(p99)} ms` : '–');
  }));
  return row;
}

/** @param {any} node */
function nameCell(node) {
  const name = make('th', 'rowheader');
  name.setAttribute('scope', 'row');
  const text = document.createElement('span');
  text.className = 'mono';
  text.textContent = node.node ?? '?';
  text.title = node.version ? `version ${node.version}` : '';
  name.append(text);
  return name;
}

/** @param {string} label @param {string} text */
function cell(label, text) {
  const made = make('td', 'cell');
  made.dataset.label = label;
  made.textContent = text;
  return made;
}

/** @param {string} label @param {string} text */
function numberCell(label, text) {
  const made = cell(label, text);
  made.dataset.number = '';
  return made;
}

// The roles are spelled out because tables that are laid out as blocks on
// narrow screens lose them.
/** @param {string} tag @param {string} role */
function make(tag, role) {
  const made = document.createElement(tag);
  made.setAttribute('role', role);
  return made;
}

/** @param {HTMLElement} pill @param {string} tone @param {string} text */
function setPill(pill, tone, text) {
  pill.dataset.tone = tone;
  pill.removeAttribute('data-busy');
  if (pill.textContent !== text) pill.textContent = text;
}

/** @param {string} id @param {string} text */
function setText(id, text) {
  element(id).textContent = text;
}

/** @param {string} id */
function body(id) {
  return /** @type {HTMLTableElement} */ (element(id)).tBodies[0];
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @param {number|undefined} n */
function count(n) {
  return (n ?? 0).toLocaleString('en-US');
}

/** @param {number|undefined} rate */
function perSecond(rate) {
  if (rate === undefined) return '–';
  return rate.toLocaleString('en-US', { maximumFractionDigits: rate < 10 ? 1 : 0 });
}

/** @param {number} ms */
function clock(ms) {
  return new Date(ms).toLocaleTimeString('en-GB');
}

/** @param {number} ms @returns {string} the time of day, with the date when it was another day */
function moment(ms) {
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(ms) : `${date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })}, ${clock(ms)}`;
}

/** @param {string} text catching_up becomes Catching up */
function words(text) {
  const spaced = text.replaceAll('_', ' ');
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

poll();
