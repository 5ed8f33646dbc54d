// Markdown as models write it, built of nodes: no text ever becomes markup.

function inline(node, text) {
  const pattern = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;
  let at = 0;
  for (const m of text.matchAll(pattern)) {
    node.append(text.slice(at, m.index), m[1] !== undefined ? el("code", "", m[1]) : el("strong", "", m[2]));
    at = m.index + m[0].length;
  }
  node.append(text.slice(at));
  return node;
}

function markdown(text, file) {
  const out = el("div", "prose");
  const lines = text.split("\n");
  let paragraph = [];
  let list = null;
  const flush = () => {
    if (paragraph.length) out.append(inline(el("p"), paragraph.join(" ")));
    paragraph = [];
    list = null;
  };
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    const fence = /^\s*(```+|~~~+)/.exec(line);
    const heading = /^#{1,6}\s+(.*)/.exec(line);
    const item = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)/.exec(line);
    if (fence) {
      flush();
      const code = [];
      for (i++; i < lines.length && !lines[i].trim().startsWith(fence[1]); i++) code.push(lines[i]);
      const pre = el("pre");
      const inner = el("code");
      highlight(inner, code.join("\n"), file);
      pre.append(inner);
      out.append(pre);
    } else if (heading) {
      flush();
      out.append(inline(el("h4"), heading[1]));
    } else if (item) {
      const tag = item[1] === undefined ? "UL" : "OL";
      if (list?.tagName !== tag) {
        flush();
        list = el(tag);
        if (tag === "OL") list.start = Number(item[1]);
        out.append(list);
      }
      list.append(inline(el("li"), item[2]));
    } else if (!line.trim()) {
      flush();
    } else if (list && /^\s/.test(line)) {
      inline(list.lastChild, " " + line.trim());
    } else {
      if (list) flush();
      paragraph.push(line.trim());
    }
  }
  flush();
  return out;
}
