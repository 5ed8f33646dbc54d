package infer

import (
	"slices"
	"strings"
)

// lexer follows brackets, strings and comments through a text, as far as that can be told without a grammar. It reads whole
// lines; a string or comment that goes on is remembered.
type lexer struct {
	lang  *language
	stack []bracket // brackets that are open
	until string    // what ends the string or comment that goes on; "" in code
	raw   bool      // in a string without escapes, or a comment
	note  bool      // in a comment
	nests byte      // what opens the string's bracket once more; 0: nothing does
	depth int       // how often it has
	shut  []bracket // brackets that were closed and had not been opened
}

// bracket is an open one, or one that closes.
type bracket struct {
	close  byte
	indent int // of the line where it stands; −1 when another than the first character of that line closes it
}

// clone returns a lexer in the same state.
func (x *lexer) clone() *lexer {
	c := *x
	c.stack, c.shut = slices.Clone(x.stack), slices.Clone(x.shut)
	return &c
}

// lineScan is what a line did.
type lineScan struct {
	lowest int    // brackets that stayed open throughout
	code   string // the line without comments and surrounding space; strings are kept
}

// line reads a line, without its end. stop, which may be nil, is asked about a closing bracket at i that leaves depth brackets open, −1
// when it closes none; where it says true, reading ends.
func (x *lexer) line(s string, stop func(i, depth int) bool) (out lineScan) {
	out = lineScan{lowest: len(x.stack)}
	indent, first := indentation(s)
	var code strings.Builder
	defer func() { out.code = strings.TrimSpace(code.String()) }()
	for i := 0; i < len(s); {
		if x.until != "" {
			note := x.note
			n := x.skip(s[i:])
			if !note {
				code.WriteString(s[i : i+n])
			}
			i += n
			continue
		}
		b := s[i]
		if b >= 'a' && b <= 'z' || b == ' ' {
			code.WriteByte(b)
			i++
			continue
		}
		if n, ok := x.open(s[i:], code.String()); ok {
			if n == 0 {
				break // a comment to the end of the line
			}
			if !x.note {
				code.WriteString(s[i : i+n])
			}
			i += n
			continue
		}
		switch b {
		case '(':
			x.stack = append(x.stack, bracket{')', indent})
		case '[':
			x.stack = append(x.stack, bracket{']', indent})
		case '{':
			x.stack = append(x.stack, bracket{'}', indent})
		case ')', ']', '}':
			depth, ok := x.closes(b)
			if !ok {
				break
			}
			if stop != nil && stop(i, depth) {
				return out
			}
			if depth < 0 {
				if i != first {
					indent = -1
				}
				x.shut = append(x.shut, bracket{b, indent})
				break
			}
			// What follows belongs to the statement that began there.
			indent = min(indent, x.stack[depth].indent)
			x.stack = x.stack[:depth]
			out.lowest = min(out.lowest, depth)
		}
		code.WriteByte(b)
		i++
	}
	return out
}

// closes returns how many brackets are left open by a closing one, −1 when none was open. ok is false when it matches none of those that
// are: one of them has not been read aright.
func (x *lexer) closes(b byte) (depth int, ok bool) {
	last := len(x.stack) - 1
	if last < 0 || x.stack[last].close == b {
		return last, true
	}
	// What is between braces has ended with them, whatever it was.
	for depth = last; depth >= 0 && b == '}'; depth-- {
		if x.stack[depth].close == b {
			return depth, true
		}
	}
	return 0, false
}

