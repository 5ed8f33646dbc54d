package infer

import (
	"strconv"
	"strings"
)

// CodeOnly returns the lines of text that hold code, without comments, documentation strings and indentation; where indentation has meaning, each
// begins with the depth of its block. Two texts with the same result differ in their documentation alone. ok is false where that cannot be told: the
// language, which filename names by its ending, is not known or documents in other ways than by comments and strings.
func CodeOnly(filename, text string) (code string, ok bool) {
	lang := languageOf(filename)
	switch lang {
	case anyLanguage, elixir, perl, lisp, markup, tex:
		return "", false
	}
	var b strings.Builder
	x := &lexer{lang: lang}
	var blocks []int // indentations of the blocks that are open
	document := false
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		within, depth := x.until != "", len(x.stack)
		note := x.note
		code := x.line(line, nil).code
		if (lang == python || lang == julia) && depth == 0 && !within {
			document = isString(code)
		}
		if document {
			document = x.until != ""
			continue
		}
		if within && !note {
			b.WriteString("\n" + line) // a string's lines are its content
			continue
		}
		if code == "" {
			continue
		}
		b.WriteByte('\n')
		if lang.style == indented && depth == 0 && !within {
			width, _ := indentation(line)
			for len(blocks) > 0 && blocks[len(blocks)-1] > width {
				blocks = blocks[:len(blocks)-1]
			}
			if len(blocks) == 0 || blocks[len(blocks)-1] < width {
				blocks = append(blocks, width)
			}
			b.WriteString(strconv.Itoa(len(blocks)) + " ")
		}
		b.WriteString(strings.Join(strings.Fields(code), " "))
	}
	return b.String(), true
}

// isString says whether a line of code is a string, or the beginning of one, and nothing else.
func isString(code string) bool {
	code = strings.TrimLeft(code, "rRuU")
	if code == "" || code[0] != '"' && code[0] != '\'' {
		return false
	}
	for _, triple := range []string{`"""`, `'''`} {
		if rest, ok := strings.CutPrefix(code, triple); ok {
			end := closing(rest, triple, false)
			return end < 0 || end == len(rest)
		}
	}
	return closing(code[1:], code[:1], false) == len(code)-1
}
