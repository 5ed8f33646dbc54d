// Checks the server with OpenAI's package.
import OpenAI from 'openai';
import { assert, busy, collect, failure, idle, passed, suite } from './check.mjs';

const client = new OpenAI({ baseURL: suite.url + '/v1', apiKey: 'none', maxRetries: 0 });

const ids = (await client.models.list()).data.map((m) => m.id);
assert(suite.cases.every((c) => ids.includes(c.model)), String(ids));
assert.equal((await client.models.retrieve(suite.cases[0].model)).object, 'model');

// The choices' texts or contents of a stream, by index; its usage, which is the last chunk's; and why the first choice ended.
function joined(chunks, text) {
  const texts = [];
  let finish;
  for (const chunk of chunks) {
    for (const c of chunk.choices) {
      texts[c.index] = (texts[c.index] ?? '') + (text(c) ?? '');
      finish = c.finish_reason ?? finish;
    }
  }
  return { texts, finish, usage: chunks.at(-1).usage };
}

function checkUsage(usage, want) {
  assert.equal(usage.prompt_tokens, want.promptTokens);
  assert.equal(usage.completion_tokens, want.completionTokens);
  assert.equal(usage.total_tokens, want.promptTokens + want.completionTokens);
}

for (const c of suite.cases) {
  const { model, prefix: prompt, suffix, maxTokens: max_tokens, messages } = c;
  for (const [ask, want] of [[{ model, prompt, suffix, max_tokens }, c.fill], [{ model, prompt, max_tokens }, c.plain]]) {
    const whole = await client.completions.create(ask);
    assert.equal(whole.choices[0].text, want.text);
    assert.equal(whole.choices[0].finish_reason, want.finish);
    checkUsage(whole.usage, want);
    const chunks = await collect(client.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }));
    const stream = joined(chunks, (c) => c.text);
    assert.deepEqual(stream.texts, want.text === '' && stream.texts.length === 0 ? [] : [want.text]);
    assert.equal(stream.finish, want.finish);
    checkUsage(stream.usage, want);
    assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
    // The second time the prompt was known.
    assert.equal(stream.usage.prompt_tokens_details.cached_tokens, want.promptTokens - 1);
  }

  const talk = await client.chat.completions.create({ model, messages, max_completion_tokens: max_tokens });
  assert.deepEqual([talk.choices[0].message.role, talk.choices[0].message.content], ['assistant', c.talk.text]);
  assert.equal(talk.choices[0].finish_reason, c.talk.finish);
  checkUsage(talk.usage, c.talk);
  const chunks = await collect(client.chat.completions.create({ model, messages, max_tokens, stream: true, stream_options: { include_usage: true } }));
  const stream = joined(chunks, (c) => c.delta.content);
  assert.equal(stream.texts[0], c.talk.text);
  assert.equal(stream.finish, c.talk.finish);
  checkUsage(stream.usage, c.talk);
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  // The package's own accumulation of a stream.
  const final = await client.chat.completions.stream({ model, messages, max_tokens }).finalChatCompletion();
  assert.equal(final.choices[0].message.content, c.talk.text);
}

const { model, prefix: prompt, suffix, fill, messages } = suite.cases[0];
const max_tokens = suite.cases[0].maxTokens;

// Several prompts and choices, whole and interleaved.
const several = await client.completions.create({ model, prompt: [prompt, 'x = '], n: 2, max_tokens: 8 });
assert.deepEqual(several.choices.map((c) => c.index), [0, 1, 2, 3]);
assert.equal(several.choices[0].text, several.choices[1].text);
const interleaved = joined(await collect(client.completions.create({ model, prompt: [prompt, 'x = '], n: 2, max_tokens: 8, stream: true })), (c) => c.text);
assert.deepEqual(interleaved.texts, several.choices.map((c) => c.text));

// The same seed draws the same text.
const drawn = { model, prompt, suffix, max_tokens, temperature: 1, seed: 7 };
const first = (await client.completions.create(drawn)).choices[0].text;
assert.equal((await client.completions.create(drawn)).choices[0].text, first);
assert.notEqual((await client.completions.create({ ...drawn, seed: 8 })).choices[0].text, first);

