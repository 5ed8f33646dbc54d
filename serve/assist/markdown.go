package assist

import (
	"bytes"
	"html"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/util"
)

// markdown turns Markdown of a model into HTML that is safe to show: tags in the text are text, links that could run something lose their address, and
// images, which would make the reader's program fetch something, become their description.
var markdown = newMarkdown()

func newMarkdown() goldmark.Markdown {
	blocks := []util.PrioritizedValue{
		util.Prioritized(parser.NewSetextHeadingParser(), 100),
		util.Prioritized(parser.NewThematicBreakParser(), 200),
		util.Prioritized(parser.NewListParser(), 300),
		util.Prioritized(parser.NewListItemParser(), 400),
		util.Prioritized(parser.NewCodeBlockParser(), 500),
		util.Prioritized(parser.NewATXHeadingParser(), 600),
		util.Prioritized(parser.NewFencedCodeBlockParser(), 700),
		util.Prioritized(parser.NewBlockquoteParser(), 800),
		util.Prioritized(parser.NewParagraphParser(), 1000),
	}
	inlines := []util.PrioritizedValue{
		util.Prioritized(parser.NewCodeSpanParser(), 100),
		util.Prioritized(parser.NewLinkParser(), 200),
		util.Prioritized(parser.NewAutoLinkParser(), 300),
		util.Prioritized(parser.NewEmphasisParser(), 500),
	}
	// Without reference definitions, which could change what was shown long before.
	m := goldmark.New(goldmark.WithParser(parser.NewParser(parser.WithBlockParsers(blocks...), parser.WithInlineParsers(inlines...))))
	extension.Table.Extend(m)
	extension.Strikethrough.Extend(m)
	m.Renderer().AddOptions(renderer.WithNodeRenderers(util.Prioritized(plainImages{}, 1)))
	return m
}

// plainImages renders images as their description.
type plainImages struct{}

func (plainImages) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	r.Register(ast.KindImage, func(util.BufWriter, []byte, ast.Node, bool) (ast.WalkStatus, error) { return ast.WalkContinue, nil })
}

// renderHTML returns a whole text as HTML.
func renderHTML(text string) string {
	var b bytes.Buffer
	if err := markdown.Convert([]byte(text), &b); err != nil {
		return "<p>" + html.EscapeString(text) + "</p>\n" // it never is: a Buffer takes everything
	}
	return b.String()
}

// htmlStream renders Markdown while it arrives: block by block, as soon as nothing that may follow can change a block.
type htmlStream struct {
	text  string // not rendered yet
	line  int    // where the line begins that is not complete
	kind  block  // of the block that text begins with
	fence fence  // that is open, in the item of a list too; its length is 0 when none is
	item  int    // of a list: where the text of its last item begins, in spaces
	after bool   // the line before ended a fence in an item
	blank bool   // the line before was blank
}

// block is as much of a block as tells where it ends.
type block uint8

const (
	noBlock block = iota
	fenced
	list     // goes on after blank lines with more items and what is indented
	ordinary // ends with a blank line
	indented // goes on after blank lines with what is indented
)

func (h *htmlStream) push(piece string) string {
	h.text += piece
	var out strings.Builder
	for {
		end := strings.IndexByte(h.text[h.line:], '\n')
		if end < 0 {
			return out.String()
		}
		out.WriteString(h.take(h.text[h.line:h.line+end], h.line+end+1))
	}
}

