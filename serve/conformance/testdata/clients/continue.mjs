// Checks the server with the HTTP layer of Continue.
import { constructLlmApi } from '@continuedev/openai-adapters';
import { assert, collect, failure, idle, passed, suite } from './check.mjs';

const providers = ['openai', 'mistral', 'vllm', 'lmstudio', 'llama.cpp', 'deepseek', 'ollama'];
const api = (provider) => constructLlmApi({ provider, apiBase: provider === 'ollama' ? suite.url : suite.url + '/v1/', apiKey: 'none' });
const none = new AbortController().signal;
const content = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? '').join('');

for (const provider of providers) {
  const llm = api(provider);
  for (const c of suite.cases) {
    const { model, prefix: prompt, suffix, maxTokens: max_tokens, messages } = c;
    const filled = await collect(llm.fimStream({ model, prompt, suffix, max_tokens, temperature: 0, stop: [] }, none));
    assert.equal(content(filled), c.fill.text, provider);

    const plain = { model, prompt, max_tokens, temperature: 0 };
    const whole = await llm.completionNonStream({ ...plain, stream: false }, none);
    assert.equal(whole.choices[0].text, c.plain.text, provider);
    const parts = await collect(llm.completionStream({ ...plain, stream: true }, none));
    assert.equal(parts.map((p) => p.choices[0].text).join(''), c.plain.text, provider);

    const talk = await llm.chatCompletionNonStream({ model, messages, max_tokens, stream: false }, none);
    assert.equal(talk.choices[0].message.content, c.talk.text, provider);
    assert.equal(talk.usage.completion_tokens, c.talk.completionTokens, provider);
    const said = await collect(llm.chatCompletionStream({ model, messages, max_tokens, stream: true }, none));
    assert.equal(content(said), c.talk.text, provider);
    assert.equal(said.at(-1).usage.prompt_tokens, c.talk.promptTokens, provider);
  }
  if (provider !== 'deepseek') {
    assert((await llm.list()).some((m) => m.id === suite.cases[0].model), provider);
  }
}

const { model, prefix: prompt, suffix, messages } = suite.cases[0];
for (const provider of ['openai', 'deepseek']) {
  const llm = api(provider);

  // A keystroke ends what the one before has asked for.
  for (const begin of [
    (signal) => llm.fimStream({ model: suite.long, prompt, suffix, max_tokens: 90000 }, signal),
    (signal) => llm.chatCompletionStream({ model: suite.long, messages, max_tokens: 90000, stream: true }, signal),
  ]) {
    const controller = new AbortController();
    let chunks = 0;
    try {
      for await (const _ of begin(controller.signal)) {
        if (++chunks === 3) controller.abort();
      }
    } catch (e) {
      assert.match(e.name, /Abort/);
    }
    assert(chunks >= 3);
    await idle();
  }

  // Failures reach the user, before a stream and in it.
  const invalid = await failure(collect(llm.fimStream({ model, prompt, suffix, temperature: -1 }, none)));
  assert(invalid.message.includes('temperature: found -1, expected 0 to 100'), String(invalid));
  const broken = await failure(collect(llm.fimStream({ model: suite.broken, prompt, suffix }, none)));
  assert(broken.message.includes('the model broke'), String(broken));
  const mute = await failure(llm.chatCompletionNonStream({ model: suite.mute, messages, stream: false }, none));
  assert(mute.message.includes('cannot converse'), String(mute));
}

// Keys.
const guarded = (apiKey) => collect(constructLlmApi({ provider: 'mistral', apiBase: suite.guarded + '/v1/', apiKey }).fimStream({ model, prompt, suffix, max_tokens: suite.cases[0].maxTokens }, none));
assert.match((await failure(guarded('wrong'))).message, /invalid_api_key/);
assert.equal(content(await guarded(suite.key)), suite.cases[0].fill.text);

await passed();
