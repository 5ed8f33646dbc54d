package infer

import "strings"

// Shape says where a completion ends by its form, so that it fits where it is inserted. The zero value cuts nothing.
type Shape struct {
	Lines Lines
	// NoOverlap leaves out what the completion's end repeats of the suffix's beginning.
	NoOverlap bool
	// NoLoops ends a completion that goes round in circles, before the second round.
	NoLoops bool
	// MinIndent leaves out the first line that is indented by less, and what follows: spaces, a tab counts as far as its stop.
	MinIndent int
}

// Lines is how much a completion may span.
type Lines uint8

const (
	// AllLines is as much as the model wants.
	AllLines Lines = iota
	// OneLine is what is left of the line of the cursor.
	OneLine
	// Block is a line, and where it opens a block, the block: to where indentation and brackets say that it ends.
	Block
	// AutoLines is OneLine inside a line and Block where a line or a block begins.
	AutoLines
)

// LineNames returns the words for Lines, in requests and on the command line.
func LineNames() map[string]Lines {
	return map[string]Lines{"all": AllLines, "one": OneLine, "block": Block, "auto": AutoLines}
}

// StopRule names the rule of a Shape that ended or cut a completion; "" is none.
type StopRule string

const (
	StopLine   StopRule = "line"   // OneLine
	StopBlock  StopRule = "block"  // Block
	StopSuffix StopRule = "suffix" // NoOverlap
	StopLoop   StopRule = "loop"   // NoLoops
	StopIndent StopRule = "indent" // MinIndent
)

// stage is one rule at work on a text that arrives in pieces. What it shows, joined, is a beginning of the text and does not depend on
// how that is cut into pieces.
type stage interface {
	// push takes the next piece and returns what may be shown now; after ended nothing more is.
	push(piece string) (show string, ended bool)
	// flush returns what is held back and shown all the same when the text ends here; cut says that something was left out.
	flush() (show string, cut bool)
}

// shaper applies the rules of a Shape one after the other: each sees what those before it show.
type shaper struct {
	stages []stage
	rules  []StopRule
	rule   StopRule // that ended the text, or cut it at its end
	ended  bool
}

// newShaper returns a shaper for a completion at a place, nil when there is nothing to do.
func newShaper(s Shape, p Prompt) *shaper {
	if s == (Shape{}) {
		return nil
	}
	x := &shaper{}
	add := func(r StopRule, g stage) { x.stages, x.rules = append(x.stages, g), append(x.rules, r) }
	at := newSite(p)
	lines := s.Lines
	if lines == AutoLines {
		lines = at.auto()
	}
	switch lines {
	case OneLine:
		add(StopLine, &lineStage{})
	case Block:
		add(StopBlock, &blockStage{site: at, lex: at.lex.clone()})
	}
	if s.MinIndent > 0 {
		add(StopIndent, &indentStage{least: s.MinIndent})
	}
	if s.NoLoops {
		add(StopLoop, &loopStage{})
	}
	if s.NoOverlap && strings.TrimSpace(p.Suffix) != "" {
		add(StopSuffix, newOverlapStage(at))
	}
	return x
}

// push takes the next piece of text and returns what may be shown now.
func (x *shaper) push(piece string) string {
	for i, g := range x.stages {
		var ended bool
		if piece, ended = g.push(piece); ended {
			x.ended, x.rule = true, x.rules[i]
			return x.rest(i+1, piece)
		}
	}
	return piece
}

// flush returns what is left to show when the text ends here.
func (x *shaper) flush() string { return x.rest(0, "") }

// rest brings a last piece through the stages from the i-th on.
func (x *shaper) rest(i int, piece string) string {
	for ; i < len(x.stages); i++ {
		show, ended := x.stages[i].push(piece)
		if !ended {
			var more string
			more, ended = x.stages[i].flush()
			show += more
		}
		if ended {
			x.rule = x.rules[i]
		}
		piece = show
	}
	return piece
}

// growing is a text of which a part has been shown.
type growing struct {
	text  string
	shown int
}

// show returns what was not shown yet of the first n bytes.
func (g *growing) show(n int) string {
	n = max(n, g.shown)
	s := g.text[g.shown:n]
	g.shown = n
	return s
}

// lineStage ends a text before its first newline.
type lineStage struct{ growing }

func (g *lineStage) push(piece string) (string, bool) {
	g.text += piece
	if i := strings.IndexByte(g.text, '\n'); i >= 0 {
		return g.show(len(strings.TrimSuffix(g.text[:i], "\r"))), true
	}
	return g.show(len(strings.TrimSuffix(g.text, "\r"))), false
}

func (g *lineStage) flush() (string, bool) { return g.show(len(g.text)), false }

// indentStage ends a text before a line that is indented too little. Where the first line begins is not its to say.
type indentStage struct {
	growing
	least int
	line  int // where the line begins that is looked at; 0: the first
	keep  int // the end of the last line that is indented enough
}

func (g *indentStage) push(piece string) (string, bool) {
	g.text += piece
	for {
		line := g.text[g.line:]
		end := strings.IndexByte(line, '\n')
		if end >= 0 {
			line = line[:end]
		}
		width, n := indentation(line)
		switch {
		case g.line == 0:
			g.keep = len(strings.TrimRight(line, "\r"))
		case blank(line):
		case width < g.least && n < len(line):
			return g.show(g.keep), true
		default:
			g.keep = g.line + len(strings.TrimRight(line, "\r"))
		}
		if end < 0 {
			return g.show(g.keep), false
		}
		g.line += end + 1
	}
}

// flush shows blank lines at the end too: there is no line after them that is indented too little.
func (g *indentStage) flush() (string, bool) { return g.show(len(g.text)), false }