// take looks at the line before next.
func (h *htmlStream) take(line string, next int) string {
	start := h.line
	h.line = next
	if h.kind == fenced {
		if f, ok := parseFence(line); ok && f.closes(fence{mark: h.fence.mark, length: h.fence.length}) && f.indent <= 3 {
			return h.cut(next)
		}
		return ""
	}
	trimmed := strings.TrimSpace(line)
	in := len(line) - len(strings.TrimLeft(line, " "))
	deep := in >= 4 || strings.HasPrefix(strings.TrimLeft(line, " "), "\t")
	f, isFence := parseFence(line)
	isFence = isFence && f.indent <= 3
	item := !deep && isItem(trimmed)
	if item && h.kind == ordinary && !h.blank && !strings.HasPrefix(h.text, ">") && !strings.Contains(h.text, "\n>") {
		// Not every item may interrupt a paragraph, but for a quotation's.
		marker, text, _ := strings.Cut(trimmed, " ")
		item = text != "" && (len(marker) == 1 || marker == "1." || marker == "1)")
	}
	out := ""
	switch {
	case trimmed == "":
	case h.kind == noBlock:
	case h.kind == indented && !deep,
		h.kind == list && (h.fence.length > 0 || h.after) && in < h.item && !item, // the item ends, and the block in it
		isFence && (h.kind != list || in < h.item),                                // it ends everything that it is not part of
		in == 0 && heading(trimmed),
		h.kind == list && in < h.item && !deep && (trimmed != "" && trimmed[0] == '>' || rule(trimmed)),
		h.blank && h.kind == ordinary,
		h.blank && h.kind == list && in < h.item && !item && !deep:
		out = h.cut(start)
	}
	if h.blank = trimmed == ""; h.blank {
		return out
	}
	h.after = false
	if h.kind == list && in >= h.item {
		switch f, ok := parseFence(line); {
		case !ok:
		case h.fence.length == 0:
			h.fence = f
		case f.closes(h.fence):
			h.fence.length, h.after = 0, true
		}
	}
	if (h.kind == noBlock || h.kind == ordinary) && !deep && rule(trimmed) {
		return out + h.cut(h.line) // it is a block, or makes a heading of the paragraph
	}
	if h.kind == noBlock {
		switch {
		case isFence:
			h.kind, h.fence = fenced, f
		case item:
			h.kind = list
		case deep:
			h.kind = indented
		case heading(trimmed):
			return out + h.cut(h.line)
		default:
			h.kind = ordinary
		}
	} else if item && h.kind == ordinary {
		h.kind = list // a list may interrupt a paragraph
	}
	if item && h.kind == list && (h.item == 0 || in < h.item) {
		h.item, h.fence = in+itemText(trimmed), fence{}
	}
	return out
}

// itemText returns where the text of a list's item begins.
func itemText(line string) int {
	marker := strings.IndexAny(line, " \t")
	if marker < 0 {
		return len(line) + 1
	}
	spaces := len(line) - marker - len(strings.TrimLeft(line[marker:], " "))
	if spaces < 1 || spaces > 4 {
		spaces = 1
	}
	return marker + spaces
}

func heading(line string) bool {
	rest := strings.TrimLeft(line, "#")
	n := len(line) - len(rest)
	return n >= 1 && n <= 6 && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}

// rule says whether a line is a thematic break.
func rule(line string) bool {
	line = strings.NewReplacer(" ", "", "\t", "").Replace(line)
	return len(line) >= 3 && strings.Trim(line, line[:1]) == "" && strings.Contains("-_*", line[:1])
}

func isItem(line string) bool {
	rest := strings.TrimLeft(line, "0123456789")
	switch {
	case len(rest) < len(line):
		if rest == "" || rest[0] != '.' && rest[0] != ')' {
			return false
		}
	case line == "" || strings.IndexByte("-+*", line[0]) < 0:
		return false
	}
	return len(rest) == 1 || rest[1] == ' ' || rest[1] == '\t'
}

// cut renders the text before n, which is a line's beginning.
func (h *htmlStream) cut(n int) string {
	done := h.text[:n]
	h.text, h.line = h.text[n:], h.line-n
	*h = htmlStream{text: h.text, line: h.line}
	return renderHTML(done)
}

func (h *htmlStream) flush() string {
	rest := h.text
	h.text = ""
	if strings.TrimSpace(rest) == "" {
		return ""
	}
	return renderHTML(rest)
}
