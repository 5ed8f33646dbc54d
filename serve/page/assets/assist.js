// The assistance functions: an answer as it is written, and for code the change it would make.

const assist = {
  functions: [],
  controller: null,
  job: null, // {fn, start, end, before, code}

  async list() {
    const box = $("functions");
    try {
      const object = await (await ask("/v1/assist")).json();
      this.functions = Array.isArray(object) ? object : object.functions || object.data || [];
    } catch (e) {
      this.functions = [];
      const why = { 401: "", 404: "This server has no assistance functions." }[e.status] ?? e.message; // that a key is asked for is said above
      box.replaceChildren(el("p", "", why));
      return;
    }
    box.replaceChildren(...this.functions.map((fn) => {
      const b = el("button", "", fn.title || fn.name);
      b.type = "button";
      b.dataset.name = fn.name;
      b.setAttribute("aria-pressed", "false");
      if (fn.description) b.title = fn.description;
      b.addEventListener("click", () => this.run(fn));
      return b;
    }));
    $("instruction-label").hidden = this.functions.length === 0;
  },

  async run(fn) {
    const instruction = $("instruction").value.trim();
    if (fn.name === "edit" && !instruction) {
      $("instruction").placeholder = "What is to be changed";
      $("instruction").focus();
      return;
    }
    this.controller?.abort();
    suggestion.drop();
    const controller = this.controller = new AbortController();
    const { area } = editor;
    const whole = !editor.selected;
    const [start, end] = whole ? [0, editor.text.length] : [area.selectionStart, area.selectionEnd];
    const job = this.job = { fn, start, end, text: editor.text, before: editor.text.slice(start, end), code: null };
    for (const b of $("functions").querySelectorAll("button")) b.setAttribute("aria-pressed", String(b.dataset.name === fn.name));
    $("answer-title").textContent = fn.title || fn.name;
    const body = $("answer-body");
    body.replaceChildren();
    body.setAttribute("aria-busy", "true");
    $("answer").hidden = $("stop").hidden = false;
    $("replace").hidden = $("copy").hidden = true;
    let text = "";
    try {
      const response = await ask("/v1/assist/" + encodeURIComponent(fn.name), {
        body: {
          model: models.chosen()?.id, file: editor.file, selection: job.before, before: job.text.slice(0, start), after: job.text.slice(end),
          instruction: instruction || undefined, stream: true,
        },
        signal: controller.signal,
      });
      for await (const event of events(response)) {
        if (this.controller !== controller) return;
        if (event.delta) this.draw(job, text += event.delta, false);
        if (event.edit) {
          job.code = event.edit.newText;
          if (event.edit.file) $("answer-title").textContent += " · " + event.edit.file;
        }
      }
      if (this.controller !== controller) return;
      if (fn.output === "code" && job.code === null) throw new Refused(0, "The answer holds no code");
      this.draw(job, text, true);
      $("copy").hidden = !text && !job.code;
    } catch (e) {
      if (this.controller !== controller) return;
      if (e.name !== "AbortError") body.append(el("p", "problem", e instanceof Refused ? e.message + ". Your code is as it was." : "The server cannot be reached. Your code is as it was."));
      $("copy").hidden = !text;
    } finally {
      if (this.controller === controller) {
        this.controller = null;
        body.setAttribute("aria-busy", "false");
        $("stop").hidden = true;
      }
    }
    this.answer = job.code ?? text;
  },

  // draw shows what there is: prose as Markdown, code as it comes and then as a change.
  draw(job, text, whole) {
    const body = $("answer-body");
    const low = body.scrollHeight - body.scrollTop - body.clientHeight < 24;
    if (job.fn.output !== "code") {
      body.replaceChildren(markdown(text, editor.file));
    } else if (whole) {
      const replaces = (job.fn.place || "replace") === "replace";
      body.replaceChildren(drawDiff(replaces ? job.before : "", replaces ? job.code : job.code.replace(/^\n/, "")));
      $("replace").hidden = job.fn.place === "new";
      $("replace").textContent = replaces ? "Replace" : "Insert below";
    } else {
      const box = el("div", "diff");
      const row = el("div");
      highlight(row, text, editor.file);
      box.append(row);
      body.replaceChildren(box);
    }
    if (low) body.scrollTop = body.scrollHeight;
  },

  // apply puts the code into the text, unless that has changed since.
  apply() {
    const { job } = this;
    if (!job || job.code === null) return;
    if (editor.text !== job.text) {
      $("answer-body").prepend(el("p", "problem", "The text has changed since; copy what you need."));
      $("replace").hidden = true;
      return;
    }
    if ((job.fn.place || "replace") === "replace") editor.replace(job.start, job.end, job.code);
    else editor.replace(job.end, job.end, job.code); // which begins and ends with the line ends that it needs there
    clearTimeout(suggestion.timer);
    this.close();
  },

  close() {
    this.controller?.abort();
    this.controller = this.job = null;
    $("answer").hidden = true;
    for (const b of $("functions").querySelectorAll("button")) b.setAttribute("aria-pressed", "false");
    editor.area.focus();
  },
};

$("instruction").addEventListener("keydown", (e) => {
  const edit = assist.functions.find((fn) => fn.name === "edit");
  if (e.key === "Enter" && !e.isComposing && edit) assist.run(edit);
});
$("replace").addEventListener("click", () => assist.apply());
$("stop").addEventListener("click", () => assist.controller?.abort());
$("close").addEventListener("click", () => assist.close());
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(assist.answer);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Not allowed";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});
$("answer").addEventListener("keydown", (e) => {
  if (e.key === "Escape") assist.close();
});
document.addEventListener("selectionchange", () => {
  if (document.activeElement !== editor.area) return;
  const lines = editor.selected ? editor.text.slice(editor.area.selectionStart, editor.area.selectionEnd).split("\n").length : 0;
  $("about").textContent = lines ? `for ${lines === 1 ? "the selected line" : `the ${lines} selected lines`}` : "for the selection, or for the whole file";
});
