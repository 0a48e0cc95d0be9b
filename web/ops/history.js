/** How far back the charts and "in the last 5 minutes" reach. */
export const windowMS = 5 * 60_000;

/**
 * @typedef {object} Sample what one answer brought
 * @property {number} at unix milliseconds, by the gateway's clock
 * @property {number} seq the log's tip
 * @property {number|null} appended per second; null when there is nothing to compare with
 * @property {number|null} delivered
 * @property {Map<string, number>} grown counters of the whole cluster, by how much since the sample before
 */

/** Makes rates and growth from the nodes' counters, which only ever count up. */
export class History {
  /** @type {Sample[]} */ samples = []; // oldest first, not empty once add was called
  /** @type {Map<string, number>} */ delivered = new Map(); // per second by node
  /** @type {Map<string, {at: number, started: number, counters: Record<string, number>, appended: number|null, delivered: number|null}>} */
  #last = new Map();

  /** @param {any} stats */
  add(stats) {
    const at = stats.now_ms || Date.now();
    const last = new Map();
    /** @type {Sample} */
    const sample = { at, seq: stats.log?.seq ?? 0, appended: null, delivered: null, grown: new Map() };
    this.delivered = new Map();
    for (const node of stats.nodes ?? []) {
      const now = this.#compare(node, at, sample.grown);
      last.set(node.node, now);
      if (now.delivered === null) continue;
      this.delivered.set(node.node, now.delivered);
      sample.delivered = (sample.delivered ?? 0) + now.delivered;
      sample.appended = (sample.appended ?? 0) + (now.appended ?? 0);
    }
    this.#last = last;
    // A clock that was set back leaves samples of the future.
    this.samples = [...this.samples.filter((old) => old.at >= at - windowMS && old.at < at), sample];
  }

  // A report counts by its own clock, and until the next one comes its rates
  // hold: counters are a second apart, whenever we ask. A node that is new or
  // was restarted is compared from its next report on, for its counters began
  // at 0 at a time we did not see.
  #compare(node, at, grown) {
    const counters = node.counters ?? {};
    const now = { at: node.at_ms ?? at, started: node.started_ms ?? 0, counters, appended: null, delivered: null };
    const before = this.#last.get(node.node);
    if (!before || before.started !== now.started || now.at < before.at) return now;
    if (now.at === before.at) return before;
    const elapsed = (now.at - before.at) / 1_000;
    for (const [name, value] of Object.entries(counters)) {
      const more = value - (before.counters[name] ?? 0);
      if (more > 0) grown.set(name, (grown.get(name) ?? 0) + more);
    }
    const rate = (/** @type {string} */ name) => Math.max(0, (counters[name] ?? 0) - (before.counters[name] ?? 0)) / elapsed;
    return { ...now, appended: rate('appended'), delivered: rate('delivered') };
  }

  /**
   * How much a counter grew in the window, and since when.
   *
   * @param {string} name
   */
  growth(name) {
    let total = 0;
    let since = 0;
    for (const { at, grown } of this.samples) {
      const more = grown.get(name) ?? 0;
      if (more > 0 && since === 0) since = at;
      total += more;
    }
    return { total, since };
  }

  /** @param {number} ago milliseconds @returns {Sample|undefined} the newest sample that is at least so old */
  before(ago) {
    const latest = this.samples.at(-1)?.at ?? 0;
    return this.samples.findLast((sample) => sample.at <= latest - ago);
  }
}
