package assist

import (
	"slices"
	"strings"
	"unicode"
)

// A stage takes an answer piece by piece and returns what may be shown now. What it shows, joined, does not depend on how the answer was cut.
type stage interface {
	push(piece string) string
	flush() string
}

// thoughts leaves out what a model thinks before it answers: <think> … </think> at the beginning.
type thoughts struct {
	held string
	done bool
}

const thinkOpen, thinkClose = "<think>", "</think>"

func (t *thoughts) push(piece string) string {
	if t.done {
		return piece
	}
	t.held += piece
	text := strings.TrimLeft(t.held, " \t\r\n")
	switch {
	case strings.HasPrefix(text, thinkOpen):
		_, after, ok := strings.Cut(text, thinkClose)
		if !ok {
			return ""
		}
		t.held = after
		if text = strings.TrimLeft(after, " \t\r\n"); text == "" {
			return ""
		}
		if strings.HasPrefix(thinkOpen, text) || strings.HasPrefix(text, thinkOpen) {
			return t.push("") // there may be more than one
		}
		t.done = true
		return text
	case strings.HasPrefix(thinkOpen, text):
		return ""
	}
	t.done = true
	return t.held
}

func (t *thoughts) flush() string {
	if t.done || strings.HasPrefix(strings.TrimLeft(t.held, " \t\r\n"), thinkOpen) {
		return ""
	}
	t.done = true
	return t.held
}

// extractor finds the code in an answer: what its first code block holds, without the fences and what is written around it. An answer without a
// code block is code as a whole, or none: that is decided at its end, or by its first line where that is the selection's.
type extractor struct {
	first  string // the selection's first line that is not blank, trimmed
	shell  bool   // the file's language is one of commands, so that blocks of commands count
	state  extraction
	line   []byte // the current line, as far as it was not shown
	whole  bool   // line is the whole line so far
	held   strings.Builder
	fence  fence
	depth  int  // blocks that the code itself opens, as documentation comments do
	found  bool // code was shown
	closed bool // the block had an end
}

type extraction uint8

const (
	seeking  extraction = iota // a fence
	inside                     // the block
	skipping                   // a block that is not the code
	verbatim                   // an answer that is code as a whole
	finished
)

// fence is what opens a block.
type fence struct {
	mark   byte // ` or ~
	length int
	indent int
	info   string
}

// parseFence reads a line that opens or closes a block.
func parseFence(line string) (f fence, ok bool) {
	body := strings.TrimLeft(line, " \t")
	f.indent = len(line) - len(body)
	if body == "" || body[0] != '`' && body[0] != '~' {
		return f, false
	}
	f.mark = body[0]
	rest := strings.TrimLeft(body, string(f.mark))
	f.length = len(body) - len(rest)
	f.info = strings.TrimSpace(rest)
	return f, f.length >= 3 && (f.mark == '~' || !strings.Contains(f.info, "`"))
}

// closes says whether f ends the block that open began.
func (f fence) closes(open fence) bool {
	return f.mark == open.mark && f.length >= open.length && f.info == "" && f.indent <= open.indent+3
}

// transcripts are the names of blocks that show commands or what they print.
var transcripts = []string{"bash", "sh", "shell", "zsh", "console", "shell-session", "shellsession", "cmd", "powershell", "text", "txt", "plaintext", "output", "log", "diff"}

func (x *extractor) push(piece string) string {
	var out strings.Builder
	for i := 0; i < len(piece) && x.state != finished; i++ {
		if len(x.line) == 0 && !x.midLine() {
			x.whole = true
		}
		x.line = append(x.line, piece[i])
		if piece[i] == '\n' {
			out.WriteString(x.endLine())
			x.whole = true
			continue
		}
		if x.state == verbatim || x.state == inside && !x.mayBeFence() {
			out.Write(x.line)
			x.line, x.whole = x.line[:0], false
		}
	}
	x.found = x.found || strings.TrimSpace(out.String()) != ""
	return out.String()
}

