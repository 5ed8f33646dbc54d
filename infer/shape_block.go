package infer

import (
	"slices"
	"strings"
)

// blockStage ends a text behind the statement that it begins with, or that the cursor's line begins, and the block of that; in a new
// block's first line, behind the block. Lines belong to it that are indented by more than its first one, that stand in brackets which it
// opened, that close it, and that go on with it, such as "else". What ends it is left out.
type blockStage struct {
	growing
	site *site
	lex  *lexer // before the line that is looked at
	line int    // where that begins
	keep int    // the end of the last line that belongs

	started bool
	base    int    // lines that are indented by more belong
	level   int    // brackets that are open around the statement
	word    string // its first one
	opened  bool   // it has opened a block
	outer   bool   // what opened it stands before the cursor
	leads   bool   // only comments and annotations so far, which belong to what follows
	gap     bool   // blank lines since
	least   int    // indentation of a statement that may begin in a later line
}

// verdict is what is known of a line.
type verdict uint8

const (
	unknown verdict = iota // more of it has to come
	belongs
	ends // the block has ended before it
	last // it belongs, and nothing after it
)

func (g *blockStage) push(piece string) (string, bool) {
	g.text += piece
	for {
		line := g.text[g.line:]
		end := strings.IndexByte(line, '\n')
		if end >= 0 {
			line = line[:end]
		}
		line = strings.TrimSuffix(line, "\r")
		whole := line
		if g.line == 0 {
			whole = g.site.head + line
		}
		v := g.judge(whole, end >= 0)
		switch {
		case v == ends:
			return g.show(g.keep), true
		case v == belongs || v == last:
			g.keep = g.line + len(line)
		}
		if end < 0 {
			return g.show(g.keep), false
		}
		if v = g.take(whole, v); v == last {
			return g.show(g.keep), true
		}
		g.line += end + 1
	}
}

func (g *blockStage) flush() (string, bool) {
	line := g.text[g.line:]
	whole := line
	if g.line == 0 {
		whole = g.site.head + line
	}
	if v := g.judge(whole, true); v == belongs || v == last {
		g.keep = len(g.text)
	}
	return g.show(g.keep), strings.TrimSpace(g.text[g.keep:]) != ""
}

// judge says whether a line belongs, complete or as far as it has come.
func (g *blockStage) judge(line string, complete bool) verdict {
	indent, n := indentation(line)
	switch {
	case g.line == 0 && !blank(g.site.head):
		return belongs // what is left of the cursor's line
	case n == len(line) || complete && blank(line):
		return unknown
	case !g.started:
		if indent < g.least {
			return ends
		}
		return g.begin(line, indent, complete)
	}
	return g.inside(line, indent, complete)
}

// begin looks at the first line that is not blank, of a statement or of a new block.
func (g *blockStage) begin(line string, indent int, complete bool) verdict {
	if !g.body(indent) {
		code := strings.TrimLeft(line, " \t")
		switch word := firstWord(code); {
		case g.closesOuter(code[0]):
			return ends
		case len(word) == len(code) && !complete:
			return unknown // it may become another
		case g.there(indent) && slices.Contains(g.site.lang.closes, word):
			return ends
		}
		return belongs
	}
	g.enter(indent)
	v := g.inside(line, indent, complete)
	if v == unknown {
		g.started = false // it is entered again when there is more of the line
	}
	return v
}

// body says whether a line that is indented by so much begins a new block, which the text after the cursor does not go on with.
func (g *blockStage) body(indent int) bool {
	s := g.site
	if !blank(s.head) || !s.prev.opens || indent <= s.prev.indent && len(g.lex.stack) <= s.prev.level {
		return false
	}
	next, n := indentation(s.next)
	return n == len(s.next) || next < indent || next == indent && strings.IndexByte(")]}", s.next[n]) >= 0
}

// enter starts with the block that the line before the cursor opened.
func (g *blockStage) enter(indent int) {
	p := g.site.prev
	g.started, g.opened, g.outer = true, true, true
	g.base, g.level, g.word = indent-1, p.level, p.word
	if p.indent < indent {
		g.base = p.indent
	}
}

