// Colours for code: comments, strings, numbers and words that many languages share. Enough to read by; no parser.

const words = new Set(("abstract and as assert async await break case catch class const continue def default defer del do elif else enum except export extends false False finally fn for from func function global go if " +
  "impl implements import in interface is lambda let match mod module mut namespace new nil None nonlocal not null or package pass private protected pub public raise return select self static struct super switch " +
  "this throw trait true True try type typeof undefined use using var void when where while with yield").split(" "));
const endWords = new Set("begin def do each end ensure local rescue then unless until".split(" ")); // where blocks end with a word
const endFiles = /\.(rb|lua|jl|ex|exs|sh|bash|zsh)$/i;

const hashComments = /\.(py|pyi|rb|sh|bash|zsh|pl|r|jl|yaml|yml|toml|ex|exs|cmake|nix|mk|tf)$|(^|\/)(Makefile|Dockerfile|Containerfile)$/i;
const dashComments = /\.(sql|lua|hs|elm|ada)$/i;

const shared = String.raw`"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|` + "`(?:\\\\.|[^`\\\\])*`?" + String.raw`|\b\d[\w.]*|[A-Za-z_$][\w$]*`;

function pattern(file) {
  if (hashComments.test(file)) return new RegExp("#[^\n]*|" + shared, "g");
  if (dashComments.test(file)) return new RegExp("--[^\n]*|" + shared, "g");
  return new RegExp(String.raw`//[^\n]*|/\*[\s\S]*?(?:\*/|$)|` + shared, "g");
}

function kind(token, file) {
  const c = token[0];
  if (c === '"' || c === "'" || c === "`") return "s";
  if (c === "#" || c === "/" || c === "-") return "c";
  if (c >= "0" && c <= "9") return "n";
  return words.has(token) || endWords.has(token) && endFiles.test(file) ? "k" : "";
}

// highlight appends text to a node, in colour.
function highlight(node, text, file) {
  let at = 0;
  for (const m of text.matchAll(pattern(file))) {
    const k = kind(m[0], file);
    if (!k) continue;
    if (m.index > at) node.append(text.slice(at, m.index));
    node.append(el("span", k, m[0]));
    at = m.index + m[0].length;
  }
  node.append(text.slice(at));
}
