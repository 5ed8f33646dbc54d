// Checks the server with Mistral's package.
import { Mistral } from '@mistralai/mistralai';
import { HTTPValidationError, SDKError } from '@mistralai/mistralai/models/errors';
import { assert, busy, collect, failure, idle, passed, suite } from './check.mjs';

const client = new Mistral({ serverURL: suite.url, apiKey: 'none', retryConfig: { strategy: 'none' } });

function checkUsage(usage, want) {
  assert.equal(usage.promptTokens, want.promptTokens);
  assert.equal(usage.completionTokens, want.completionTokens);
  assert.equal(usage.totalTokens, want.promptTokens + want.completionTokens);
}

for (const c of suite.cases) {
  const ask = { model: c.model, prompt: c.prefix, suffix: c.suffix, maxTokens: c.maxTokens };
  for (const [asked, want] of [[ask, c.fill], [{ ...ask, suffix: undefined }, c.plain], [{ ...ask, suffix: null }, c.plain]]) {
    const whole = await client.fim.complete(asked);
    assert.equal(whole.choices[0].message.content, want.text);
    assert.equal(whole.choices[0].finishReason, want.finish);
    checkUsage(whole.usage, want);
    const events = (await collect(client.fim.stream(asked))).map((e) => e.data);
    assert.equal(events.map((e) => e.choices[0].delta.content).join(''), want.text);
    assert.equal(events.at(-1).choices[0].finishReason, want.finish);
    assert(events.slice(0, -1).every((e) => e.choices[0].finishReason === null && e.usage === undefined));
    assert.equal(events[0].choices[0].delta.role, 'assistant');
    checkUsage(events.at(-1).usage, want);
  }
}

const { model, prefix: prompt, suffix, fill, maxTokens } = suite.cases[0];

const drawn = { model, prompt, suffix, maxTokens, temperature: 1, randomSeed: 7, minTokens: 1, promptCacheKey: 'k', metadata: { a: 'b' } };
const first = (await client.fim.complete(drawn)).choices[0].message.content;
assert.equal((await client.fim.complete(drawn)).choices[0].message.content, first);
assert.notEqual((await client.fim.complete({ ...drawn, randomSeed: 8 })).choices[0].message.content, first);

const stop = [...fill.text].find((s) => /[\x21-\x7e]/.test(s));
for (const one of [stop, [stop]]) {
  const stopped = await client.fim.complete({ model, prompt, suffix, maxTokens, stop: one });
  assert.equal(stopped.choices[0].finishReason, 'stop');
  assert.equal(stopped.choices[0].message.content, fill.text.slice(0, fill.text.indexOf(stop)));
}

// Clients that leave: in a stream, and while they wait.
const minutes = { model: suite.long, prompt, maxTokens: 90000 };
let chunks = 0;
for await (const _ of await client.fim.stream(minutes)) {
  if (++chunks === 3) break;
}
await idle();
const controller = new AbortController();
const waiting = client.fim.complete(minutes, { fetchOptions: { signal: controller.signal } });
await busy();
controller.abort();
assert.equal((await failure(waiting)).name, 'RequestAbortedError');
await idle();

// Failures are the package's classes.
for (const call of [(r) => client.fim.complete(r), (r) => client.fim.stream(r)]) {
  const invalid = await failure(call({ model, prompt, temperature: -1 }));
  assert(invalid instanceof HTTPValidationError, String(invalid));
  assert.equal(invalid.statusCode, 422);
  assert.deepEqual([invalid.detail[0].loc, invalid.detail[0].msg], [['body', 'temperature'], 'temperature: found -1, expected 0 to 100']);
  const busy = await failure(call({ model: suite.busy, prompt }));
  assert(busy instanceof SDKError, String(busy));
  assert.deepEqual([busy.statusCode, busy.headers.get('retry-after')], [429, '2']);
  assert.equal(JSON.parse(busy.body).message, 'busy: 64 requests are waiting');
}
assert.equal((await failure(client.fim.complete({ model: suite.broken, prompt }))).statusCode, 500);
// Some text came; that it is not all, the package notices.
await failure(collect(client.fim.stream({ model: suite.broken, prompt })));

// Keys.
const guarded = (apiKey) => new Mistral({ serverURL: suite.guarded, apiKey }).fim.complete({ model, prompt, suffix, maxTokens });
const denied = await failure(guarded('wrong'));
assert(denied instanceof SDKError && denied.statusCode === 401 && JSON.parse(denied.body).code === 'invalid_api_key', String(denied));
assert.equal((await guarded(suite.key)).choices[0].message.content, fill.text);

await passed();
