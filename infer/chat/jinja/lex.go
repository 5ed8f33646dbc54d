package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	tokEOF   kind = iota
	tokData       // text between tags
	tokBegin      // {%
	tokEnd        // %}
	tokOpen       // {{
	tokClose      // }}
	tokName
	tokString
	tokInt
	tokFloat
	tokOp
)

type token struct {
	kind kind
	text string // of a string: what it stands for
	line int
}

func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "the end of the template"
	case tokEnd:
		return "%}"
	case tokClose:
		return "}}"
	}
	return strconv.Quote(t.text)
}

// Error is what is wrong with a template, or with what it was given.
type Error struct {
	Line int // 0 where there is none to name
	Text string
	// Raised says that the template itself called raise_exception with Text.
	Raised bool
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Text)
}

// fail stops parsing or rendering; Parse and Render return the error.
func fail(line int, format string, args ...any) {
	panic(&Error{Line: line, Text: fmt.Sprintf(format, args...)})
}

type lexer struct {
	src  string
	pos  int
	line int
	out  []token
}

// lex cuts a template into tokens. As transformers sets jinja2 up, the first line end after a tag is dropped, and so are the blanks
// between the start of a line and a tag; one line end at the end of the template is dropped too.
func lex(src string) []token {
	src = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(src)
	src = strings.TrimSuffix(src, "\n")
	l := &lexer{src: src, line: 1}
	for l.pos < len(l.src) {
		l.data()
	}
	l.add(tokEOF, "")
	return l.out
}

func (l *lexer) add(k kind, text string) { l.out = append(l.out, token{k, text, l.line}) }

func (l *lexer) advance(to int) {
	l.line += strings.Count(l.src[l.pos:to], "\n")
	l.pos = to
}

// data reads text up to the next tag, and the tag.
func (l *lexer) data() {
	start := l.pos
	open := len(l.src)
	for i := start; i+1 < len(l.src); i++ {
		if l.src[i] == '{' && strings.IndexByte("{%#", l.src[i+1]) >= 0 {
			open = i
			break
		}
	}
	text := l.src[start:open]
	if open == len(l.src) {
		l.text(text)
		l.advance(open)
		return
	}
	what, mod := l.src[open+1], byte(0)
	if open+2 < len(l.src) && (l.src[open+2] == '-' || l.src[open+2] == '+') {
		mod = l.src[open+2]
	}
	l.text(l.before(text, start, what, mod))
	l.advance(open + 2)
	if mod != 0 {
		l.advance(l.pos + 1)
	}
	switch what {
	case '#':
		end := strings.Index(l.src[l.pos:], "#}")
		if end < 0 {
			fail(l.line, "the comment has no end")
		}
		end += l.pos
		l.advance(end + 2)
		l.after(l.src[end-1], true)
	case '%':
		if l.raw() {
			return
		}
		l.add(tokBegin, "{%")
		l.code("%}", tokEnd)
	default:
		l.add(tokOpen, "{{")
		l.code("}}", tokClose)
	}
}

// before drops white space from text that a tag follows.
func (l *lexer) before(text string, start int, what, mod byte) string {
	if mod == '-' {
		return strings.TrimRightFunc(text, isSpace)
	}
	if mod == '+' || what == '{' {
		return text
	}
	line := strings.LastIndexByte(text, '\n') + 1
	if line == 0 && start > 0 && l.src[start-1] != '\n' {
		return text // the line began before this text, with a tag
	}
	if strings.TrimFunc(text[line:], isSpace) == "" {
		return text[:line]
	}
	return text
}

// after drops white space that follows a tag whose last character before its bracket is last.
func (l *lexer) after(last byte, block bool) {
	switch {
	case last == '-':
		l.advance(len(l.src) - len(strings.TrimLeftFunc(l.src[l.pos:], isSpace)))
	case last != '+' && block && l.pos < len(l.src) && l.src[l.pos] == '\n':
		l.advance(l.pos + 1)
	}
}

func (l *lexer) text(s string) {
	if s != "" {
		l.add(tokData, s)
	}
}

