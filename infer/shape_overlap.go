package infer

import (
	"strings"
	"unicode"
)

// overlapStage ends a text where it goes on with what follows the cursor already, and leaves out an end that repeats it:
//
//   - a bracket that is closed once more than the text around the cursor leaves it open, when the same bracket comes next there;
//   - the rest of the cursor's line;
//   - lines that come next there, any at the end of the text, long ones or several in it;
//   - a word such as "end" that closes what was opened before the cursor;
//   - blank lines at the end.
//
// White space at the ends of lines and blank lines make no difference.
type overlapStage struct {
	growing
	site  *site
	lex   *lexer   // before the line that is looked at
	rest  string   // of the cursor's line, without surrounding space
	next  []string // lines that come next, but for blank ones
	first byte     // the first character that comes next
	fresh bool     // a newline follows the cursor
	line  int      // where the line begins that is looked at
	keep  int      // the end of the last line that is not blank
	runs  []run
	inner bool // a line of the text, behind the cursor's, is indented as little as the next one: it may have opened what that closes
}

// run are lines that equal those that come next.
type run struct {
	keep    int // the end of the text before them
	lines   int
	visible int // characters in them that are no space
	letters int
}

// add counts a line.
func (r *run) add(line string) {
	for _, c := range line {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			r.letters++
		}
		if !unicode.IsSpace(c) {
			r.visible++
		}
	}
	r.lines++
}

// sure says that lines in the middle of a text are no coincidence.
func (r *run) sure() bool { return r.visible >= 40 || r.lines >= 3 && r.visible >= 24 }

// likely says that lines at the end of a text are none.
func (r *run) likely() bool { return r.letters >= 4 }

func newOverlapStage(s *site) *overlapStage {
	g := &overlapStage{site: s, lex: s.lex.clone(), rest: strings.TrimSpace(s.rest), fresh: blank(s.rest)}
	if g.fresh {
		for _, line := range strings.Split(s.after, "\n") {
			if line = strings.TrimRight(line, " \t\r"); line != "" {
				g.next = append(g.next, line)
			}
		}
	}
	if begin := strings.TrimSpace(g.rest + s.next); begin != "" {
		g.first = begin[0]
	}
	return g
}

func (g *overlapStage) push(piece string) (string, bool) {
	g.text += piece
	for {
		line := g.text[g.line:]
		end := strings.IndexByte(line, '\n')
		if end < 0 {
			break
		}
		if at, cut := g.take(line[:end]); cut {
			return g.show(at), true
		}
		g.line += end + 1
	}
	line := g.text[g.line:]
	hold := g.hold(line)
	if at, cut := g.bracket(nil, line); cut {
		hold = min(hold, at) // unless the end of the line makes it a part of a string
	}
	return g.show(hold), false
}

func (g *overlapStage) flush() (string, bool) {
	line := g.text[g.line:]
	at, cut := len(g.text), false
	if k, ok := g.bracket(nil, line); ok {
		return g.show(k), true
	}
	if g.fresh && strings.TrimSpace(g.text) != "" {
		if blank(line) {
			at = g.keep
		}
		for _, r := range g.matching(line) {
			whole := r
			if !blank(line) {
				if !g.same(g.whole(line), g.next[r.lines]) && r.lines == 0 && len(strings.TrimSpace(line)) < 12 {
					continue
				}
				whole.add(line)
			}
			if whole.lines > 0 && whole.likely() && r.keep < at {
				at, cut = r.keep, true
			}
		}
		if _, ended := g.closesBlock(line); ended {
			at, cut = g.keep, true
		}
	} else if k, ok := g.repeatsRest(line); ok {
		at, cut = g.line+k, true
	}
	return g.show(at), cut
}

// whole returns a line of the text as it stands in the file.
func (g *overlapStage) whole(line string) string {
	if g.line == 0 {
		return g.site.head + line
	}
	return line
}

// take reads a complete line, and returns where the text has ended if it has.
func (g *overlapStage) take(line string) (at int, cut bool) {
	end := g.line + len(strings.TrimRight(line, "\r"))
	line = strings.TrimRight(line, " \t\r")
	if at, cut := g.bracket(g.lex, line); cut {
		return at, true
	}
	if !g.fresh {
		if k, ok := g.repeatsRest(line); ok && g.line == 0 {
			return k, true
		}
		g.keep = end
		return 0, false
	}
	if line == "" {
		return 0, false
	}
	if at, cut := g.closesBlock(line); cut {
		return at, true
	}
	runs := g.matching(line)
	g.runs = g.runs[:0]
	for _, r := range runs {
		if !g.same(g.whole(line), g.next[r.lines]) {
			continue
		}
		r.add(line)
		if r.sure() {
			return r.keep, true
		}
		g.runs = append(g.runs, r)
	}
	if g.begun() && len(g.next) > 0 {
		mine, _ := indentation(g.whole(line))
		theirs, _ := indentation(g.next[0])
		g.inner = g.inner || mine <= theirs
	}
	g.keep = end
	return 0, false
}

