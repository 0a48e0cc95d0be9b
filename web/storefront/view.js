/**
 * Draws orders and the event log. Everything shown is set as text.
 *
 * @typedef {import('./orders.js').Order} Order
 */

const maxLogRows = 20;

const steps = ['pending_payment', 'processing', 'placed', 'shipped', 'delivered'];
const labels = new Map([
  ['pending_payment', 'Awaiting payment'],
  ['processing', 'Processing'],
  ['placed', 'Placed'],
  ['shipped', 'Shipped'],
  ['delivered', 'Delivered'],
  ['cancelled', 'Cancelled'],
  ['failed', 'Failed'],
  ['refunded', 'Refunded'],
  ['fulfilled', 'Fulfilled'],
]);
const stoppedAfter = new Map([['failed', 'processing'], ['cancelled', 'placed'], ['refunded', 'processing']]);
const actions = {
  payment_confirmed: 'Confirm payment',
  payment_settled: 'Settle payment',
  placed: 'Place with retailer',
  shipped: 'Ship',
  delivery_confirmed: 'Deliver',
  failed: 'Fail',
  cancelled: 'Cancel',
  refunded: 'Refund',
};
const dangerous = ['failed', 'cancelled', 'refunded'];

/** @param {string} id @returns {string} enough of it to recognise it by */
export function short(id) {
  return id.length > 14 ? `${id.slice(0, 8)}…` : id;
}

/** The list of order cards. Cards stay in place, so that the focus does. */
export class OrderList {
  /** @type {Map<string, Card>} */ #cards = new Map();

  /**
   * @param {HTMLElement} root
   * @param {HTMLElement} announcer where changes of status are read out
   * @param {(order: string, transition: string) => Promise<void>} onAction rejects with what to show
   */
  constructor(root, announcer, onAction) {
    this.root = root;
    this.announcer = announcer;
    this.onAction = onAction;
  }

  /** @param {Order[]} orders newest first */
  draw(orders) {
    const ids = new Set(orders.map((order) => order.id));
    for (const [id, card] of this.#cards) {
      if (ids.has(id)) continue;
      card.element.remove();
      this.#cards.delete(id);
    }
    /** @type {string[]} */
    const changes = [];
    orders.forEach((order, i) => {
      let card = this.#cards.get(order.id);
      if (!card) {
        card = new Card(order.id, (transition) => this.onAction(order.id, transition));
        this.#cards.set(order.id, card);
      }
      if (card.draw(order) && order.status) changes.push(`Order ${short(order.id)}: ${label(order.status)}`);
      if (this.root.children[i] !== card.element) this.root.insertBefore(card.element, this.root.children[i] ?? null);
    });
    if (changes.length > 0) this.announcer.textContent = changes.slice(0, 3).join('. ');
  }
}

class Card {
  #status = '';
  /** @type {Map<string, HTMLButtonElement>} */ #buttons = new Map();

  /** @param {string} id @param {(transition: string) => Promise<void>} onAction */
  constructor(id, onAction) {
    this.onAction = onAction;
    this.title = make('h3', '', `Order ${short(id)}`);
    this.title.tabIndex = -1;
    this.title.title = id;
    this.badge = make('span', 'badge');
    this.steps = make('ol', 'steps');
    this.steps.append(...steps.map((step) => make('li', '', label(step))));
    this.items = make('p', 'small');
    this.payment = make('dd');
    this.invoice = make('dd');
    this.total = make('dd');
    this.actions = make('div', 'actions');
    for (const [transition, name] of Object.entries(actions)) this.#addButton(transition, name, id);
    this.error = make('p', 'error');
    this.error.setAttribute('role', 'alert');
    this.element = make('li', 'order panel');
    this.element.dataset.order = id;
    const header = make('header');
    header.append(this.title, this.badge);
    const facts = make('dl', 'facts');
    facts.append(fact('Invoice', this.invoice), fact('Payment', this.payment), fact('Total', this.total));
    this.element.append(header, this.items, this.steps, facts, this.actions, this.error);
  }

  /** @param {string} transition @param {string} name @param {string} id */
  #addButton(transition, name, id) {
    const button = /** @type {HTMLButtonElement} */ (make('button', dangerous.includes(transition) ? 'danger' : '', name));
    button.type = 'button';
    button.dataset.transition = transition;
    button.setAttribute('aria-label', `${name}, order ${short(id)}`);
    button.addEventListener('click', () => this.#act(button, transition));
    this.#buttons.set(transition, button);
    this.actions.append(button);
  }

  /** @param {HTMLButtonElement} button @param {string} transition */
  async #act(button, transition) {
    // aria-disabled and not disabled: a disabled button would lose the focus.
    if (button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    this.error.textContent = '';
    try {
      await this.onAction(transition);
    } catch (err) {
      this.error.textContent = err instanceof Error ? err.message : 'Something went wrong.';
    } finally {
      button.removeAttribute('aria-disabled');
    }
  }

