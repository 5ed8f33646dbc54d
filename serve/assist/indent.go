package assist

import "strings"

// reindenter makes code look as what it replaces does: the indentation that all lines of the selection have, its tabs or spaces, its line ends, and
// the line ends at its end.
type reindenter struct {
	like    selected
	place   Place
	ended   bool // the selection ends with a line end
	follows bool // one follows the selection
	started bool // a line that is not blank was seen
	extra   string
	step    int    // spaces of one step of the model's indentation; 0: not seen
	white   string // white space at the beginning of the current line
	inLine  bool   // the current line has more than white space
	lines   int    // line ends that were held back
	cr      bool   // a carriage return was
}

func newReindenter(r Request, place Place) *reindenter {
	x := &reindenter{like: newSelected(r), place: place, ended: strings.HasSuffix(r.Selection, "\n")}
	x.follows = strings.HasPrefix(unix(r.After), "\n")
	switch place {
	case Below:
		x.like.lead, x.like.head, x.like.first = "", "", ""
	case New:
		x.like = selected{eol: x.like.eol}
	}
	return x
}

func (x *reindenter) push(piece string) string {
	var out strings.Builder
	for i := 0; i < len(piece); i++ {
		c := piece[i]
		if x.cr && c != '\n' && x.inLine {
			out.WriteByte('\r')
		}
		x.cr = c == '\r'
		switch {
		case c == '\r':
		case c == '\n':
			if x.started {
				x.lines++
			}
			x.white, x.inLine = "", false
		case !x.inLine && (c == ' ' || c == '\t'):
			x.white += string(c)
		case !x.inLine:
			x.inLine = true
			x.begin(&out)
			fallthrough
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// begin writes what comes before the first character of a line that is not blank.
func (x *reindenter) begin(out *strings.Builder) {
	in := x.white
	if !x.started {
		if strings.HasSuffix(in, x.like.first) {
			x.extra = strings.TrimSuffix(in, x.like.first)
		}
		if x.place == Below && !x.ended {
			out.WriteString(x.like.eol)
		}
		out.WriteString(x.like.head)
	}
	in = in[shared(in, x.extra):]
	in = x.like.indent + x.converted(in)
	if !x.started {
		// The first line's indentation stands before the selection already.
		in = in[shared(in, x.like.lead):]
	}
	out.WriteString(strings.Repeat(x.like.eol, x.lines))
	out.WriteString(in)
	x.lines, x.started = 0, true
}

// converted returns white space made of what the selection is indented with.
func (x *reindenter) converted(in string) string {
	switch unit := x.like.unit; {
	case unit == "\t":
		n := len(in) - len(strings.TrimLeft(in, " "))
		if x.step == 0 && n >= 2 {
			x.step = min(n, 8)
		}
		if step := max(x.step, 2); n >= step {
			return strings.Repeat("\t", n/step) + strings.Repeat(" ", n%step) + in[n:]
		}
	case unit != "":
		return strings.ReplaceAll(in, "\t", unit)
	}
	return in
}

func (x *reindenter) flush() string {
	switch {
	case !x.started:
		return ""
	case x.place == Replace:
		return x.like.tail
	case x.place == Below && !x.ended && x.follows:
		return "" // the selection's own line end is now the last line's
	}
	return x.like.eol
}
