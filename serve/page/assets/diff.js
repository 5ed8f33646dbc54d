// Differences between two texts, by lines.

const maxDiff = 1500; // lines of each; beyond that, all of one and all of the other

// lines returns the lines of a text; a newline at its end begins none.
function lines(text) {
  if (!text) return [];
  const all = text.split("\n");
  if (all.at(-1) === "") all.pop();
  return all;
}

// diff returns [kind, line] with kind "", "del" or "add": a longest common subsequence.
function diff(before, after) {
  const [a, b] = [lines(before), lines(after)];
  if (a.length > maxDiff || b.length > maxDiff) return [...a.map((l) => ["del", l]), ...b.map((l) => ["add", l])];
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const out = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push(["", a[i++]]);
      j++;
    } else if (i < a.length && (j === b.length || longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      out.push(["del", a[i++]]);
    } else {
      out.push(["add", b[j++]]);
    }
  }
  return out;
}

function drawDiff(before, after) {
  const out = el("div", "diff");
  for (const [kind, line] of diff(before, after)) {
    const row = el("div", kind, line);
    if (kind) row.setAttribute("aria-label", (kind === "add" ? "added: " : "removed: ") + line);
    out.append(row);
  }
  return out;
}