// begun says whether the line that is looked at begins in the text, and not before the cursor.
func (g *overlapStage) begun() bool { return g.line > 0 || blank(g.site.head) }

// matching returns the runs that a line, as far as it has come, may continue or begin.
func (g *overlapStage) matching(line string) []run {
	var out []run
	for _, r := range g.runs {
		next := ""
		if r.lines < len(g.next) {
			next = strings.TrimLeft(g.next[r.lines], " \t")
		}
		if strings.HasPrefix(next, strings.Trim(line, " \t\r")) {
			out = append(out, r)
		}
	}
	if g.begun() && len(g.next) > 0 && strings.HasPrefix(strings.TrimLeft(g.next[0], " \t"), strings.TrimSpace(g.whole(line))) {
		out = append(out, run{keep: g.keep})
	}
	return out
}

// same compares lines, long ones without their indentation.
func (g *overlapStage) same(a, b string) bool {
	a = strings.TrimRight(a, " \t\r")
	if x := strings.TrimLeft(a, " \t"); len(x) >= 12 {
		return x == strings.TrimLeft(b, " \t")
	}
	return a == b
}

// closesBlock says whether a line is the word that comes next and closes a block which was opened before the cursor.
func (g *overlapStage) closesBlock(line string) (at int, cut bool) {
	if g.inner || !g.begun() || len(g.next) == 0 || g.site.lang.style == braced || g.site.lang.style == indented {
		return 0, false
	}
	whole := strings.TrimRight(g.whole(line), " \t\r")
	for _, word := range g.site.lang.closes {
		if whole == g.next[0] && strings.TrimLeft(whole, " \t") == word {
			return g.keep, true
		}
	}
	return 0, false
}

// bracket finds a bracket in a line that comes next as well and closes what the text after the cursor closes. x, unless it is nil, reads the
// line for good.
func (g *overlapStage) bracket(x *lexer, line string) (at int, cut bool) {
	if strings.IndexByte(line, g.first) < 0 || strings.IndexByte(")]}", g.first) < 0 {
		if x != nil {
			x.line(g.whole(line), nil)
		}
		return 0, false
	}
	if x == nil {
		x = g.lex.clone()
	}
	whole := g.whole(line)
	from := len(whole) - len(line)
	at = -1
	x.line(whole, func(i, depth int) bool {
		if i >= from && depth < g.site.floor && whole[i] == g.first {
			at = i - from
		}
		return at >= 0
	})
	if at < 0 {
		return 0, false
	}
	if g.fresh && blank(whole[:from+at]) {
		return g.keep, true // the bracket begins a line: that is left out
	}
	return g.line + at, true
}

// repeatsRest finds the rest of the cursor's line at the end of a line, but for a semicolon or comma, and says where. Brackets that
// the line needs are its own.
func (g *overlapStage) repeatsRest(line string) (int, bool) {
	if g.rest == "" {
		return 0, false
	}
	line = strings.TrimRight(line, " \t\r")
	bare := line
	if !strings.HasSuffix(line, g.rest) {
		bare = strings.TrimRight(line, ";,")
	}
	before, ok := strings.CutSuffix(bare, g.rest)
	if !ok || !g.telling() || len(g.rest) < 8 && before != "" && isWord(rune(g.rest[0])) && isWord(rune(before[len(before)-1])) {
		return 0, false
	}
	if g.site.restCloses {
		whole := g.whole(bare)
		closes := false
		g.lex.clone().line(whole, func(i, depth int) bool {
			closes = closes || i >= len(whole)-len(bare) && depth < g.site.floor
			return false
		})
		if !closes {
			return 0, false // the rest closes what the line leaves open
		}
	}
	return len(strings.TrimRight(before, " \t")), true
}

// telling says that a line which ends like the rest of the cursor's repeats that: the rest is words, or closes something.
func (g *overlapStage) telling() bool {
	if q := g.rest[0]; strings.IndexByte("\"'`", q) >= 0 && strings.Count(g.site.head, string(q))%2 == 0 {
		return false // a quote that nothing before the cursor has opened
	}
	if strings.Trim(g.rest, ")]}({[\"'`;,:. \t") == "" {
		return true
	}
	return len(g.rest) >= 3 && strings.ContainsFunc(g.rest, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}

// hold returns how much of the text can be shown, whatever comes.
func (g *overlapStage) hold(line string) int {
	if !g.fresh {
		trimmed := strings.TrimRight(line, " \t\r;,")
		for k := range len(trimmed) {
			if tail := trimmed[k:]; strings.HasPrefix(g.rest, tail) || tail == g.rest {
				return g.line + len(strings.TrimRight(line[:k], " \t"))
			}
		}
		return g.line + len(strings.TrimRight(line, " \t\r;,"))
	}
	at := len(strings.TrimRight(g.text, "\r"))
	if blank(line) {
		at = g.keep
	}
	for _, r := range g.matching(line) {
		at = min(at, r.keep)
	}
	return at
}
