export const style = `
:host {
  --accent: var(--pepay-accent, #1f6feb);
  --surface: var(--pepay-surface, #fff);
  --text: var(--pepay-text, #1c2430);
  --muted: var(--pepay-muted, #5b6675);
  --line: var(--pepay-line, #d7dde5);
  --good: var(--pepay-good, #1a7f4b);
  --bad: var(--pepay-bad, #b3261e);
  --warn: var(--pepay-warn, #8a5a00);
  display: block;
  container-type: inline-size;
  color: var(--text);
  font: var(--pepay-font, 400 1rem/1.5 system-ui, sans-serif);
}
:host([hidden]) { display: none; }
@media (prefers-color-scheme: dark) {
  :host(:not([theme=light])) {
    --accent: var(--pepay-accent, #6ea8fe);
    --surface: var(--pepay-surface, #171c24);
    --text: var(--pepay-text, #e8edf4);
    --muted: var(--pepay-muted, #9aa7b8);
    --line: var(--pepay-line, #364152);
    --good: var(--pepay-good, #5fd39a);
    --bad: var(--pepay-bad, #ff8a80);
    --warn: var(--pepay-warn, #f2c265);
  }
}
.card {
  padding: clamp(1rem, 4cqi, 1.5rem);
  border: 1px solid var(--line);
  border-radius: var(--pepay-radius, .75rem);
  background: var(--surface);
  overflow-wrap: anywhere;
}
p, ol, ul { margin: 0; padding: 0; list-style: none; }
.title, .footer, .quiet { color: var(--muted); font-size: .875em; }
.headline { font-size: 1.25em; font-weight: 650; line-height: 1.3; }
.over { color: var(--bad); }
.note { margin-block-start: .25rem; color: var(--warn); }
.message { padding-block: .5rem; color: var(--muted); text-align: center; }
.steps { display: flex; margin-block-start: 1.25rem; font-size: .875em; }
.steps li { position: relative; flex: 1; padding-block-start: 1.5rem; text-align: center; color: var(--muted); }
.steps li::before {
  content: ""; position: absolute; inset-block-start: .125rem; inset-inline-start: calc(50% - .5rem); z-index: 1; box-sizing: border-box;
  inline-size: 1rem; block-size: 1rem; border: 2px solid var(--line); border-radius: 50%; background: var(--surface);
}
.steps li::after {
  content: ""; position: absolute; inset-block-start: .5625rem; inset-inline-end: 50%; inline-size: 100%; block-size: 2px; background: var(--line);
}
.steps li:first-child::after { display: none; }
.steps .done, .steps .current { color: var(--text); }
.steps .current { font-weight: 650; }
.steps .done::before { border-color: var(--accent); background: var(--accent); }
.steps .current::before { border-color: var(--accent); box-shadow: inset 0 0 0 2px var(--surface); background: var(--accent); }
.steps .done::after, .steps .current::after { background: var(--accent); }
.shipments { display: grid; gap: .5rem; margin-block-start: 1.25rem; padding-block-start: 1rem; border-block-start: 1px solid var(--line); }
.shipments li { display: flex; flex-wrap: wrap; gap: .125rem .75rem; align-items: baseline; }
.carrier { font-weight: 600; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 2px; }
.footer { display: flex; flex-wrap: wrap; gap: .25rem 1rem; justify-content: space-between; margin-block-start: 1.25rem; }
.freshness::before { content: ""; display: inline-block; inline-size: .5em; block-size: .5em; margin-inline-end: .5em; border-radius: 50%; background: var(--muted); }
.live::before { background: var(--good); }
.stale, .offline { color: var(--bad); }
.stale::before, .offline::before { background: var(--bad); }
.connecting::before, .catching_up::before { background: var(--warn); animation: pulse 1.2s infinite alternate; }
.hidden { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@keyframes pulse { to { opacity: .3; } }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }
@container (max-width: 26rem) {
  .steps { flex-direction: column; gap: .75rem; }
  .steps li { padding-block: 0; padding-inline-start: 1.75rem; text-align: start; }
  .steps li::before { inset-inline-start: 0; inset-block-start: .125rem; }
  .steps li::after { inset-inline: .4375rem auto; inset-block: calc(-100% + .25rem) auto; inline-size: 2px; block-size: calc(100% + .5rem); }
}
@media (forced-colors: active) {
  .steps .done::before, .steps .current::before { background: CanvasText; forced-color-adjust: none; }
}
`;
