/**
 * The operations page: asks for the cluster's numbers each second and shows
 * them, and what is wrong first.
 */

import { Chart } from './chart.js';
import { clock, count, delay, duration, moment, perSecond, words, write } from './format.js';
import { History } from './history.js';
import { NodeTable } from './nodes.js';
import { problemsOf } from './problems.js';

const pollMS = 1_000;
const timeoutMS = 5_000;
const title = document.title;

// What is counted. A name may stand for several counters; one that ends in _ for
// all that begin so.
/** @type {[string, string[]][]} */
const counters = [
  ['Minted', ['minted']],
  ['Refused', ['refused_']],
  ['Replays', ['ring_replays', 'log_replays']],
  ['Resets', ['resets_told']],
  ['Slow clients', ['slow']],
  ['Duplicates', ['duplicates']],
  ['Quarantined', ['quarantined']],
];

/** @typedef {import('./problems.js').Problem} Problem */

const numbers = element('numbers');
const history = new History();
const table = new NodeTable(/** @type {HTMLTableElement} */ (element('nodes')));
/** @type {Map<string, {item: HTMLElement, what: HTMLElement, since: HTMLElement, todo: HTMLElement}>} */
const shownProblems = new Map();
/** @type {Map<string, number>} */
const firstSeen = new Map(); // of problems, by our clock
/** @type {Chart[]} */
let charts = [];
let etag = '';
let answeredAt = 0; // when the numbers were last confirmed, by our clock

async function poll() {
  try {
    const stats = await ask();
    answeredAt = Date.now();
    if (stats) show(stats);
    setText('updated', `updated ${clock(answeredAt)}`);
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
    throw new Error('The gateway does not answer');
  });
  if (res.status === 304) return null;
  if (!res.ok) throw new Error(`The gateway answered ${res.status}`);
  const stats = await res.json().catch(() => null);
  if (typeof stats !== 'object' || stats === null) throw new Error('The gateway answered something unreadable');
  etag = res.headers.get('ETag') ?? '';
  return { ...stats, now_ms: stats.now_ms || Date.now(), nodes: Array.isArray(stats.nodes) ? stats.nodes : [] };
}

/** @param {string} what */
function showUnreachable(what) {
  const old = answeredAt ? `The numbers below are from ${clock(answeredAt)}. ` : '';
  showProblems([{
    id: 'unreachable', tone: 'bad', what, since: 0,
    todo: `${old}Trying again each second. See whether this node runs, and how this page reaches its admin listener; every other node serves this page too.`,
  }], Date.now());
  setPill('bad', 'Unreachable');
  element('loading').hidden = true;
  numbers.toggleAttribute('data-old', answeredAt > 0);
  etag = ''; // the next answer must draw everything again
}

/** @param {any} stats */
function show(stats) {
  history.add(stats);
  element('loading').hidden = true;
  numbers.hidden = false;
  numbers.removeAttribute('data-old');
  if (charts.length === 0) {
    charts = [
      new Chart(element('appended-chart'), 'Events in', element('appended-readout')),
      new Chart(element('delivered-chart'), 'Deliveries out', element('delivered-readout')),
    ];
  }
  setText('stream', stats.stream ?? '–');
  const problems = problemsOf(stats, history);
  showProblems(problems, stats.now_ms);
  showStatus(stats, problems);
  showTraffic(stats);
  showTiles(stats);
  showLag(stats.nodes);
  showCounters(stats.nodes);
  element('nodes-empty').hidden = stats.nodes.length > 0;
  element('nodes-scroll').hidden = stats.nodes.length === 0;
  table.show(stats.nodes, stats.leader, stats.now_ms, history.delivered);
}

/** @param {any} stats @param {Problem[]} problems */
function showStatus(stats, problems) {
  const { state = 'unknown', since_ms: since = 0 } = stats.status ?? {};
  const tone = { live: 'good', catching_up: 'warn', stale: 'bad' }[state] ?? '';
  setPill(tone, `${words(state)}${since ? ` since ${moment(since)}` : ''}`);
  const calm = problems.length === 0 && state === 'live' && stats.nodes.length > 0;
  element('calm').hidden = !calm;
  if (!calm) return;
  const alone = stats.nodes.length === 1;
  setText('calm-detail', alone ? 'One node runs and leads. A second one would take over from it.' : `${stats.nodes.length} nodes run, one leads, the others would take over.`);
}

// The list is no live region, for the times in it change; what is new is said
// by the announcer.
/** @param {Problem[]} problems @param {number} now */
function showProblems(problems, now) {
  const news = problems.filter(({ id }) => !shownProblems.has(id));
  for (const [id, { item }] of shownProblems) {
    if (problems.some((problem) => problem.id === id)) continue;
    item.remove();
    shownProblems.delete(id);
    firstSeen.delete(id);
  }
  const root = element('problems');
  for (const [i, problem] of problems.entries()) {
    const shown = shownProblems.get(problem.id) ?? newProblem(problem.id, now);
    const since = problem.since || firstSeen.get(problem.id) || now;
    shown.item.dataset.tone = problem.tone;
    write(shown.what, problem.what);
    write(shown.since, `since ${moment(since)} · ${duration(now - since)}`);
    write(shown.todo, problem.todo);
    if (root.children[i] !== shown.item) root.insertBefore(shown.item, root.children[i] ?? null);
  }
  element('problems-section').hidden = problems.length === 0;
  if (problems.length > 0) element('calm').hidden = true;
  document.title = problems.length > 0 ? `(${problems.length}) ${title}` : title;
  if (news.length > 0) setText('announcer', news.map(({ what, todo }) => `${what}. ${todo}`).join(' '));
  else if (problems.length === 0 && element('announcer').textContent) setText('announcer', 'The problem is over.');
}

