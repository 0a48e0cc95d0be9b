/**
 * @typedef {{appended: number, delivered: number, byNode: Map<string, number>}} Rate per second; byNode is deliveries
 */

/** Makes rates from the nodes' counters. */
export class Rates {
  #at = 0;
  /** @type {Map<string, {started: number, appended: number, delivered: number}>} */ #last = new Map();

  /**
   * A node that is new or was restarted counts from its next report on, for its
   * counters began at 0 at an unknown time in between.
   *
   * @param {number} at unix milliseconds @param {any[]} nodes
   * @returns {Rate|null} null when there is nothing to compare with
   */
  add(at, nodes) {
    const elapsed = (at - this.#at) / 1000;
    const comparable = this.#at > 0 && elapsed > 0;
    /** @type {Rate} */
    const rate = { appended: 0, delivered: 0, byNode: new Map() };
    const now = new Map();
    for (const node of nodes) {
      const { appended = 0, delivered = 0 } = node.counters ?? {};
      const started = node.started_ms ?? 0;
      const last = this.#last.get(node.node);
      now.set(node.node, { started, appended, delivered });
      if (!comparable || !last || last.started !== started) continue;
      const deliveries = Math.max(0, delivered - last.delivered) / elapsed;
      rate.appended += Math.max(0, appended - last.appended) / elapsed;
      rate.delivered += deliveries;
      rate.byNode.set(node.node, deliveries);
    }
    this.#at = at;
    this.#last = now;
    return rate.byNode.size > 0 ? rate : null;
  }
}