// inside judges a line after the first.
func (g *blockStage) inside(line string, indent int, complete bool) verdict {
	code := strings.TrimLeft(line, " \t")
	if g.site.lang.style == ended && indent <= g.base {
		bare := strings.TrimRight(code, " \t\r")
		for _, word := range g.site.lang.closes {
			switch {
			case complete && bare == word:
				// A bracket that seems to be open was not read aright.
				g.lex.until, g.lex.stack = "", g.lex.stack[:min(g.level, len(g.lex.stack))]
			case !complete && strings.HasPrefix(word, bare):
				return unknown
			}
		}
	}
	if g.closesOuter(code[0]) {
		return ends
	}
	if g.lex.until != "" || len(g.lex.stack) > g.level {
		return belongs
	}
	switch {
	case indent > g.base:
		return belongs
	case indent < g.base || g.leads && g.gap:
		return ends
	case g.leads:
		return belongs
	case code[0] == '{' && g.site.lang.style == braced && !g.opened:
		return belongs
	}
	word := firstWord(code)
	if len(word) == len(code) && !complete {
		return unknown // it may become another
	}
	lang := g.site.lang
	switch {
	case !g.opened || g.outer && g.there(indent):
		return ends
	case slices.Contains(lang.closes, word):
		return last
	case slices.Contains(lang.follow, word):
		return belongs
	}
	return ends
}

// closesOuter says whether a line that begins with b closes a bracket that the text after the cursor closes, or that the statement did not
// open.
func (g *blockStage) closesOuter(b byte) bool {
	if g.lex.until != "" || strings.IndexByte(")]}", b) < 0 {
		return false
	}
	depth, ok := g.lex.closes(b)
	return ok && (depth < g.site.floor || g.started && depth < g.level)
}

// there says whether what closes or goes on with a block of that indentation follows the cursor.
func (g *blockStage) there(indent int) bool {
	width, n := indentation(g.site.next)
	word := firstWord(g.site.next[n:])
	return width == indent && (slices.Contains(g.site.lang.closes, word) || slices.Contains(g.site.lang.follow, word))
}

// take reads a complete line that was judged so, and returns last when nothing can follow it.
func (g *blockStage) take(line string, v verdict) verdict {
	if v == unknown {
		g.gap = g.line > 0 || blank(g.site.head)
		g.lex.line(line, nil)
		return unknown
	}
	over := false
	scan := g.lex.line(line, func(_, depth int) bool {
		over = over || depth < g.site.floor && g.site.lang.style != ended
		return over
	})
	if over || v == last {
		return last
	}
	g.gap = false
	indent, _ := indentation(line)
	opens := g.site.opens(g.lex, scan)
	switch {
	case !g.started && g.line == 0 && !opens && !blank(g.site.head) && g.text[:strings.IndexByte(g.text, '\n')] == "" && scan.code != "" && g.finished(scan.code):
		// The cursor stood behind a statement: what comes is another.
		g.least = indent
		return belongs
	case !g.started || g.leads && indent <= g.base:
		g.started, g.base, g.level, g.word = true, indent, scan.lowest, firstWord(scan.code)
		g.outer = g.line == 0 && opens && !blank(g.site.head)
		g.leads = g.lex.until == "" && !opens && leading(scan.code, g.site.lang) || g.lex.until != "" && g.lex.note
	case g.leads:
		g.leads = g.lex.until != "" && g.lex.note || scan.code == ""
	}
	g.opened = g.opened || opens
	if g.leads || g.lex.until != "" || len(g.lex.stack) > g.level {
		return belongs
	}
	return g.complete(scan.code, opens)
}

// leading says whether a line is a comment or an annotation of what follows.
func leading(code string, l *language) bool {
	switch {
	case code == "", strings.HasPrefix(code, "#["), l == python && code[0] == '@':
		return true
	case code[0] == '@':
		word := firstWord(code[1:])
		rest := strings.TrimLeft(code[1+len(word):], ".abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
		return rest == "" || rest[0] == '(' && rest[len(rest)-1] == ')'
	}
	return false
}

// complete says whether nothing can follow a line after which no bracket is open.
func (g *blockStage) complete(code string, opens bool) verdict {
	goesOn := g.word == "" || slices.Contains([]string{"if", "else", "try", "do", "catch", "for", "while", "begin", "switch", "match"}, g.word) || slices.Contains(g.site.lang.follow, g.word)
	switch style := g.site.lang.style; {
	case style == braced && g.opened:
		if !opens && strings.HasSuffix(strings.TrimRight(code, ";,)"), "}") && !goesOn {
			return last
		}
	case g.opened || opens:
	case style == braced && strings.HasSuffix(code, ";"), g.site.lang.newline && g.finished(code):
		if !goesOn {
			return last
		}
	}
	return belongs
}

// finished says whether a line without open brackets is a whole statement, as far as its end tells.
func (g *blockStage) finished(code string) bool {
	return code != "" && !strings.ContainsRune(`+-*/%&|^=<>,.([{\:!~?`, rune(code[len(code)-1]))
}