/** @param {string} id @param {number} now */
function newProblem(id, now) {
  const item = make('li', 'problem');
  const what = make('strong', 'what');
  const since = make('span', 'since small');
  const todo = make('p', 'todo');
  const head = make('p', '');
  head.append(what, ' ', since);
  item.append(head, todo);
  item.dataset.problem = id;
  const made = { item, what, since, todo };
  shownProblems.set(id, made);
  firstSeen.set(id, now);
  return made;
}

/** @param {any} stats */
function showTraffic({ totals = {} }) {
  const { samples } = history;
  const times = samples.map(({ at }) => at);
  charts[0].set(times, samples.map(({ appended }) => appended));
  charts[1].set(times, samples.map(({ delivered }) => delivered));
  const { appended, delivered } = samples[samples.length - 1];
  setText('appended-rate', perSecond(appended ?? undefined));
  setText('delivered-rate', perSecond(delivered ?? undefined));
  setText('appended-total', count(totals.appended));
  setText('delivered-total', count(totals.delivered));
}

/** @param {any} stats */
function showTiles({ leader, log = {}, upstream = {}, totals = {}, nodes, now_ms: now }) {
  const { ws = 0, sse = 0 } = totals.connections ?? {};
  setText('leader', leader || 'none');
  setText('log-seq', count(log.seq));
  setText('log-epoch', log.epoch || '–');
  setText('upstream-state', words(upstream.state || 'unknown'));
  element('upstream-state').dataset.tone = { live: '', catching_up: 'warn' }[upstream.state] ?? 'bad';
  const facts = [];
  if (upstream.reason) facts.push(words(upstream.reason));
  if (upstream.since_ms) facts.push(`since ${moment(upstream.since_ms)} · ${duration(now - upstream.since_ms)}`);
  setText('upstream-since', facts.join(', ') || '–');
  setText('upstream-frames', count(upstream.frames));
  setText('upstream-reconnects', count(upstream.reconnects));
  setText('connections', count(ws + sse));
  setText('connections-ws', count(ws));
  setText('connections-sse', count(sse));
  setText('nodes-ready', count(nodes.filter((/** @type {any} */ node) => node.ready).length));
  setText('nodes-all', count(nodes.length));
  const versions = [...new Set(nodes.map((/** @type {any} */ node) => node.version || '?'))];
  setText('versions', versions.length > 1 ? `${versions.length} versions: ${versions.join(', ')}` : `Version ${versions[0] ?? '–'}`);
}

/** @param {any[]} nodes */
function showLag(nodes) {
  for (const hop of ['upstream', 'append', 'hub', 'write']) {
    const [p50, p99] = ['p50', 'p99'].map((q) => Math.max(0, ...nodes.map((node) => node.lag_ms?.[hop]?.[q] ?? 0)));
    setText(`lag-${hop}`, delay(p50));
    setText(`lag-${hop}-99`, p99 ? `99 in 100: ${delay(p99)}` : 'nothing lately');
  }
}

/** @param {any[]} nodes */
function showCounters(nodes) {
  /** @type {Map<string, number>} */
  const totals = new Map();
  for (const node of nodes) {
    for (const [name, value] of Object.entries(node.counters ?? {})) totals.set(name, (totals.get(name) ?? 0) + value);
  }
  const root = element('counters');
  for (const [i, [label, names]] of counters.entries()) {
    const all = [...totals.keys()].filter((name) => names.some((n) => (n.endsWith('_') ? name.startsWith(n) : name === n)));
    const sum = (/** @type {(name: string) => number} */ of) => all.reduce((total, name) => total + of(name), 0);
    const [, value, recent] = (root.children[i] ?? newCounter(root, label)).children;
    const grown = sum((name) => history.growth(name).total);
    write(value, count(sum((name) => totals.get(name) ?? 0)));
    write(recent, `+${count(grown)}`);
    recent.toggleAttribute('data-grown', grown > 0);
  }
  showRefusals([...totals].filter(([name, value]) => name.startsWith('refused_') && value > 0).sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])));
}

/** @param {HTMLElement} root @param {string} label */
function newCounter(root, label) {
  const item = make('div', '');
  const name = make('dt', '');
  name.textContent = label;
  item.append(name, make('dd', 'value'), make('dd', 'recent small muted'));
  root.append(item);
  return item;
}

/** @param {[string, number][]} refusals */
function showRefusals(refusals) {
  element('refusals-empty').hidden = refusals.length > 0;
  element('refusals').hidden = refusals.length === 0;
  const body = /** @type {HTMLTableElement} */ (element('refusals')).tBodies[0];
  while (body.rows.length > refusals.length) body.deleteRow(-1);
  for (const [i, [name, value]] of refusals.entries()) {
    const row = body.rows[i] ?? newRefusal(body);
    const recent = history.growth(name).total;
    write(row.cells[0], name.slice('refused_'.length).toUpperCase());
    write(row.cells[1], count(value));
    write(row.cells[2], recent ? `+${count(recent)}` : '–');
  }
}

/** @param {HTMLTableSectionElement} body */
function newRefusal(body) {
  const row = body.insertRow();
  const code = make('th', 'mono');
  code.setAttribute('scope', 'row');
  row.append(code);
  for (let i = 0; i < 2; i++) row.insertCell().dataset.number = '';
  return row;
}

/** @param {string} tone @param {string} text */
function setPill(tone, text) {
  const pill = element('status');
  pill.dataset.tone = tone;
  pill.removeAttribute('data-busy');
  write(pill, text);
}

/** @param {string} id @param {string} text */
function setText(id, text) {
  write(element(id), text);
}

/** @param {string} tag @param {string} className */
function make(tag, className) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  return made;
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

poll();
