// What the server serves, and what it does now.

const every = 2000; // milliseconds from one look to the next
const samples = 60;

const models = {
  all: [],

  chosen() {
    return this.all.find((m) => m.id === $("model").value) || this.all[0];
  },

  draw(all) {
    if (JSON.stringify(all) === JSON.stringify(this.all)) return;
    const before = $("model").value;
    this.all = all;
    $("model").replaceChildren(...all.map((m) => new Option(m.id, m.id)));
    if (all.some((m) => m.id === before)) $("model").value = before;
    $("models").replaceChildren(...all.map((m) => {
      const li = el("li");
      const facts = [millions(m.parameters), m.weights, m.device, `${m.context} tokens`, m.fim ? "fills in the middle" : "continues only"];
      if (m.adapter) facts.unshift("adapter");
      li.append(el("strong", "", m.id), el("span", "", facts.filter(Boolean).join(" · ")));
      return li;
    }));
  },
};

const tiles = {
  nodes: {},
  series: {},

  // set shows a value; number, which may be undefined, is its place in the line beside it.
  set(name, value, detail, number) {
    let t = this.nodes[name];
    if (!t) {
      const box = el("div");
      t = this.nodes[name] = { box, value: el("dd"), spark: spark() };
      box.append(el("dt", "", name), t.value);
      if (number !== undefined) box.append(t.spark.svg);
      $("tiles").append(box);
      this.series[name] = [];
    }
    t.value.replaceChildren(value, detail ? " " : "", el("small", "", detail));
    if (number === undefined) return;
    const s = this.series[name];
    s.push(number);
    if (s.length > samples) s.shift();
    t.spark.draw(s);
  },
};

const svgNS = "http://www.w3.org/2000/svg";

// spark returns a small line of the latest values, from 0 up.
function spark() {
  const [w, h] = [112, 30];
  const svg = document.createElementNS(svgNS, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("width", w);
  svg.setAttribute("height", h);
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.setAttribute("aria-hidden", "true");
  const base = document.createElementNS(svgNS, "path");
  base.setAttribute("class", "base");
  base.setAttribute("d", `M0 ${h - 1.5}H${w}`);
  const line = document.createElementNS(svgNS, "path");
  svg.append(base, line);
  return {
    svg,
    draw(values) {
      const top = Math.max(...values) || 1;
      const x = (i) => (w - 1 - (values.length - 1 - i) * (w - 2) / (samples - 1)).toFixed(1);
      const y = (v) => (h - 1.5 - v / top * (h - 4)).toFixed(1);
      line.setAttribute("d", values.length < 2 ? "" : "M" + values.map((v, i) => x(i) + " " + y(v)).join("L"));
    },
  };
}

function millions(n) {
  if (!n) return "";
  return n >= 1e9 ? (n / 1e9).toFixed(1) + " B parameters" : n >= 1e6 ? Math.round(n / 1e6) + " M parameters" : Math.round(n / 1e3) + " k parameters";
}

function bytes(n) {
  return n >= 2 ** 30 ? (n / 2 ** 30).toFixed(1) + " GiB" : n >= 2 ** 20 ? Math.round(n / 2 ** 20) + " MiB" : Math.round(n / 2 ** 10) + " KiB";
}

function duration(s) {
  if (s < 60) return Math.floor(s) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

// count writes a number with thin spaces between thousands.
const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const percent = (part, all) => all ? Math.round(part / all * 100) + " %" : "–";
const ms = (v) => v >= 1000 ? (v / 1000).toFixed(1) + " s" : v < 1 ? "< 1 ms" : Math.round(v) + " ms";

let last = null; // the answer before, and when it came
let locked = false; // it asks for a key: there is no use in asking on

async function look() {
  let s;
  try {
    s = await (await ask("/v1/status")).json();
  } catch (e) {
    locked = e.status === 401;
    state("lost", e instanceof Refused ? e.message : "The server cannot be reached");
    return;
  }
  locked = false;
  models.draw(s.models);
  const names = s.models.length === 1 ? s.models[0].id : `${s.models.length} models`;
  state(s.draining ? "draining" : "ready", s.draining ? "Shutting down" : `Serving ${names}`);
  const now = s.now;
  const at = performance.now();
  if (last && last.now.uptime_seconds > now.uptime_seconds) last = null; // it was started anew
  const seconds = last ? (at - last.at) / 1000 : 0;
  const rate = (name) => last ? (now[name] - last.now[name]) / seconds : 0;
  tiles.set("Completions", count(now.completions), "", rate("completions"));
  tiles.set("Tokens generated", count(now.generated_tokens), rate("generated_tokens") ? `${rate("generated_tokens").toFixed(1)}/s` : "", rate("generated_tokens"));
  const f = now.first_text_ms;
  tiles.set("First text", f ? ms(f.p50) : "–", f ? `95 %: ${ms(f.p95)}` : "", f ? f.p50 : 0);
  tiles.set("Prompt from cache", percent(now.cached_tokens, now.prompt_tokens), now.prompt_tokens ? `of ${count(now.prompt_tokens)} tokens` : "");
  tiles.set("Drafts accepted", percent(now.accepted_tokens, now.drafted_tokens), now.drafted_tokens ? `of ${count(now.drafted_tokens)}` : "");
  const e = s.engine;
  if (e) {
    tiles.set("Running", String(e.running), `${e.queued} waiting`, e.running);
    if (e.kv_limit_bytes) tiles.set("Keys and values", bytes(e.kv_bytes), `of ${bytes(e.kv_limit_bytes)}`, e.kv_bytes);
  }
  $("uptime").textContent = `Up ${duration(now.uptime_seconds)} · ${s.version}`;
  last = { now, at };
}

function state(kind, text) {
  $("dot").className = "dot " + kind;
  if ($("state").textContent !== text) $("state").textContent = text;
}

async function watch() {
  for (;;) {
    if (!document.hidden && !locked) await look();
    await new Promise((wake) => setTimeout(wake, every));
  }
}
