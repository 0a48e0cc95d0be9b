/**
 * The demo shop: one shopper, their orders, and ways to break the connection.
 *
 * @typedef {import('./stream.js').Status} Status
 */

import { Orders } from './orders.js';
import { openSession, placeOrder, playFault, simulate } from './shop.js';
import { Stream } from './stream.js';
import { clock, EventLog, OrderList } from './view.js';

const stallMS = 10_000; // how long the shop keeps Pepay silent
const recoveryMS = 20_000; // after a fault, until its buttons work again in any case

const connection = element('connection');
const notice = element('notice');
const resetNotice = element('reset-notice');
const loading = element('loading');
const empty = element('empty');
const shopper = element('shopper');
const faultStatus = element('fault-status');
const placeButton = /** @type {HTMLButtonElement} */ (element('place-order'));
const faultButtons = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll('[data-fault]'));
const transports = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('[name="transport"]'));

const log = new EventLog(/** @type {HTMLTableElement} */ (element('log')), element('log-empty'));
const list = new OrderList(element('order-list'), element('announcer'), async (order, transition) => {
  await simulate(order, transition);
});
const stream = new Stream({ openSession: session, onEvent, onControl, onStatus });

let orders = new Orders();
let customer = recall('pepay.customer');
let known = false; // the stream has told what orders there are
let drawing = false;
/** @type {((recovered: boolean) => void)|null} */
let onHello = null;

async function session() {
  const opened = await openSession(customer);
  customer = opened.customer_id;
  remember('pepay.customer', customer);
  shopper.textContent = customer;
  placeButton.disabled = false;
  return opened;
}

/** @param {any} event */
function onEvent(event) {
  if (!orders.apply(event)) return;
  const { status, settlement_status: settlement } = event.data.object;
  log.add(String(event.type), [status, settlement].filter(Boolean).join(' · '));
  draw();
}

/** @param {any} control */
function onControl(control) {
  orders.control(control);
  switch (control.type) {
    case 'hello':
      log.add('connected', control.resumed ? 'resumed' : '');
      known ||= control.resumed === true;
      onHello?.(true);
      break;
    case 'reset':
      log.add('reset', String(control.reason ?? ''), 'warn');
      resetNotice.textContent = `The stream could not be continued without a gap at ${clock(Date.now())}. Loading your orders afresh…`;
      resetNotice.hidden = false;
      break;
    case 'snapshot':
      known ||= control.count === 0;
      break;
    case 'replay_complete':
      known = true;
      resetNotice.hidden = true;
      break;
    case 'disconnect':
      log.add('disconnect', String(control.code ?? ''), 'warn');
      break;
  }
  draw();
}

/** @param {Status} status */
function onStatus(status) {
  const [tone, text] = describe(status);
  if (connection.textContent !== text) connection.textContent = text; // read out once
  connection.dataset.tone = tone;
  connection.dataset.state = status.state;
  connection.toggleAttribute('data-busy', ['connecting', 'reconnecting', 'catching_up'].includes(status.state));
  if (status.state === 'live') showProblem('');
  if (status.error) showProblem(`${status.error} Trying again…`);
  draw();
}

/** @param {Status} status @returns {[tone: string, text: string]} */
function describe({ state, sinceMS }) {
  switch (state) {
    case 'live':
      return ['good', 'Live'];
    case 'catching_up':
      return ['warn', 'Catching up…'];
    case 'stale':
      return ['bad', `Stale${sinceMS ? ` since ${clock(sinceMS)}` : ''} — what you see may be old`];
    case 'reconnecting':
      return ['warn', 'Reconnecting…'];
    case 'replaced':
      return ['bad', 'Paused — open elsewhere'];
    case 'refused':
      return ['bad', 'Refused — reload to try again'];
  }
  return ['', 'Connecting…'];
}

// A snapshot brings many events at once; they are drawn together.
function draw() {
  if (drawing) return;
  drawing = true;
  queueMicrotask(() => {
    drawing = false;
    const current = orders.list();
    list.draw(current);
    known ||= current.length > 0;
    loading.hidden = known || !notice.hidden;
    empty.hidden = !known || current.length > 0;
  });
}

/** @param {string} problem '' when there is none */
function showProblem(problem) {
  notice.textContent = problem;
  notice.hidden = problem === '';
  draw();
}

/** @param {unknown} err */
function message(err) {
  return err instanceof Error ? err.message : 'Something went wrong.';
}

function connect() {
  const chosen = [...transports].find((input) => input.checked)?.value;
  stream.connect(chosen === 'ws' ? 'ws' : 'sse');
}

placeButton.addEventListener('click', async () => {
  if (placeButton.getAttribute('aria-disabled') === 'true') return;
  placeButton.setAttribute('aria-disabled', 'true');
  showProblem('');
  const buyer = customer;
  try {
    const placed = await placeOrder(buyer);
    if (buyer === customer) orders.expect(placed.order_id, placed.invoice_id);
    draw();
  } catch (err) {
    showProblem(message(err));
  } finally {
    placeButton.removeAttribute('aria-disabled');
  }
});

element('new-shopper').addEventListener('click', () => {
  customer = '';
  remember('pepay.customer', '');
  shopper.textContent = '…';
  placeButton.disabled = true;
  orders = new Orders();
  known = false;
  log.clear();
  showProblem('');
  resetNotice.hidden = true;
  stream.forget();
  connect();
  draw();
});

for (const input of transports) {
  input.addEventListener('change', () => {
    remember('pepay.transport', input.value);
    connect();
  });
}

for (const button of faultButtons) {
  button.addEventListener('click', async () => {
    const name = button.dataset.fault ?? '';
    for (const other of faultButtons) other.disabled = true;
    faultStatus.textContent = name === 'stall' ? 'Pepay is silent for 10 seconds…' : 'Running…';
    try {
      const recovered = name === 'stall' ? after(stallMS) : hello();
      await playFault(name, customer);
      faultStatus.textContent = (await recovered) ? 'Over. Your orders should be right.' : 'Not back yet.';
    } catch (err) {
      faultStatus.textContent = message(err);
    }
    for (const other of faultButtons) other.disabled = false;
    button.focus({ preventScroll: true });
  });
}

/** @returns {Promise<boolean>} whether the stream began anew in time */
function hello() {
  return new Promise((resolve) => {
    const timer = setTimeout(() => onHello?.(false), recoveryMS);
    onHello = (recovered) => {
      clearTimeout(timer);
      onHello = null;
      resolve(recovered);
    };
  });
}

/** @param {number} ms @returns {Promise<boolean>} */
function after(ms) {
  return new Promise((resolve) => setTimeout(() => resolve(true), ms));
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

// Storage may be forbidden; then a reload begins with a new shopper.
/** @param {string} name */
function recall(name) {
  try {
    return localStorage.getItem(name) ?? '';
  } catch {
    return '';
  }
}

/** @param {string} name @param {string} value */
function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // See recall.
  }
}

for (const input of transports) input.checked = input.value === (recall('pepay.transport') || 'sse');
connect();
