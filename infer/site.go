package infer

import (
	"slices"
	"strings"
)

// site is the place where a completion is inserted.
type site struct {
	lang *language
	head string // the cursor's line before it
	rest string // and after it
	lex  *lexer // at the beginning of the cursor's line
	// prev is the last line before the cursor's that is not blank.
	prev struct {
		indent int
		level  int // brackets that are open around what it opens
		opens  bool
		word   string
	}
	next  string // the first line after the cursor's that is not blank
	after string // the text after the cursor, blank lines left out at its beginning when nothing follows in the cursor's line
	// The completion has to leave this many of the brackets before it open: the text after it closes them.
	floor int
	// restCloses says that the rest of the cursor's line closes brackets from before the cursor.
	restCloses bool
}

// lookBack and lookAhead bound the text that is read around the cursor, in bytes.
const lookBack, lookAhead = 1 << 16, 1 << 14

func newSite(p Prompt) *site {
	s := &site{lang: languageOf(p.Filename)}
	before, after := p.Prefix, p.Suffix
	if n := len(before) - lookBack; n > 0 {
		before = before[n:]
		before = before[strings.IndexByte(before, '\n')+1:]
	}
	after = after[:min(len(after), lookAhead)]
	s.head, s.rest, s.after = lastLine(before), firstLine(after), after
	if blank(s.rest) {
		_, s.after, _ = strings.Cut(after, "\n")
		for s.after != "" && blank(firstLine(s.after)) {
			_, s.after, _ = strings.Cut(s.after, "\n")
		}
		s.next = firstLine(s.after)
	} else {
		_, more, _ := strings.Cut(after, "\n")
		for more != "" && blank(firstLine(more)) {
			_, more, _ = strings.Cut(more, "\n")
		}
		s.next = firstLine(more)
	}
	s.lex = &lexer{lang: s.lang}
	for lines := before[:len(before)-len(s.head)]; lines != ""; {
		line, more, _ := strings.Cut(lines, "\n")
		lines = more
		code := s.lex.until == ""
		scan := s.lex.line(line, nil)
		if scan.code == "" {
			continue // blank, or a comment
		}
		s.prev.indent, _ = indentation(line)
		s.prev.level, s.prev.word = scan.lowest, firstWord(scan.code)
		s.prev.opens = (code || s.lex.until == "") && s.opens(s.lex, scan)
	}
	s.floor = s.closed(after)
	return s
}

// closed returns how many of the brackets that are open at the cursor the text after it closes, with those around them; 0 when that is
// not clear.
func (s *site) closed(after string) int {
	cursor := s.lex.clone()
	cursor.line(s.head, nil)
	open := cursor.stack
	inLine := 0 // that the rest of the cursor's line closes
	s.lex.clone().line(s.head+s.rest, func(i, depth int) bool {
		if i >= len(s.head) {
			inLine = max(inLine, len(open)-depth)
		}
		return depth < 0
	})
	s.restCloses = inLine > 0
	outer, known := s.closedBelow(open, after)
	switch {
	case inLine == 0:
		return outer
	case !known:
		outer = min(len(open), len(s.lex.stack))
	}
	// Of the brackets within those, the rest of the line closes the outer ones.
	return max(0, len(open)-max(0, len(open)-outer-inLine))
}

// closedBelow is closed for the lines below the cursor's.
func (s *site) closedBelow(open []bracket, after string) (n int, known bool) {
	_, lines, ok := strings.Cut(after, "\n")
	x := &lexer{lang: s.lang}
	for ok && len(x.shut) == 0 {
		var line string
		line, lines, ok = strings.Cut(lines, "\n")
		x.line(line, nil)
	}
	if len(x.shut) == 0 {
		return 0, false
	}
	// The bracket that this closes was opened in a line of that indentation.
	first := x.shut[0]
	for i, b := range slices.Backward(open) {
		if b.close == first.close && b.indent == first.indent {
			return i + 1, true
		}
	}
	if indent, n := indentation(s.head); n < len(s.head) && first.indent >= indent {
		return 0, false // or in one that is not written yet
	}
	x.read(lines)
	return min(len(open), len(x.shut)), true
}

// auto says what AutoLines means here.
func (s *site) auto() Lines {
	switch {
	case !blank(s.rest):
		return OneLine
	case blank(s.head):
		return Block
	}
	x := s.lex.clone()
	if scan := x.line(s.head, nil); s.opens(x, scan) {
		return Block
	}
	return OneLine
}

// opens says whether the line that was just read by x opens a block.
func (s *site) opens(x *lexer, scan lineScan) bool {
	if len(x.stack) > scan.lowest {
		return true
	}
	code := scan.code
	switch s.lang.style {
	case indented:
		return strings.HasSuffix(code, ":")
	case ended:
		return s.opensWords(code)
	case anyStyle:
		return strings.HasSuffix(code, ":") || s.opensWords(code)
	}
	return false
}

// opensWords is opens for languages that do it with words.
func (s *site) opensWords(code string) bool {
	words := strings.FieldsFunc(code, func(r rune) bool { return !isWord(r) })
	if len(words) == 0 {
		return false
	}
	for _, w := range s.lang.closes {
		if words[len(words)-1] == w {
			return false
		}
	}
	for _, w := range s.lang.doing {
		if words[len(words)-1] == w || strings.HasSuffix(code, "|") && strings.Contains(code, " "+w+" |") {
			return true
		}
	}
	for _, w := range s.lang.opens {
		if code == w || strings.HasPrefix(code, w) && !isWord(rune(code[len(w)])) {
			return true
		}
	}
	return false
}

func isWord(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
}

// firstWord returns the letters and digits that s begins with.
func firstWord(s string) string {
	for i, r := range s {
		if !isWord(r) {
			return s[:i]
		}
	}
	return s
}
