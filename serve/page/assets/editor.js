// The editor: a textarea that has the text, the caret and the keys, over a mirror that shows the text in colour, and a suggestion in it.

const editor = {
  area: $("code"),
  ghost: "",

  get text() { return this.area.value; },
  get cursor() { return this.area.selectionStart; },
  get selected() { return this.area.selectionStart !== this.area.selectionEnd; },
  get file() { return $("file").value.trim(); },

  // show puts a suggestion at the cursor; "" takes it away.
  show(ghost) {
    this.ghost = ghost;
    this.draw();
  },

  draw() {
    const mirror = $("mirror");
    const colours = document.createDocumentFragment();
    highlight(colours, this.text, this.file);
    mirror.replaceChildren(colours);
    if (this.ghost) this.insertGhost(mirror);
    // A last line that is empty has no height of its own.
    mirror.append("\n");
    this.number();
    this.follow();
  },

  // insertGhost puts the suggestion between the characters of the coloured text.
  insertGhost(mirror) {
    const ghost = el("span", "ghost", this.ghost);
    let left = this.cursor;
    for (const node of [...mirror.childNodes]) {
      const length = node.textContent.length;
      if (left > length) {
        left -= length;
        continue;
      }
      const text = node.nodeType === Node.TEXT_NODE ? node : node.firstChild;
      if (!text || left === length) {
        node.after(ghost);
      } else if (left === 0) {
        node.before(ghost);
      } else if (text === node) {
        node.splitText(left).before(ghost);
      } else {
        const rest = el("span", node.className, text.data.slice(left));
        text.data = text.data.slice(0, left);
        node.after(ghost, rest);
      }
      return;
    }
    mirror.append(ghost);
  },

  // number numbers the lines; those that only a suggestion has get none.
  number() {
    const lines = this.text.split("\n").length;
    const before = this.text.slice(0, this.cursor).split("\n").length;
    const extra = this.ghost.split("\n").length - 1;
    let numbers = "";
    for (let i = 1; i <= lines; i++) {
      numbers += i + "\n";
      if (i === before) numbers += "\n".repeat(extra);
    }
    $("gutter").textContent = numbers;
  },

  follow() {
    const { scrollLeft, scrollTop } = this.area;
    $("mirror").style.transform = `translate(${-scrollLeft}px, ${-scrollTop}px)`;
    $("gutter").scrollTop = scrollTop;
  },

  // insert types text at the cursor, so that undo takes it back.
  insert(text) {
    this.area.focus();
    if (!document.execCommand("insertText", false, text)) {
      this.area.setRangeText(text, this.area.selectionStart, this.area.selectionEnd, "end");
      this.area.dispatchEvent(new InputEvent("input", { inputType: "insertText", data: text }));
    }
  },

  // replace puts text in the place of a range.
  replace(start, end, text) {
    this.area.focus();
    this.area.setSelectionRange(start, end);
    if (text) this.insert(text);
    else document.execCommand("delete");
  },

  // indent is what one level is in this text.
  indent() {
    return /^\t/m.test(this.text) || /\.(go|mk)$/.test(this.file) ? "\t" : "    ";
  },
};

editor.area.addEventListener("scroll", () => editor.follow());
new ResizeObserver(() => editor.follow()).observe(editor.area);
$("file").addEventListener("input", () => editor.draw());
