// The order page: the element shows one order, the client lists them all. This is
// the whole of it; backstage.js is there to play with.

const order = document.querySelector('pepay-order');
const goods = document.querySelector('#goods');
const all = document.querySelector('#all');
const none = document.querySelector('#none');

// dev serves the gateway and these pages, under whatever name it was called by.
order.setAttribute('url', location.origin);
const asked = new URLSearchParams(location.search).get('id');
if (asked) show(asked);

export const stream = PepayGateway.connectCommerceEvents({ url: location.origin, getToken });
stream.on('state', drawAll);
stream.on('control', ({ type }) => {
  if (type === 'replay_complete') drawAll(); // all that there is has come
});
stream.on('error', ({ retry }) => {
  if (!retry) drawAll(); // nothing will come
});

order.addEventListener('pepay-state', ({ detail: { items, total } }) => {
  goods.replaceChildren(...items.map(({ quantity, title }) => make('li', `${quantity} × ${title}`)));
  if (total) goods.append(make('li', `Total $${total}`));
});

document.querySelector('#sign-out').addEventListener('click', async () => {
  stream.close();
  await fetch('/sign-out', { method: 'POST' });
  location.assign('./');
});

// A token for the shopper's orders; who that is, the cookie tells the backend.
async function getToken() {
  const res = await fetch('/token', { method: 'POST' });
  if (!res.ok) throw Object.assign(new Error(`the shop answered ${res.status}`), { retry: res.status >= 500 });
  return res.json();
}

function show(id) {
  order.texts = { title: `Order ${id.slice(0, 8)}` };
  order.setAttribute('order-id', id);
}

function drawAll() {
  const orders = stream.getState(); // newest first
  if (!order.hasAttribute('order-id') && orders.length > 0) show(orders[0].id);
  order.hidden = !order.hasAttribute('order-id');
  none.hidden = !order.hidden;
  all.closest('nav').hidden = orders.length === 0;
  orders.forEach((state, i) => {
    const row = all.querySelector(`[data-order="${CSS.escape(state.id)}"]`) ?? makeRow(state.id);
    drawRow(row, state);
    if (all.children[i] !== row) all.insertBefore(row, all.children[i]);
  });
  while (all.children.length > orders.length) all.lastChild.remove();
}

function drawRow(row, { id, status, items, total }) {
  const [what, how, price] = row.firstChild.children;
  what.textContent = items.map(({ title }) => title).join(', ') || `Order ${id.slice(0, 8)}`;
  how.textContent = status.replaceAll('_', ' ');
  price.textContent = total ? `$${total}` : '';
  row.dataset.status = status;
}

function makeRow(id) {
  const link = make('a');
  link.href = `order.html?id=${encodeURIComponent(id)}`;
  if (id === order.getAttribute('order-id')) link.ariaCurrent = 'page';
  link.append(make('span'), make('span'), make('span'));
  const row = make('li');
  row.dataset.order = id;
  row.append(link);
  return row;
}

// Text only: nothing that comes over the wire becomes markup.
export function make(tag, text = '') {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