// midLine says whether a part of the current line was shown.
func (x *extractor) midLine() bool { return !x.whole && (x.state == inside || x.state == verbatim) }

// mayBeFence says whether the current line may turn out to end the block.
func (x *extractor) mayBeFence() bool {
	if !x.whole {
		return false
	}
	body := strings.TrimLeft(string(x.line), " \t")
	if body == "" {
		return true
	}
	rest := strings.TrimLeft(body, string(x.fence.mark))
	n := len(body) - len(rest)
	// With something behind it, it may be one that the code itself opens.
	return n > 0 && (rest == "" || n >= x.fence.length)
}

// endLine takes the current line, whose end has come, and returns what of it is code.
func (x *extractor) endLine() string {
	line := string(x.line)
	whole := x.whole
	x.line = x.line[:0]
	text := strings.TrimRight(line, "\r\n")
	f, isFence := parseFence(text)
	isFence = isFence && whole
	switch x.state {
	case verbatim:
		return line
	case seeking:
		if isFence {
			x.fence = f
			name, _, _ := strings.Cut(strings.ToLower(f.info), " ")
			if x.state = inside; !x.shell && slices.Contains(transcripts, name) {
				x.state = skipping
			}
			return ""
		}
		blank := strings.TrimSpace(x.held.String()) == ""
		x.held.WriteString(line)
		if trimmed := strings.TrimSpace(text); blank && len(trimmed) > 2 && trimmed == x.first {
			x.state = verbatim
			return x.held.String()
		}
	case skipping:
		if isFence && f.closes(x.fence) {
			x.state = seeking
		}
	case inside:
		switch {
		case !isFence:
		case f.closes(x.fence) && x.depth == 0:
			x.state, x.closed = finished, true
			return ""
		case f.closes(x.fence):
			x.depth--
		case f.mark == x.fence.mark && f.length >= x.fence.length && f.info != "":
			x.depth++
		}
		return line
	}
	return ""
}

func (x *extractor) flush() string {
	rest := string(x.line)
	var out string
	switch x.state {
	case verbatim:
		out = rest
	case inside:
		body := strings.TrimSpace(rest)
		half := x.whole && body != "" && strings.Trim(body, string(x.fence.mark)) == ""
		if !half {
			out = rest
		} else if f, ok := parseFence(rest); ok && f.closes(x.fence) && x.depth == 0 {
			x.closed = true
		}
	case seeking:
		x.held.WriteString(rest)
		if text := x.held.String(); looksLikeCode(text) {
			out = text
		}
	}
	x.state = finished
	x.found = x.found || strings.TrimSpace(out) != ""
	return out
}

// looksLikeCode tells an answer that is code without a fence from one that is talk: most of its lines look like code.
func looksLikeCode(text string) bool {
	code, talk := 0, 0
	for line := range strings.SplitSeq(text, "\n") {
		t := strings.TrimSpace(line)
		if t == "" {
			continue
		}
		last, words := t[len(t)-1], strings.Fields(t)
		starts, _ := firstRune(t)
		switch {
		case strings.IndexByte("{};)(]:,=\\>", last) >= 0 && !(last == ':' && len(words) > 6 && !strings.ContainsAny(t, "()[]")):
			code++
		case strings.HasPrefix(t, "#") || strings.HasPrefix(t, "//") || strings.HasPrefix(t, "/*") || strings.HasPrefix(t, "* ") || strings.HasPrefix(t, "--") || strings.HasPrefix(t, `"""`):
			code++
		case len(words) <= 3 && (t == "end" || t == "else" || t == "begin" || unicode.IsLower(starts)):
			code++
		case strings.ContainsAny(t, "=;{}") || leading(line) != "" && !strings.HasPrefix(t, "- "):
			code++
		case unicode.IsUpper(starts) || strings.HasSuffix(t, ".") || len(words) > 5:
			talk += 2
		default:
			code++
		}
	}
	return code > talk
}

func firstRune(s string) (rune, bool) {
	for _, r := range s {
		return r, true
	}
	return 0, false
}
