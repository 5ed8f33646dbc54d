package pack

import "fmt"

// NotScored marks a position in Window.Targets that has no target.
const NotScored = -1

// Window is one row of a training batch. All four slices have the length Options.Sequence.
type Window struct {
	IDs       []int32 // input tokens
	Targets   []int32 // the token to predict at each position, or NotScored
	Positions []int32 // position of each token within its document's part in this window, from 0
	DocStart  []int32 // index in the window at which that part begins: attention reaches back to here
}

// Scored returns the number of positions that have a target.
func (w *Window) Scored() int {
	n := 0
	for _, t := range w.Targets {
		if t != NotScored {
			n++
		}
	}
	return n
}

// LossOn says which tokens are learnt.
type LossOn string

const (
	All    LossOn = "all"    // every token
	Middle LossOn = "middle" // of FIM examples only the middle part and the end-of-text behind it; of plain text everything
)

// OpenWindows is how many windows are filled side by side for the sake of whole FIM examples.
const OpenWindows = 8

// Options says how windows are filled.
type Options struct {
	Sequence int    // tokens in a window; required
	LossOn   LossOn // default All
	// CrossDocuments is the original's way: examples are strung together, end-of-text included, and cut every Sequence tokens. Attention and
	// targets cross from document to document, positions run through, and the last position of a window has no target.
	CrossDocuments bool
}

func (o Options) withDefaults() (Options, error) {
	if o.LossOn == "" {
		o.LossOn = All
	}
	if o.LossOn != All && o.LossOn != Middle {
		return o, fmt.Errorf("loss_on %q: expected all or middle", o.LossOn)
	}
	if o.Sequence < 8 || o.Sequence > 1<<24 {
		return o, fmt.Errorf("sequence of %d tokens: expected from 8 to %d", o.Sequence, 1<<24)
	}
	return o, nil
}

// Stats counts what went into the windows so far handed out.
type Stats struct {
	Windows   int64  `json:"windows"`
	Scored    int64  `json:"scored"`    // positions with a target
	Padding   int64  `json:"padding"`   // positions without an input token
	Documents int64  `json:"documents"` // documents begun, in all epochs
	Epoch     uint64 `json:"epoch"`     // of the document begun last
}

// PaddingFraction is the part of all positions that carries no token.
func (s Stats) PaddingFraction(sequence int) float64 {
	if s.Windows == 0 {
		return 0
	}
	return float64(s.Padding) / float64(s.Windows*int64(sequence))
}