// A stop text ends the completion before it.
const stop = [...fill.text].find((s) => /[\x21-\x7e]/.test(s));
const stopped = await client.completions.create({ model, prompt, suffix, max_tokens, stop: [stop] });
assert.equal(stopped.choices[0].finish_reason, 'stop');
assert.equal(stopped.choices[0].text, fill.text.slice(0, fill.text.indexOf(stop)));

const scored = await client.completions.create({ model, prompt, max_tokens: 3, logprobs: 2 });
assert.equal(scored.choices[0].logprobs.tokens.length, 3);
assert(scored.choices[0].logprobs.token_logprobs.every((p) => p <= 0));
const weighed = await client.chat.completions.create({ model, messages, max_tokens: 3, logprobs: true, top_logprobs: 2 });
assert.equal(weighed.choices[0].logprobs.content.length, 3);
assert(weighed.choices[0].logprobs.content.every((t) => t.top_logprobs.length === 2 && t.logprob <= t.top_logprobs[0].logprob && t.bytes.length > 0));

// Clients that leave: in a stream, and while they wait.
const minutes = { model: suite.long, max_tokens: 90000, stream: true };
for (const begin of [
  () => client.completions.create({ ...minutes, prompt }),
  () => client.chat.completions.create({ ...minutes, messages }),
]) {
  const stream = await begin();
  let chunks = 0;
  for await (const _ of stream) {
    if (++chunks === 3) stream.controller.abort();
  }
  assert(chunks >= 3);
  await idle();
}
const controller = new AbortController();
const waiting = client.completions.create({ model: suite.long, prompt, max_tokens: 90000 }, { signal: controller.signal });
await busy();
controller.abort();
assert((await failure(waiting)) instanceof OpenAI.APIUserAbortError);
await idle();

// Failures are the package's classes, with status, field and code.
const kinds = [
  [() => client.completions.create({ model, prompt, temperature: -1 }), OpenAI.BadRequestError, 400, 'temperature', 'invalid_value'],
  [() => client.completions.create({ model, prompt: Array(700).fill(1) }), OpenAI.BadRequestError, 400, 'prompt', 'context_length_exceeded'],
  [() => client.chat.completions.create({ model, messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }] }), OpenAI.BadRequestError, 400, 'messages', 'invalid_value'],
  [() => client.chat.completions.create({ model, messages, response_format: { type: 'json_object' } }), OpenAI.BadRequestError, 400, 'response_format', 'unsupported_value'],
  [() => client.chat.completions.create({ model, messages, tools: [{ type: 'function', function: { name: 'f' } }], tool_choice: 'required' }), OpenAI.BadRequestError, 400, 'tool_choice', 'unsupported_value'],
  [() => client.chat.completions.create({ model: suite.mute, messages }), OpenAI.InternalServerError, 501, 'model', 'no_chat'],
  [() => client.completions.create({ model: suite.busy, prompt }), OpenAI.RateLimitError, 429, null, 'busy'],
  [() => client.chat.completions.create({ model: suite.busy, messages, stream: true }), OpenAI.RateLimitError, 429, null, 'busy'],
  [() => client.completions.create({ model: suite.broken, prompt }), OpenAI.InternalServerError, 500, null, 'internal_error'],
  [() => client.models.retrieve('absent'), OpenAI.NotFoundError, 404, 'model', 'model_not_found'],
];
for (const [ask, kind, status, param, code] of kinds) {
  const e = await failure(ask());
  assert(e instanceof kind, String(e));
  assert.deepEqual([e.status, e.param, e.code], [status, param, code]);
  if (status === 429) assert.equal(e.headers.get('retry-after'), '2');
}
for (const stream of [
  await client.completions.create({ model: suite.broken, prompt, stream: true }),
  await client.chat.completions.create({ model: suite.broken, messages, stream: true }),
]) {
  const e = await failure(collect(stream));
  assert(e instanceof OpenAI.APIError && e.message.includes('the model broke'), String(e));
}

// Keys.
const guarded = (apiKey) => new OpenAI({ baseURL: suite.guarded + '/v1', apiKey, maxRetries: 0 }).completions.create({ model, prompt, suffix, max_tokens });
const denied = await failure(guarded('wrong'));
assert(denied instanceof OpenAI.AuthenticationError && denied.code === 'invalid_api_key', String(denied));
assert.equal((await guarded(suite.key)).choices[0].text, fill.text);

await passed();
