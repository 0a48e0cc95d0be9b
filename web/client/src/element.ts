// One script tag: the element, and the client under its name.
import type { PepayOrderTexts } from '../element.js';
import type { MintedToken, OrderState, PepayEventStream, Shipment, StatusChange } from '../pepay-gateway.js';
import './global.js';
import { connectCommerceEvents } from './index.js';
import { style } from './style.js';
import { texts as given } from './texts.js';

const steps = ['pending_payment', 'processing', 'placed', 'shipped', 'delivered'];
const over = /^(cancell?ed|failed)$/;
const relativeMS = 86_400_000; // within a day the time of day is enough

/** <pepay-order>: follows one order, and shows how it is doing and how sure that is. */
class PepayOrder extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ['token-url', 'order-id', 'url', 'texts'];

  #texts: Partial<PepayOrderTexts> = {};
  #stream?: PepayEventStream;
  #state?: OrderState;
  #status: StatusChange = { status: 'connecting', since: Date.now() };
  #problem = ''; // the slot that stands in the order's place
  #restarting = false;
  #root?: ShadowRoot;
  #said = '';

  connectedCallback(): void {
    if (!this.#root) {
      this.#root = this.attachShadow({ mode: 'open' });
      const sheet = new CSSStyleSheet(); // which a strict policy allows
      sheet.replaceSync(style);
      this.#root.adoptedStyleSheets = [sheet];
      // It stays: what is put into a new live region is not read out.
      this.#root.append(make('div', { part: 'card', class: 'card' }), make('p', { class: 'hidden', role: 'status' }));
    }
    this.#restart();
  }

  disconnectedCallback(): void {
    this.#stream?.close();
    this.#stream = undefined;
  }

  attributeChangedCallback(name: string): void {
    if (name === 'texts') {
      try {
        this.#texts = { ...this.#texts, ...JSON.parse(this.getAttribute('texts') ?? '{}') };
      } catch {
        console.warn('pepay-order: texts is no JSON');
      }
      this.#draw();
    } else if (this.#root && this.isConnected) this.#restart();
  }

  get texts(): Partial<PepayOrderTexts> {
    return this.#texts;
  }

  set texts(texts: Partial<PepayOrderTexts>) {
    this.#texts = texts;
    this.#draw();
  }

  get state(): OrderState | undefined {
    return this.#state;
  }

  /** Begins anew, such as after the shopper has signed in. */
  reload(): void {
    this.#restart();
  }

  // Once for all attributes that change together.
  #restart(): void {
    if (this.#restarting) return;
    this.#restarting = true;
    queueMicrotask(() => {
      this.#restarting = false;
      if (this.isConnected) this.#start();
    });
  }

  #start(): void {
    this.#stream?.close();
    this.#state = undefined;
    this.#problem = '';
    const orderId = this.getAttribute('order-id');
    if (!orderId) return this.#draw();
    const stream = this.#stream = connectCommerceEvents({ url: this.getAttribute('url') ?? undefined, orderId, getToken: () => this.#token(orderId) });
    this.#status = { status: stream.status, since: stream.since };
    const mine = <T>(act: (value: T) => void) => (value: T) => {
      if (stream !== this.#stream) return;
      act(value);
      this.#draw();
    };
    stream.on('status', mine((status) => {
      this.#status = status;
      this.#tell('pepay-status', status);
    }));
    stream.on('state', mine((state) => {
      if (state.id !== orderId) return;
      this.#state = state;
      this.#tell('pepay-state', state);
    }));
    stream.on('error', mine((error) => {
      if (!error.retry) this.#problem = error.code === 'SIGNED_OUT' ? 'signed-out' : error.code === 'NOT_FOUND' ? 'not-found' : 'error';
      this.#tell('pepay-error', error);
    }));
    this.#draw();
  }

  async #token(orderId: string): Promise<MintedToken> {
    const res = await fetch(this.getAttribute('token-url') ?? '/token', {
      method: 'POST', credentials: 'same-origin', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ order_id: orderId }),
    });
    const code = { 401: 'SIGNED_OUT', 404: 'NOT_FOUND' }[res.status];
    if (!res.ok) throw Object.assign(new Error(`the shop answered ${res.status}`), { code, retry: !code });
    return res.json();
  }

  #tell(name: string, detail: unknown): void {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }

  #text(name: string, values: Record<string, string | undefined> = {}): string {
    const text = this.#texts[name as keyof PepayOrderTexts] ?? given[name as keyof PepayOrderTexts] ?? '';
    return text.replace(/\{(\w+)\}/g, (_, value) => values[value] ?? '').trim();
  }

  #time(ms: number): string {
    const day = Math.abs(Date.now() - ms) < relativeMS ? {} : { dateStyle: 'medium' as const };
    const lang = (this.closest('[lang]') as HTMLElement | null)?.lang.replaceAll('_', '-') || undefined;
    const format = (lang?: string) => new Intl.DateTimeFormat(lang, { timeStyle: 'short', ...day }).format(ms);
    try {
      return format(lang);
    } catch {
      return format(); // that is no language
    }
  }

  #draw(): void {
    if (!this.#root) return;
    const [card, region] = this.#root.children as unknown as [HTMLElement, HTMLElement];
    const state = this.#state;
    const slot = this.#problem || (state ? '' : 'loading');
    card.setAttribute('aria-busy', `${slot === 'loading'}`);
    const headline = slot ? this.#text(slot) : this.#headline(state!);
    if (slot) card.replaceChildren(make('slot', { name: slot }, make('p', { part: 'message', class: `message ${slot}` }, headline)));
    else this.#drawOrder(card, state!, headline);
    // Only news is read out, and not that an order is being loaded.
    if (slot !== 'loading' && headline !== this.#said) region.textContent = this.#said = headline;
  }

  // The link that has the focus keeps it, although it is made anew.
  #drawOrder(card: HTMLElement, state: OrderState, headline: string): void {
    const focused = (this.#root!.activeElement as HTMLAnchorElement | null)?.href;
    card.replaceChildren(
      make('slot', { name: 'header' }, make('p', { part: 'title', class: 'title' }, this.#text('title'))),
      make('p', { part: 'headline', class: `headline ${over.test(state.status) ? 'over' : ''}` }, headline),
      ...this.#notes(state).map((note) => make('p', { part: 'note', class: 'note' }, note)),
      ...(over.test(state.status) ? [] : [this.#steps(state)]),
      ...(state.shipments.length ? [make('ul', { part: 'shipments', class: 'shipments' }, ...state.shipments.map((s) => this.#shipment(s)))] : []),
      make('slot', {}),
      this.#footer(state),
    );
    for (const link of card.querySelectorAll('a')) if (link.href === focused) link.focus();
  }

  #headline(state: OrderState): string {
    if (state.status === 'pending_payment' && this.#expired(state)) return this.#text('expired');
    return this.#text(`status.${state.status}`) || state.status.replace(/_/g, ' ');
  }

  #expired({ invoice, expiresAt }: OrderState): boolean {
    return invoice.status === 'expired' || (!!expiresAt && expiresAt < Date.now());
  }

  #notes(state: OrderState): string[] {
    const { status, expiresAt, refund } = state;
    const notes = [];
    if (status === 'pending_payment' && expiresAt && !this.#expired(state)) notes.push(this.#text('expires', { time: this.#time(expiresAt) }));
    if (refund) notes.push(this.#text('refund', { status: refund.status.toLowerCase().replace(/_/g, ' '), amount: refund.amount && `$${refund.amount}` }));
    return notes;
  }

  #steps(state: OrderState): HTMLElement {
    let at = steps.indexOf(state.status);
    // A status of later than this was written: what is known of the order says where it is.
    if (at < 0) at = state.shipments.length ? 3 : state.payment.status || state.invoice.status === 'paid' ? 1 : 0;
    const done = at === steps.length - 1 ? at + 1 : at;
    return make('ol', { part: 'steps', class: 'steps' }, ...steps.map((step, i) => make('li',
      { part: i < done ? 'step done' : i === at ? 'step current' : 'step', class: i < done ? 'done' : i === at ? 'current' : '', ...(i === at && { 'aria-current': 'step' }) },
      make('span', {}, this.#text(`step.${step}`)),
      make('span', { class: 'hidden' }, i < done ? this.#text('done') : ''),
    )));
  }

  #shipment({ carrier, trackingNumber, trackingUrl, status }: Shipment): HTMLElement {
    const number = trackingNumber ?? this.#text('track');
    return make('li', { part: 'shipment' },
      make('span', { class: 'carrier' }, carrier ?? this.#text('shipment')),
      trackingUrl
        ? make('a', { part: 'tracking', href: trackingUrl, target: '_blank', rel: 'noopener noreferrer', 'aria-label': `${this.#text('track')} ${trackingNumber ?? ''}` }, number)
        : make('span', { part: 'tracking' }, trackingNumber ?? ''),
      make('span', { class: 'quiet' }, status ?? ''));
  }

  #footer({ updatedAt }: OrderState): HTMLElement {
    const { status, since } = this.#status;
    return make('p', { part: 'footer', class: 'footer' },
      make('span', { part: `freshness ${status}`, class: `freshness ${status}` }, this.#text(status, { time: this.#time(since) })),
      make('time', { datetime: new Date(updatedAt).toISOString() }, this.#text('updated', { time: this.#time(updatedAt) })));
  }
}

function make(tag: string, attributes: Record<string, string>, ...children: (Node | string)[]): HTMLElement {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const { customElements } = globalThis as Partial<typeof globalThis>;
if (customElements && !customElements.get('pepay-order')) customElements.define('pepay-order', PepayOrder as CustomElementConstructor);
