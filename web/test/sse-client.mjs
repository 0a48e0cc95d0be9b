// Follows an SSE stream with one of the clients that people use, and prints what
// it saw, one JSON object a line:
//
//   {"kind":"request","at":ms,"cursor":"the Last-Event-ID sent, or empty"}
//   {"kind":"answer","at":ms,"status":200}
//   {"kind":"ended","at":ms}             the body is over, or broke
//   {"kind":"block","at":ms,"event":"","id":"evt_…"} an event
//   {"kind":"block","at":ms,"event":"control","data":"…"}
//   {"kind":"stopped","at":ms,"why":"…"} the client will not come back
//
// The process ends by itself when the client has given up, and not before.
//
//   node sse-client.mjs eventsource|fetch-event-source|fetch-event-source-bare|eventsource-client|eventsource-parser URL [CLAIMS]
//
// With claims, the URL is where a token for them is minted, with the API key in
// the variable API_KEY, when all is ready to use it.

const [library, given, claims] = process.argv.slice(2);

async function streamURL() {
  if (!claims) return given;
  const res = await fetch(given, { method: 'POST', headers: { 'x-api-key': process.env.API_KEY }, body: claims });
  return (await res.json()).data.sse_url;
}

// A page outlives its stream. Without it eventsource, whose timers keep no
// process, would be gone before it came back.
const page = setInterval(() => {}, 60_000);

const print = (kind, more) => console.log(JSON.stringify({ kind, at: Date.now(), ...more }));
const stopped = (why) => {
  print('stopped', { why });
  clearInterval(page);
};
const block = (event, data) => print('block', event ? { event, data } : { event, id: JSON.parse(data).id });

// All of them take a fetch: this one tells what goes over the wire, and changes
// nothing.
async function observed(input, init) {
  print('request', { cursor: new Headers(init.headers).get('last-event-id') ?? '' });
  const res = await fetch(input, init);
  print('answer', { status: res.status });
  if (!res.body) return res;
  const reader = res.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) return controller.enqueue(value);
        print('ended');
        controller.close();
      } catch (err) {
        print('ended');
        controller.error(err);
      }
    },
    cancel: (why) => reader.cancel(why),
  });
  return new Response(body, { status: res.status, headers: res.headers });
}

async function eventsource() {
  const { EventSource } = await import('eventsource');
  const es = new EventSource(await streamURL(), { fetch: observed });
  es.onmessage = (m) => block('', m.data);
  es.addEventListener('control', (m) => block('control', m.data));
  es.addEventListener('error_frame', (m) => block('error_frame', m.data));
  es.onerror = (err) => {
    if (es.readyState === EventSource.CLOSED) stopped(err.message);
  };
}

async function fetchEventSource(handlers) {
  // It reaches for the page it runs in.
  globalThis.window = globalThis;
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
  const { fetchEventSource } = await import('@microsoft/fetch-event-source');
  await fetchEventSource(await streamURL(), {
    fetch: observed,
    openWhenHidden: true,
    // It hands on blocks without data too: a mere retry is one.
    onmessage: (m) => m.data && block(m.event, m.data),
    ...handlers,
  }).then(() => stopped('resolved'), (err) => stopped(err.message));
}

// What its own README says to do: an end is no goodbye unless it is thrown from
// onclose, and 204 is no stream.
const comesBack = {
  async onopen(res) {
    if (res.status !== 200) throw Object.assign(new Error(`status ${res.status}`), { fatal: true });
  },
  onclose() {
    throw new Error('ended');
  },
  onerror(err) {
    if (err.fatal) throw err;
  },
};

async function eventsourceClient() {
  const { createEventSource } = await import('eventsource-client');
  const es = createEventSource({
    url: await streamURL(),
    fetch: observed,
    onMessage: (m) => block(m.event ?? '', m.data),
    onDisconnect: () => setImmediate(() => es.readyState === 'closed' && stopped('closed')),
  });
}

// A parser alone: the loop around it is what its users write, by the rules of
// the specification.
async function eventsourceParser() {
  const { createParser } = await import('eventsource-parser');
  const url = await streamURL();
  let cursor;
  let retryMS = 3_000;
  for (;; await new Promise((resolve) => setTimeout(resolve, retryMS))) {
    const res = await observed(url, { headers: cursor === undefined ? {} : { 'Last-Event-ID': cursor } }).catch(() => null);
    if (!res) continue;
    if (res.status !== 200) return stopped(`status ${res.status}`);
    const parser = createParser({
      onEvent({ id, event, data }) {
        cursor = id ?? cursor;
        block(event ?? '', data);
      },
      onRetry(ms) { retryMS = ms; },
    });
    try {
      for await (const chunk of res.body.pipeThrough(new TextDecoderStream())) parser.feed(chunk);
    } catch {
      // cut: as an end
    }
  }
}

await {
  eventsource,
  'fetch-event-source': () => fetchEventSource(comesBack),
  'fetch-event-source-bare': () => fetchEventSource({}),
  'eventsource-client': eventsourceClient,
  'eventsource-parser': eventsourceParser,
}[library]();
