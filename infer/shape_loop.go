package infer

import "strings"

// loopStage ends a text that goes round in circles: the same lines (of prose: sentences), up to maxPeriod of them, again and again, or within a line the
// same characters. Of lines the first round stays; within a line also its first repetitions, which occur in code that is meant.
type loopStage struct {
	growing
	prose   bool                // sentences end lines
	lines   []string            // complete ones, trimmed at their ends
	ends    []int               // where they end in the text
	runs    [maxPeriod + 1]int  // [p]: how many of the last lines equal those p lines before
	line    int                 // where the line begins that is looked at
	columns [maxColumns + 1]int // [q]: how many of its last bytes equal those q bytes before
	read    int                 // bytes of the line that columns counts
}

// Loops does to prose what Shape.NoLoops does to a completion.
type Loops struct{ stage loopStage }

// NewLoops returns what watches over a text.
func NewLoops() *Loops { return &Loops{loopStage{prose: true}} }

// Push takes the next piece of the text and returns what may be shown now, and whether the text has ended with it.
func (l *Loops) Push(piece string) (show string, ended bool) { return l.stage.push(piece) }

// Flush returns what is left to show when the text ends by itself.
func (l *Loops) Flush() string {
	show, _ := l.stage.flush()
	return show
}

const (
	maxPeriod  = 24
	maxColumns = 64
)

func (g *loopStage) push(piece string) (string, bool) {
	g.text += piece
	for {
		end := g.end()
		if end < 0 {
			break
		}
		line := g.text[g.line : g.line+end]
		if at, cut := g.across(line); cut {
			return g.show(at), true
		}
		if at, cut := g.take(line); cut {
			return g.show(at), true
		}
		g.line += end + 1
	}
	line := g.text[g.line:]
	if at, cut := g.across(line); cut {
		return g.show(at), true
	}
	return g.show(g.hold(line)), false
}

// end returns where the current line ends, −1 where it goes on.
func (g *loopStage) end() int {
	line := g.text[g.line:]
	end := strings.IndexByte(line, '\n')
	if !g.prose {
		return end
	}
	if end >= 0 {
		line = line[:end]
	}
	for i := 1; i < len(line); i++ {
		if line[i] == ' ' && strings.IndexByte(".!?", line[i-1]) >= 0 {
			return i
		}
	}
	return end
}

func (g *loopStage) flush() (string, bool) { return g.show(len(g.text)), false }

// take reads a complete line, and returns where the text has ended if it has.
func (g *loopStage) take(line string) (at int, cut bool) {
	end := g.line + len(strings.TrimRight(line, "\r"))
	line = strings.TrimRight(line, " \t\r")
	g.columns, g.read = [maxColumns + 1]int{}, 0
	for p := 1; p <= min(maxPeriod, len(g.lines)); p++ {
		if g.lines[len(g.lines)-p] != line {
			g.runs[p] = 0
			continue
		}
		g.runs[p]++
	}
	g.lines, g.ends = append(g.lines, line), append(g.ends, end)
	for p := 1; p <= maxPeriod; p++ {
		if g.runs[p] > 0 && g.loops(p) {
			return g.ends[len(g.ends)-1-g.runs[p]], true
		}
	}
	return 0, false
}

// loops says whether the last lines are too many rounds of p lines to be meant: the more, the less there is in them.
func (g *loopStage) loops(p int) bool {
	visible, letters := 0, 0
	again := g.lines[len(g.lines)-g.runs[p]:]
	for _, line := range again {
		visible += len(strings.TrimLeft(line, " \t"))
		letters += len(strings.Trim(line, " \t(){}[];,"))
	}
	switch rounds := len(again) / p; {
	case letters == 0:
		return len(again) >= 12 && rounds >= 4
	case rounds >= 3:
		return visible >= 40
	case rounds >= 2:
		return visible >= 120
	}
	return false
}

// across finds a circle within a line.
func (g *loopStage) across(line string) (at int, cut bool) {
	for ; g.read < len(line); g.read++ {
		for q := 1; q <= min(maxColumns, g.read); q++ {
			if line[g.read] != line[g.read-q] {
				g.columns[q] = 0
				continue
			}
			if g.columns[q]++; g.columns[q] >= turns(q, line[g.read+1-q:g.read+1]) {
				return g.line + g.read + 1 - g.columns[q] + allowed(q), true
			}
		}
	}
	return 0, false
}

// turns returns how many bytes of repetition of q bytes are too many.
func turns(q int, s string) int {
	if strings.ContainsFunc(s, isWord) && strings.Trim(s, "0123456789 ,.xX") != "" {
		return max(96, 5*q)
	}
	return 400 // rulers and tables
}

// allowed returns how many bytes of repetition stay: those that do not tell yet that it is one.
func allowed(q int) int { return max(24, q) }

// hold returns how much of the text can be shown, whatever comes.
func (g *loopStage) hold(line string) int {
	at := len(strings.TrimRight(g.text, "\r"))
	for q := 1; q <= maxColumns; q++ {
		if n := g.columns[q]; n > allowed(q) {
			at = min(at, g.line+len(line)-n+allowed(q))
		}
	}
	bare := strings.TrimRight(line, " \t\r")
	for p := 1; p <= min(maxPeriod, len(g.lines)); p++ {
		if strings.HasPrefix(g.lines[len(g.lines)-p], bare) {
			at = min(at, g.ends[len(g.ends)-1-g.runs[p]])
		}
	}
	return at
}