  /** @param {Order} order @returns {boolean} whether its status changed */
  draw(order) {
    const changed = this.#status !== order.status;
    this.#status = order.status;
    if (changed) this.error.textContent = '';
    this.element.dataset.status = order.status;
    this.#drawBadge(order);
    this.#drawSteps(order);
    this.items.textContent = order.items;
    this.items.hidden = order.items === '';
    setFact(this.invoice, words(order.invoiceStatus));
    setFact(this.payment, [order.paymentStatus, order.settlement].filter(Boolean).map(words).join(' · '));
    setFact(this.total, order.total);
    this.#drawActions(order);
    return changed;
  }

  /** @param {Order} order */
  #drawBadge(order) {
    let name = label(order.status);
    let tone = order.status === 'delivered' || order.status === 'fulfilled' ? 'good' : '';
    if (order.status === 'failed' || order.status === 'cancelled') tone = 'bad';
    if (order.status === 'pending_payment' && order.invoiceStatus === 'expired') [name, tone] = ['Invoice expired', 'bad'];
    if (order.refunded) [name, tone] = [order.status === 'refunded' ? name : `${name}, refunded`, 'warn'];
    if (order.status === '') name = 'Waiting for its first event';
    this.badge.textContent = name;
    this.badge.dataset.tone = tone;
  }

  /** @param {Order} order */
  #drawSteps(order) {
    const stopped = stoppedAfter.get(order.status);
    const expired = order.status === 'pending_payment' && order.invoiceStatus === 'expired';
    const current = steps.indexOf(stopped ?? order.status);
    this.steps.toggleAttribute('data-stopped', Boolean(stopped) || expired);
    [...this.steps.children].forEach((step, i) => {
      step.toggleAttribute('data-reached', i <= current);
      if (i === current && !stopped) step.setAttribute('aria-current', 'step');
      else step.removeAttribute('aria-current');
    });
  }

  /** @param {Order} order */
  #drawActions(order) {
    const focused = document.activeElement;
    let happy = true;
    for (const [transition, button] of this.#buttons) {
      button.hidden = !order.transitions.includes(transition);
      button.classList.toggle('primary', !button.hidden && happy && !dangerous.includes(transition));
      if (!button.hidden) happy = false;
    }
    this.actions.hidden = order.transitions.length === 0;
    if (focused instanceof HTMLButtonElement && focused.hidden && this.actions.contains(focused)) {
      (this.#buttons.get(order.transitions[0] ?? '') ?? this.title).focus();
    }
  }
}

/** The newest events, and what happened to the stream between them. */
export class EventLog {
  /** @param {HTMLTableElement} table @param {HTMLElement} empty */
  constructor(table, empty) {
    this.table = table;
    this.empty = empty;
  }

  /** @param {string} type @param {string} status @param {string} [tone] */
  add(type, status, tone = '') {
    const row = make('tr');
    row.dataset.tone = tone;
    const typeCell = make('td');
    typeCell.append(...breakable(type));
    row.append(make('td', '', clock(Date.now())), typeCell, make('td', '', status.replaceAll('_', ' ')));
    const body = this.table.tBodies[0];
    body.prepend(row);
    while (body.rows.length > maxLogRows) body.deleteRow(-1);
    this.#show();
  }

  clear() {
    this.table.tBodies[0].replaceChildren();
    this.#show();
  }

  #show() {
    this.table.hidden = this.table.tBodies[0].rows.length === 0;
    this.empty.hidden = !this.table.hidden;
  }
}

/** @param {number} ms @returns {string} the time of day, as 12:03:04 */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString('en-GB');
}

/** @param {string} status */
function label(status) {
  return labels.get(status) ?? words(status);
}

/** @param {string} type @returns {Node[]} it, with places to break the line at */
function breakable(type) {
  const parts = type.split(/(?<=[._])/);
  return parts.flatMap((part, i) => (i === 0 ? [document.createTextNode(part)] : [make('wbr'), document.createTextNode(part)]));
}

/** @param {string} text manual_retry becomes Manual retry */
function words(text) {
  const spaced = text.replaceAll('_', ' ');
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

/** @param {string} term @param {HTMLElement} value */
function fact(term, value) {
  const row = make('div');
  row.append(make('dt', '', term), value);
  return row;
}

/** @param {HTMLElement} value @param {string} text */
function setFact(value, text) {
  value.textContent = text;
  if (value.parentElement) value.parentElement.hidden = text === '';
}

/** @param {string} tag @param {string} [className] @param {string} [text] @returns {HTMLElement} */
function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