// raw reads {% raw %} … {% endraw %}.
func (l *lexer) raw() bool {
	rest := strings.TrimLeftFunc(l.src[l.pos:], isSpace)
	if !strings.HasPrefix(rest, "raw") {
		return false
	}
	rest = strings.TrimLeftFunc(rest[3:], isSpace)
	last := byte(0)
	if rest != "" && (rest[0] == '-' || rest[0] == '+') {
		last, rest = rest[0], rest[1:]
	}
	if !strings.HasPrefix(rest, "%}") {
		return false
	}
	l.advance(len(l.src) - len(rest) + 2)
	l.after(last, false) // jinja2 keeps the line end here
	from := l.pos
	for at := from; ; {
		i := strings.Index(l.src[at:], "{%")
		if i < 0 {
			fail(l.line, "raw has no endraw")
		}
		i += at
		tag := strings.TrimLeft(l.src[i+2:], "-+")
		mod := byte(0)
		if i+2 < len(l.src) {
			mod = l.src[i+2]
		}
		body := strings.TrimLeftFunc(tag, isSpace)
		if !strings.HasPrefix(body, "endraw") {
			at = i + 2
			continue
		}
		body = strings.TrimLeftFunc(body[len("endraw"):], isSpace)
		last := byte(0)
		if body != "" && (body[0] == '-' || body[0] == '+') {
			last, body = body[0], body[1:]
		}
		if !strings.HasPrefix(body, "%}") {
			fail(l.line, "endraw: expected %%}")
		}
		l.text(l.before(l.src[from:i], from, '%', mod))
		l.advance(len(l.src) - len(body) + 2)
		l.after(last, true)
		return true
	}
}

var operators = []string{"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|", ";"}

// code reads tokens up to the closing bracket.
func (l *lexer) code(end string, k kind) {
	depth := 0
	for {
		rest := strings.TrimLeftFunc(l.src[l.pos:], isSpace)
		l.advance(len(l.src) - len(rest))
		if rest == "" {
			fail(l.line, "the tag has no end, expected %s", end)
		}
		if depth == 0 {
			mod := byte(0)
			body := rest
			if (rest[0] == '-' || rest[0] == '+' && end == "%}") && strings.HasPrefix(rest[1:], end) {
				mod, body = rest[0], rest[1:]
			}
			if strings.HasPrefix(body, end) {
				l.add(k, end)
				l.advance(len(l.src) - len(body) + 2)
				l.after(mod, k == tokEnd)
				return
			}
		}
		r, _ := utf8.DecodeRuneInString(rest)
		switch {
		case r == '"' || r == '\'':
			l.string(rest)
		case r == '_' || unicode.IsLetter(r):
			n := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if n < 0 {
				n = len(rest)
			}
			l.add(tokName, rest[:n])
			l.advance(l.pos + n)
		case r >= '0' && r <= '9':
			l.number(rest)
		default:
			l.operator(rest, &depth)
		}
	}
}

func (l *lexer) operator(rest string, depth *int) {
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			switch op {
			case "(", "[", "{":
				*depth++
			case ")", "]", "}":
				*depth--
			}
			l.add(tokOp, op)
			l.advance(l.pos + len(op))
			return
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	fail(l.line, "found %q in a tag", r)
}

func (l *lexer) number(rest string) {
	n, k := 0, tokInt
	digits := func() {
		for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n] == '_') {
			n++
		}
	}
	digits()
	if n+1 < len(rest) && rest[n] == '.' && rest[n+1] >= '0' && rest[n+1] <= '9' {
		k = tokFloat
		n++
		digits()
	}
	if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		m := n
		n++
		if n < len(rest) && (rest[n] == '+' || rest[n] == '-') {
			n++
		}
		if n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			k = tokFloat
			digits()
		} else {
			n = m
		}
	}
	l.add(k, strings.ReplaceAll(rest[:n], "_", ""))
	l.advance(l.pos + n)
}

// string reads a literal with Python's escapes.
func (l *lexer) string(rest string) {
	var b strings.Builder
	i := 1
	for ; i < len(rest) && rest[i] != rest[0]; i++ {
		if rest[i] != '\\' || i+1 == len(rest) {
			b.WriteByte(rest[i])
			continue
		}
		i++
		switch c := rest[i]; c {
		case '\n':
		case '\\', '\'', '"':
			b.WriteByte(c)
		case 'x', 'u', 'U':
			n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			if i+n >= len(rest) {
				fail(l.line, "the escape \\%c is cut short", c)
			}
			v, err := strconv.ParseUint(rest[i+1:i+1+n], 16, 32)
			if err != nil {
				fail(l.line, "found the escape \\%c%s, expected %d hexadecimal digits", c, rest[i+1:i+1+n], n)
			}
			b.WriteRune(rune(v))
			i += n
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v, n := rune(0), 0
			for n < 3 && i+n < len(rest) && rest[i+n] >= '0' && rest[i+n] <= '7' {
				v = v*8 + rune(rest[i+n]-'0')
				n++
			}
			b.WriteRune(v)
			i += n - 1
		default:
			if j := strings.IndexByte("abfnrtv", c); j >= 0 {
				b.WriteByte("\a\b\f\n\r\t\v"[j])
			} else {
				b.WriteByte('\\')
				b.WriteByte(c)
			}
		}
	}
	if i >= len(rest) {
		fail(l.line, "the string has no end")
	}
	l.add(tokString, b.String())
	l.advance(l.pos + i + 1)
}
