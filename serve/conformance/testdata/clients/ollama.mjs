// Checks the server with Ollama's package.
import { Ollama } from 'ollama';
import { assert, busy, collect, failure, idle, passed, suite } from './check.mjs';

const client = new Ollama({ host: suite.url });

assert.match((await client.version()).version, /^\d+\.\d+\.\d+/);
const names = (await client.list()).models.map((m) => m.name);
for (const c of suite.cases) assert(names.includes(c.model + ':latest'), String(names));
assert((await client.ps()).models.length > 0);
const shown = await client.show({ model: suite.cases[0].model });
// By these clients find out that a model fills in.
assert(shown.template.includes('{{ .Suffix }}'), shown.template);
assert(shown.capabilities.includes('insert') && shown.capabilities.includes('completion'));
assert.equal((await client.generate({ model: suite.cases[0].model, prompt: '' })).done_reason, 'load');

function checkEnd(last, want) {
  assert.equal(last.done, true);
  assert.equal(last.done_reason, want.finish);
  assert.equal(last.prompt_eval_count, want.promptTokens);
  assert.equal(last.eval_count, want.completionTokens);
  assert(last.total_duration > 0 && last.eval_duration >= 0);
}

for (const c of suite.cases) {
  const { model, prefix: prompt, suffix, messages } = c;
  const options = { num_predict: c.maxTokens, temperature: 0 };
  for (const [ask, want] of [[{ model, prompt, suffix, options }, c.fill], [{ model: model + ':latest', prompt, raw: true, options }, c.plain]]) {
    if (ask.suffix === '') ask.raw = true;
    const whole = await client.generate(ask);
    assert.equal(whole.response, want.text);
    checkEnd(whole, want);
    const parts = await collect(client.generate({ ...ask, stream: true }));
    assert.equal(parts.map((p) => p.response).join(''), want.text);
    assert(parts.slice(0, -1).every((p) => p.done === false));
    checkEnd(parts.at(-1), want);
  }
  const whole = await client.chat({ model, messages, options });
  assert.deepEqual([whole.message.role, whole.message.content], ['assistant', c.talk.text]);
  checkEnd(whole, c.talk);
  const parts = await collect(client.chat({ model, messages, options, stream: true }));
  assert.equal(parts.map((p) => p.message.content).join(''), c.talk.text);
  checkEnd(parts.at(-1), c.talk);
}

const { model, prefix: prompt, suffix, fill, messages } = suite.cases[0];
const drawn = (seed) => client.generate({ model, prompt, suffix, options: { num_predict: 20, temperature: 1, seed } });
const first = (await drawn(7)).response;
assert.equal((await drawn(7)).response, first);
assert.notEqual((await drawn(8)).response, first);

const stop = [...fill.text].find((s) => /[\x21-\x7e]/.test(s));
const stopped = await client.generate({ model, prompt, suffix, options: { num_predict: 24, temperature: 0, stop: [stop] } });
assert.deepEqual([stopped.response, stopped.done_reason], [fill.text.slice(0, fill.text.indexOf(stop)), 'stop']);

// Clients that leave: in a stream, and while they wait.
const minutes = { model: suite.long, options: { num_predict: 90000 }, stream: true };
for (const begin of [
  () => client.generate({ ...minutes, prompt, raw: true }),
  () => client.chat({ ...minutes, messages }),
]) {
  const stream = await begin();
  let parts = 0;
  const e = await failure((async () => {
    for await (const _ of stream) {
      if (++parts === 3) stream.abort();
    }
  })());
  assert(parts >= 3 && e.name === 'AbortError', String(e));
  await idle();
}
const controller = new AbortController();
const leaving = new Ollama({ host: suite.url, fetch: (url, o) => fetch(url, { ...o, signal: controller.signal }) });
const waiting = leaving.generate({ ...minutes, prompt, raw: true, stream: false });
await busy();
controller.abort();
assert.equal((await failure(waiting)).name, 'AbortError');
await idle();

// Failures have the package's class, with status and words.
for (const [call, status, words] of [
  [() => client.generate({ model, prompt, options: { num_predict: 'many' } }), 400, 'num_predict: found a string'],
  [() => client.generate({ model, prompt, options: { num_predict: 'many' }, stream: true }), 400, 'num_predict: found a string'],
  [() => client.generate({ model: suite.busy, prompt, raw: true }), 429, 'busy'],
  [() => client.generate({ model: suite.broken, prompt, raw: true }), 500, 'the model broke'],
  [() => client.embed({ model, input: 'x' }), 501, ''],
]) {
  const e = await failure(call());
  assert.deepEqual([e.name, e.status_code], ['ResponseError', status]);
  assert(e.message.includes(words), e.message);
}
const broken = await failure(collect(client.generate({ model: suite.broken, prompt, raw: true, stream: true })));
assert(broken.message.includes('the model broke'), broken.message);

// Keys.
const guarded = (key) => new Ollama({ host: suite.guarded, headers: { Authorization: 'Bearer ' + key } }).generate({ model, prompt, suffix, options: { num_predict: 24, temperature: 0 } });
const denied = await failure(guarded('wrong'));
assert.deepEqual([denied.name, denied.status_code], ['ResponseError', 401]);
assert.equal((await guarded(suite.key)).response, fill.text);

await passed();
