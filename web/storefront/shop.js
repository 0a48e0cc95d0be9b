// The catalogue and the basket. An order is placed by the shop's own backend;
// the page of the order, order.js, is where the gateway comes in.

const basket = new Map(); // product → quantity

const products = document.querySelectorAll('[data-product]');
const lines = document.querySelector('#lines');
const placeOrder = document.querySelector('#place-order');
const problem = document.querySelector('#problem');

for (const product of products) {
  product.querySelector('button').addEventListener('click', () => put(product, +1));
}

placeOrder.addEventListener('click', async () => {
  // aria-disabled and not disabled: a disabled button would lose the focus.
  if (placeOrder.ariaDisabled === 'true') return;
  placeOrder.ariaDisabled = 'true';
  problem.textContent = '';
  const items = [...basket].map(([product, quantity]) => ({ product, quantity }));
  try {
    const res = await fetch('/checkout', { method: 'POST', body: JSON.stringify({ items }) });
    const answer = await res.json();
    if (!res.ok) throw new Error(answer.error.message);
    basket.clear(); // for who comes back to this page
    drawBasket();
    location.assign(`order.html?id=${encodeURIComponent(answer.order_id)}`);
  } catch (err) {
    problem.textContent = `Your order was not placed: ${err.message}`;
    placeOrder.ariaDisabled = 'false';
  }
});

function put(product, more) {
  const { product: id } = product.dataset;
  const quantity = Math.min(10, (basket.get(id) ?? 0) + more);
  if (quantity > 0) basket.set(id, quantity);
  else basket.delete(id);
  drawBasket();
}

function drawBasket() {
  let sum = 0;
  for (const product of products) {
    const { product: id, price } = product.dataset;
    const quantity = basket.get(id) ?? 0;
    sum += quantity * price;
    const line = lines.querySelector(`[data-line="${id}"]`);
    if (!line && quantity > 0) lines.append(lineOf(product));
    else if (line && quantity === 0) removeLine(line);
    else if (line) line.querySelector('output').value = quantity;
  }
  document.querySelector('#nothing').hidden = basket.size > 0;
  document.querySelector('#sum').value = `$${sum.toFixed(2)}`;
  placeOrder.ariaDisabled = String(basket.size === 0);
}

function lineOf(product) {
  const title = product.querySelector('h2').textContent;
  const line = make('li', title);
  line.dataset.line = product.dataset.product;
  const count = make('span', '');
  count.className = 'count';
  const [less, more] = [make('button', '−'), make('button', '+')];
  less.ariaLabel = `One ${title} less`;
  more.ariaLabel = `One ${title} more`;
  less.addEventListener('click', () => put(product, -1));
  more.addEventListener('click', () => put(product, +1));
  count.append(less, make('output', '1'), more);
  line.append(count);
  return line;
}

function removeLine(line) {
  if (line.contains(document.activeElement)) document.querySelector('#basket').focus();
  line.remove();
}

function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