// open recognises the beginning of a comment or string behind the code before it in its line, and returns its length when it goes on, the length of all of it when it ends
// in the line, and 0 for a comment that the line ends.
func (x *lexer) open(s, before string) (n int, ok bool) {
	l := x.lang
	if b := l.block; b[0] != "" && strings.HasPrefix(s, b[0]) {
		x.until, x.raw, x.note = b[1], true, true
		return len(b[0]), true
	}
	if l.comment != "" && strings.HasPrefix(s, l.comment) || l == anyLanguage && (strings.HasPrefix(s, "//") || strings.HasPrefix(s, "# ")) {
		return 0, true
	}
	if n := x.literal(s, before); n > 0 {
		return n, true
	}
	for _, q := range l.quotes {
		if !strings.HasPrefix(s, q.open) {
			continue
		}
		if q.lines {
			x.until, x.raw, x.note = q.close, q.raw, false
			return len(q.open), true
		}
		rest := s[len(q.open):]
		if q.char {
			rest = rest[:min(len(rest), len(`\U0010ffff'`))]
		}
		end := closing(rest, q.close, q.raw)
		switch {
		case q.char && end < 0:
			return len(q.open), true
		case end < 0:
			return len(s), true // not ended: it ends with the line
		}
		return len(q.open) + end, true
	}
	return 0, false
}

// maxExpression bounds how far the end of a regular expression is looked for.
const maxExpression = 512

// literal returns the length of a regular expression between slashes, or of Ruby's literals with a percent sign, 0 when there is none.
func (x *lexer) literal(s, before string) int {
	if !x.lang.slashed || s[0] != '/' && s[0] != '%' || len(s) < 2 {
		return 0
	}
	before = strings.TrimRight(before, " \t")
	if before != "" && strings.IndexByte("(,=:[!&|?{};+<>~", before[len(before)-1]) < 0 {
		word := before[strings.LastIndexFunc(before, func(r rune) bool { return !isWord(r) })+1:]
		if word == "" || s[1] == ' ' || x.lang != ruby && word != "return" && word != "typeof" && word != "case" {
			return 0
		}
	}
	if s[0] == '/' {
		class := false
		for i := 1; i < min(len(s), maxExpression); i++ {
			switch {
			case s[i] == '\\':
				i++
			case s[i] == '[':
				class = true
			case s[i] == ']':
				class = false
			case s[i] == '/' && !class:
				return i + 1
			}
		}
		return 0
	}
	if x.lang != ruby {
		return 0
	}
	kind := strings.TrimLeft(s[1:], "qQrwWiIxs")
	pairs := "(){}[]<>//||!!"
	if len(s)-len(kind) > 2 || kind == "" || strings.IndexByte(pairs, kind[0]) < 0 {
		return 0
	}
	end := pairs[strings.IndexByte(pairs, kind[0])+1]
	x.until, x.raw, x.note, x.nests, x.depth = string(end), false, false, 0, 0
	if end != kind[0] {
		x.nests = kind[0]
	}
	return len(s) - len(kind) + 1
}

// skip returns how much of s belongs to the string or comment that goes on.
func (x *lexer) skip(s string) int {
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], x.until):
			if x.depth > 0 {
				x.depth--
				continue
			}
			i += len(x.until)
			x.until, x.note, x.nests = "", false, 0
			return i
		case s[i] == '\\' && !x.raw:
			i++
		case s[i] == x.nests && x.nests != 0:
			x.depth++
		}
	}
	return len(s)
}

// closing returns the index behind end, −1 when it is not there.
func closing(s, end string, raw bool) int {
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], end):
			return i + len(end)
		case s[i] == '\\' && !raw:
			i++
		}
	}
	return -1
}

// read reads all whole lines of text and returns what is behind the last newline.
func (x *lexer) read(text string) (rest string) {
	for {
		line, after, ok := strings.Cut(text, "\n")
		if !ok {
			return text
		}
		x.line(line, nil)
		text = after
	}
}

// indentation returns the width of the white space that s begins with, tabs reaching to their stops, and its length.
func indentation(s string) (width, n int) {
	for n < len(s) {
		switch s[n] {
		case ' ':
			width++
		case '\t':
			width = (width/tabStop + 1) * tabStop
		default:
			return width, n
		}
		n++
	}
	return width, n
}

const tabStop = 8

// blank says whether s is nothing but spaces, tabs and a carriage return.
func blank(s string) bool { return strings.Trim(s, " \t\r") == "" }

// lastLine returns what stands behind the last newline of s.
func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// firstLine returns what stands before the first newline of s.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
