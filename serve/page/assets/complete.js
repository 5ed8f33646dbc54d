// Suggestions while typing.

const pause = 120; // milliseconds without a key before the server is asked
const session = crypto.getRandomValues(new Uint32Array(3)).join("-");

const suggestion = {
  timer: 0,
  controller: null, // of the request under way
  shown: null,      // {id, model}: what the ghost is of

  later() {
    clearTimeout(this.timer);
    if ($("auto").checked) this.timer = setTimeout(() => this.fetch(), pause);
  },

  // drop ends what is under way and takes away what is shown.
  drop(type = "dismiss") {
    clearTimeout(this.timer);
    this.controller?.abort();
    this.controller = null;
    if (this.shown) {
      report(this.shown, type);
      this.shown = null;
    }
    if (editor.ghost) editor.show("");
  },

  async fetch() {
    this.drop();
    if (editor.selected) return;
    const controller = this.controller = new AbortController();
    const prefix = editor.text.slice(0, editor.cursor);
    const suffix = editor.text.slice(editor.cursor);
    if (!prefix.trim() && !suffix.trim()) return;
    const model = models.chosen();
    const body = {
      model: model?.id, prompt: prefix, filename: editor.file || undefined, max_tokens: 64, temperature: 0,
      lines: "auto", no_overlap: true, no_loops: true, stream: true, stream_options: { include_usage: true },
    };
    if (suffix && model?.fim !== false) body.suffix = suffix;
    const began = performance.now();
    let first = 0;
    let ghost = "";
    let id = "";
    say("");
    try {
      const response = await ask("/v1/completions", { body, headers: { "X-Session-Id": session }, signal: controller.signal });
      for await (const event of events(response)) {
        if (this.controller !== controller) return;
        id = event.id;
        ghost += event.choices?.[0]?.text || "";
        if (ghost && !first) first = performance.now() - began;
        if (ghost) {
          this.shown ||= { id, model: model?.id };
          editor.show(ghost);
        }
        if (event.usage) say(account(event, first));
      }
      if (this.controller !== controller) return;
      this.controller = null;
      if (!ghost.trim()) {
        this.shown = null;
        editor.show("");
        say("No suggestion here");
        return;
      }
      report(this.shown, "view");
      $("spoken").textContent = "Suggestion: " + ghost;
    } catch (e) {
      if (e.name !== "AbortError" && this.controller === controller) {
        this.shown = null;
        editor.show("");
        say(e instanceof Refused ? e.message : "The server cannot be reached", true);
      }
    }
  },

  // accept takes the suggestion, or its first word.
  accept(word) {
    const ghost = editor.ghost;
    const part = word ? /^(\s*[\w$]+|\s*[^\w\s$]+|\s+)/.exec(ghost)[0] : ghost;
    const { shown } = this;
    if (part === ghost) {
      if (shown) report(shown, "select");
      this.shown = null;
      this.controller?.abort();
      this.controller = null;
      editor.show("");
      $("spoken").textContent = "Accepted";
    }
    this.taking = part;
    editor.insert(part);
  },

  // typed is called after the text has changed.
  typed(e) {
    const ghost = editor.ghost;
    const text = this.taking ?? (e.inputType === "insertText" ? e.data : null);
    this.taking = null;
    // Who types what is suggested, keeps the rest of it; nothing is asked for.
    if (ghost && text && ghost.startsWith(text) && ghost.length > text.length && !this.controller) {
      editor.show(ghost.slice(text.length));
      return;
    }
    this.drop();
    editor.draw();
    this.later();
  },
};

// account says where the time went.
function account(event, first) {
  const parts = [];
  if (first) parts.push(`${Math.round(first)} ms`);
  const n = event.usage.completion_tokens;
  parts.push(`${n} ${n === 1 ? "token" : "tokens"}`);
  const t = event.timings;
  if (t) parts.push(`${t.prompt_n} of ${t.prompt_n + t.cache_n} prompt tokens read`);
  return parts.join(" · ");
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

// report tells the server what became of a suggestion. Nobody waits for it.
function report(shown, type) {
  ask("/v1/events", { body: { type, completion_id: shown.id, choice_index: 0 }, keepalive: true }).catch(() => {});
}

let leaving = false; // Escape was the last key, and there was nothing to dismiss: Tab then moves the focus, as everywhere else

editor.area.addEventListener("input", (e) => {
  if (!e.isComposing) suggestion.typed(e);
  else editor.draw();
});
editor.area.addEventListener("compositionend", () => suggestion.typed({ inputType: "" }));
editor.area.addEventListener("mousedown", () => suggestion.drop());
editor.area.addEventListener("blur", () => suggestion.drop());
editor.area.addEventListener("keydown", (e) => {
  const left = leaving;
  leaving = false;
  if (e.isComposing) return;
  const mod = e.ctrlKey || e.metaKey;
  if (e.key === "Tab" && !e.shiftKey && !mod && !e.altKey) {
    if (editor.ghost) suggestion.accept(false);
    else if (left) return;
    else editor.insert(editor.indent());
  } else if (e.key === "ArrowRight" && mod && !e.shiftKey && editor.ghost) {
    suggestion.accept(true);
  } else if (e.key === "Escape") {
    leaving = !editor.ghost;
    suggestion.drop();
  } else if (mod && e.code === "Space" || e.altKey && e.code === "Backslash") {
    suggestion.fetch();
  } else if (e.key === "Enter" && !mod && !e.shiftKey && !editor.selected && !(editor.ghost && editor.ghost.startsWith("\n"))) {
    const line = editor.text.slice(0, editor.cursor).split("\n").pop();
    const indent = /^[ \t]*/.exec(line)[0];
    if (!indent && !/[:{(\[]\s*$/.test(line)) return;
    editor.insert("\n" + indent + (/[:{(\[]\s*$/.test(line) ? editor.indent() : ""));
  } else {
    if (["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"].includes(e.key)) suggestion.drop();
    return;
  }
  e.preventDefault();
});
