package typing

import "time"

// Trace is what a user does to a file.
type Trace struct {
	Name   string `json:"name"`
	Text   string `json:"text"`   // before the first step
	Cursor int    `json:"cursor"` // bytes before it
	Steps  []Step `json:"steps"`
}

// Step is a keystroke, or what comes at once like one. Jump, Erase and Insert happen in this order.
type Step struct {
	// Delay is the time since the step before, or, where the user waited for a suggestion there, since it was shown.
	Delay  time.Duration `json:"delay"`
	Jump   int           `json:"jump"`  // bytes before the cursor's new place; −1: where it is
	Erase  int           `json:"erase"` // bytes before the cursor
	Insert string        `json:"insert"`
	Accept bool          `json:"accept"` // Insert is the suggestion shown
	Wait   bool          `json:"wait"`   // for a suggestion, before the next step
	Answer string        `json:"answer"` // the scripted one
}

// document is a file in an editor.
type document struct {
	text   string
	cursor int
}

func (d *document) apply(s Step) {
	if s.Jump >= 0 {
		d.cursor = s.Jump
	}
	d.text = d.text[:d.cursor-s.Erase] + s.Insert + d.text[d.cursor:]
	d.cursor += len(s.Insert) - s.Erase
}

func (d *document) prefix() string { return d.text[:d.cursor] }
func (d *document) suffix() string { return d.text[d.cursor:] }

// next returns the text that the steps from i on insert at the cursor before anything else happens.
func (t *Trace) next(i int) string {
	text := ""
	for _, s := range t.Steps[i:] {
		if s.Jump >= 0 || s.Erase > 0 {
			break
		}
		text += s.Insert
	}
	return text
}
