// What the page asks of its server, and of no other.

const $ = (id) => document.getElementById(id);

function el(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

const keyName = "autodev-key";

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// ask sends a request and returns the response, or throws what the server says is wrong.
async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(keyName);
  if (key) headers["Authorization"] = "Bearer " + key;
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method: options.body === undefined ? "GET" : "POST",
    headers,
    body: options.body === undefined ? undefined : JSON.stringify(options.body),
    signal: options.signal,
    keepalive: options.keepalive,
    cache: "no-store",
    credentials: "omit",
  });
  if (response.ok) return response;
  let message = response.status + " " + response.statusText;
  try {
    message = problemOf(await response.json()) || message;
  } catch { /* the status says enough */ }
  if (response.status === 401) {
    if (!$("key").open) {
      $("key").open = true;
      $("key-input").focus();
    }
    message = key ? "The API key is not accepted" : "This server asks for an API key";
  }
  throw new Refused(response.status, message);
}

function problemOf(object) {
  const e = object && object.error;
  return typeof e === "string" ? e : e && e.message;
}

// events yields the objects of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += value || "";
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        const data = rest.slice(0, end).split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trimStart()).join("\n");
        rest = rest.slice(end + 2);
        if (data === "[DONE]") return;
        if (!data) continue;
        const object = JSON.parse(data);
        if (object.error) throw new Refused(0, problemOf(object) || "The answer broke off");
        yield object;
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

$("key-form").addEventListener("submit", (e) => {
  e.preventDefault();
  const value = $("key-input").value.trim();
  if (value) sessionStorage.setItem(keyName, value);
  else sessionStorage.removeItem(keyName);
  $("key").open = false;
  document.dispatchEvent(new Event("key"));
});
