// What the tests of all clients need. The suite comes as JSON from the Go test that runs them.
import assert from 'node:assert/strict';

export { assert };
export const suite = JSON.parse(process.argv[2]);

// active says how many completions are under way and have begun, and what the latest was asked to go on from.
export async function active() {
  return (await fetch(suite.active)).json();
}

// until waits for the server to be as done wants it.
export async function until(done, otherwise) {
  for (const deadline = Date.now() + 10000; ; await sleep(10)) {
    const now = await active();
    if (done(now)) return;
    assert(Date.now() < deadline, `${otherwise}: ${JSON.stringify(now)}`);
  }
}

// busy waits until a completion is under way; idle, until none is.
export const busy = () => until((now) => now.active > 0, 'no completion began');
export const idle = () => until((now) => now.active === 0, 'a completion goes on though its client has left');

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// collect returns what an async iterable yields.
export async function collect(iterable) {
  const all = [];
  for await (const x of await iterable) all.push(x);
  return all;
}

// failure returns the error that a promise is rejected with.
export async function failure(promise) {
  try {
    await promise;
  } catch (e) {
    return e;
  }
  assert.fail('expected an error');
}

// passed ends a test; what has not ended by now, must not keep it.
export async function passed() {
  await idle();
  console.log('all checks passed');
  process.exit(0);
}
