// Checks the server with tabby-agent, the language server that Tabby's editor plugins talk to. It names no model, so which one answers depends on
// the suite: the embedded one completes, "stuck" never does.
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { active, assert, passed, suite, until } from './check.mjs';

const config = join(homedir(), '.tabby-client', 'agent');
mkdirSync(config, { recursive: true });
writeFileSync(join(config, 'config.toml'), `[server]
endpoint = "${suite.guarded}"
token = "${suite.key}"
[anonymousUsageTracking]
disable = true
`);

const agent = spawn(process.execPath, ['node_modules/tabby-agent/dist/cli.js', '--lsp', '--stdio'], { stdio: ['pipe', 'pipe', 'inherit'] });
const pending = new Map();
let received = Buffer.alloc(0);
agent.stdout.on('data', (data) => {
  received = Buffer.concat([received, data]);
  for (;;) {
    const head = /^Content-Length: (\d+)\r\n(?:[^\r\n]+\r\n)*\r\n/.exec(received.toString('latin1'));
    if (!head || received.length < head[0].length + Number(head[1])) return;
    const message = JSON.parse(received.subarray(head[0].length, head[0].length + Number(head[1])).toString());
    received = received.subarray(head[0].length + Number(head[1]));
    if (message.method === undefined) {
      pending.get(message.id)(message);
      pending.delete(message.id);
    } else if (message.id !== undefined) {
      send({ id: message.id, result: null });
    }
  }
});

function send(message) {
  const body = Buffer.from(JSON.stringify({ jsonrpc: '2.0', ...message }));
  agent.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
  agent.stdin.write(body);
}

const notify = (method, params) => send({ method, params });
let id = 0;
function request(method, params) {
  send({ id: ++id, method, params });
  return new Promise((resolve, reject) => pending.set(id, (m) => (m.error ? reject(new Error(m.error.message)) : resolve(m.result))));
}

const { capabilities } = await request('initialize', {
  processId: process.pid, rootUri: null, capabilities: {}, clientInfo: { name: 'conformance', version: '1' },
});
assert(capabilities.completionProvider, JSON.stringify(capabilities));
notify('initialized', {});

function open(uri, text) {
  notify('textDocument/didOpen', { textDocument: { uri, languageId: 'python', version: 1, text } });
}

function complete(uri, before) {
  const lines = before.split('\n');
  return request('textDocument/completion', { textDocument: { uri }, position: { line: lines.length - 1, character: lines.at(-1).length } });
}

if (suite.default === 'stuck') {
  // Who types on has no use for what was asked before: of two requests one is left.
  const { begun } = await active();
  open('file:///project/a.py', 'import os\n\nname = \nother = \n');
  complete('file:///project/a.py', 'import os\n\nname = ');
  await until((now) => now.begun === begun + 1, 'nothing was asked');
  complete('file:///project/a.py', 'import os\n\nname = \nother = ');
  await until((now) => now.begun === begun + 2 && now.active === 1, 'the first request goes on');
} else {
  for (const [n, c] of suite.cases.filter((c) => c.model === suite.default).entries()) {
    const uri = `file:///project/${n}.py`;
    open(uri, c.prefix + c.suffix);
    const { items } = await complete(uri, c.prefix);
    assert.equal(items.length, 1);
    // The agent shortens what it gets, by rules of its own; it begins as the engine says.
    const word = /\w*$/.exec(c.prefix)[0];
    const text = items[0].textEdit.newText;
    assert(text.length > word.length && (word + c.tabby.text).startsWith(text), JSON.stringify([text, c.tabby.text]));
    assert.match(items[0].data.completionId, /^cmpl-/);
    const now = await active();
    assert.deepEqual([now.prefix, now.suffix], [c.prefix, c.suffix === '' ? '\n' : c.suffix]);
  }
}
await request('shutdown');
notify('exit');
await new Promise((resolve) => agent.on('exit', resolve));
await passed();
