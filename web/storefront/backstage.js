// What a real shop does not have: buttons that move the order and break things,
// and the frames as they come in.

import { make, stream } from './order.js';

const maxFrames = 60;
const stallMS = 60_000;
const happyPath = { pending_payment: 'payment_confirmed', processing: 'payment_settled', placed: 'shipped', shipped: 'delivery_confirmed' };
const freshness = { connecting: 'Connecting', live: 'Live', catching_up: 'Catching up', stale: 'May be out of date', offline: 'Offline', ended: 'Ended' };
const transports = { ws: 'WebSocket', sse: 'SSE', poll: 'polling', shared: 'shared connection' };
const outcomes = {
  cut: 'Cut. The page notices, and goes on where it was.',
  stall: 'Pepay says nothing for a minute; press again to end it. After 25 s the page must say that it may be out of date.',
  unstall: 'Pepay talks again, and what was missed comes now.',
  restart: 'It drains, closes, and listens again.',
};

const order = document.querySelector('pepay-order');
const moves = document.querySelectorAll('[data-move]');
const faults = document.querySelectorAll('[data-fault]');
const frames = document.querySelector('#frames');
const connection = document.querySelector('#connection');
const refusal = document.querySelector('#refusal');
const played = document.querySelector('#played');
let stallTimer;

stream.on('event', (event) => addFrame(event, event.data.object.status));
stream.on('control', (control) => addFrame(control, control.reason ?? control.status));
stream.on('error', (error) => addFrame({ ...error, type: 'error' }, error.code));
stream.on('status', ({ status, transport }) => {
  connection.dataset.state = status;
  connection.textContent = [freshness[status], transports[transport]].filter(Boolean).join(' · ');
});
document.querySelector('#second-tab').href = location.href;

order.addEventListener('pepay-state', ({ detail: { status, payment } }) => {
  const next = status === 'processing' && payment.settlement === 'settled' ? 'placed' : happyPath[status];
  for (const button of moves) button.classList.toggle('primary', button.dataset.move === next);
});

for (const button of moves) {
  button.addEventListener('click', async () => {
    refusal.textContent = await post(`orders/${order.getAttribute('order-id')}/simulate`, { transitionTo: button.dataset.move });
  });
}

for (const button of faults) {
  button.addEventListener('click', async () => {
    const fault = button.ariaPressed === 'true' ? 'unstall' : button.dataset.fault;
    const failure = await post(`faults/${fault}`);
    played.textContent = failure || outcomes[fault];
    if (failure || button.ariaPressed === null) return; // not begun, or over at once
    clearTimeout(stallTimer);
    button.ariaPressed = String(fault === 'stall');
    if (fault === 'stall') stallTimer = setTimeout(() => { button.ariaPressed = 'false'; }, stallMS);
  });
}

// Returns what is to be shown, '' when all went well.
async function post(path, body = {}) {
  try {
    const res = await fetch(`/demo/${path}`, { method: 'POST', body: JSON.stringify(body) });
    return res.ok ? '' : (await res.json()).error.message;
  } catch {
    return 'The shop cannot be reached; try again.';
  }
}

function addFrame(frame, about = '') {
  const summary = make('summary');
  summary.append(make('time', new Date().toLocaleTimeString('en-GB')), make('code', frame.type), make('span', String(about).replaceAll('_', ' ')));
  const details = make('details');
  details.append(summary, make('pre', JSON.stringify(frame, null, 2)));
  const row = make('li');
  row.dataset.object = frame.object ?? '';
  row.append(details);
  frames.prepend(row);
  if (frames.children.length > maxFrames) frames.lastChild.remove();
}
