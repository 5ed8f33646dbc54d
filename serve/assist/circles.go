package assist

import (
	"strings"
	"unicode"
)

// circles finds code that goes round in circles, as small models' does: the same lines, up to circleLines of them, or within a line the same
// characters, again and again. Code repeats itself on purpose, in tables and tests, so the bounds are far above those for prose, and what the
// selection repeats may stay.
type circles struct {
	line    []byte                  // the current one
	lines   []string                // the last ones, in a ring
	count   int                     // of all complete lines
	rows    [circleLines + 1]circle // [p]: the last lines that equal those p lines before
	columns [circleColumns + 1]int  // [q]: how many of the line's last bytes equal those q bytes before
	most    struct{ lines, text, bytes int }
	usual   struct{ lines, text, bytes int } // what the selection repeats
}

// circle is a run of lines, and how much text is in it.
type circle struct{ lines, text int }

const (
	circleLines   = 24
	circleColumns = 64
	// Repetitions, the first occurrence not counted, that are too many: of lines, of bytes in lines that are not numbers alone, of bytes
	// within one line.
	tooManyLines = 40
	tooMuchText  = 1500
	tooManyBytes = 400
)

// newCircles returns what watches over an answer about a selection.
func newCircles(selection string) *circles {
	var s circles
	for i := range len(selection) {
		s.next(selection[i])
	}
	s.endLine()
	return &circles{usual: s.most}
}

// push takes the next piece. It returns how much of it there is before the text has gone round too often, and whether it has.
func (c *circles) push(piece string) (n int, ended bool) {
	for i := range len(piece) {
		if c.next(piece[i]); c.endless() {
			return i + 1, true
		}
	}
	return len(piece), false
}

// endless says whether there is more repetition than can be meant.
func (c *circles) endless() bool {
	return c.most.lines > c.usual.lines+tooManyLines || c.most.text > c.usual.text+tooMuchText || c.most.bytes > c.usual.bytes+tooManyBytes
}

// next reads a byte.
func (c *circles) next(b byte) {
	if b == '\n' {
		c.endLine()
		return
	}
	last := len(c.line)
	c.line = append(c.line, b)
	for q := 1; q <= min(circleColumns, last); q++ {
		if c.line[last-q] != b {
			c.columns[q] = 0
			continue
		}
		c.columns[q]++
		c.most.bytes = max(c.most.bytes, c.columns[q])
	}
}

// endLine compares a complete line with those before.
func (c *circles) endLine() {
	line := strings.TrimRight(string(c.line), " \t\r")
	c.line, c.columns = c.line[:0], [circleColumns + 1]int{}
	if c.lines == nil {
		c.lines = make([]string, circleLines)
	}
	text := 0
	if strings.ContainsFunc(line, unicode.IsLetter) {
		text = len(strings.TrimLeft(line, " \t"))
	}
	for p := 1; p <= min(circleLines, c.count); p++ {
		r := &c.rows[p]
		if c.lines[(c.count-p)%circleLines] != line {
			*r = circle{}
			continue
		}
		r.lines++
		r.text += text
		if r.lines >= 3*p {
			c.most.lines, c.most.text = max(c.most.lines, r.lines), max(c.most.text, r.text)
		}
	}
	c.lines[c.count%circleLines] = line
	c.count++
}
