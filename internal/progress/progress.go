// Package progress shows how far long work has come: a bar on a terminal, a plain line now and then elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// lineEvery is the time between plain lines.
const lineEvery = 15 * time.Second

// Bar shows the progress of one piece of work. Its methods may be called from any goroutine; a nil *Bar shows nothing.
type Bar struct {
	mu       sync.Mutex
	w        io.Writer
	label    string
	unit     string
	terminal bool
	bar      *progressbar.ProgressBar
	begin    time.Time
	next     time.Time
	now      func() time.Time
}

// New returns a bar that writes to w; unit is what is counted, e.g. "tokens". A nil w shows nothing.
func New(w io.Writer, label, unit string) *Bar {
	if w == nil {
		return nil
	}
	return &Bar{w: w, label: label, unit: unit, terminal: IsTerminal(w), now: time.Now}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Set says that done of total units are done.
func (b *Bar) Set(done, total int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begin.IsZero() {
		b.begin = b.now()
		b.next = b.begin.Add(lineEvery)
		if b.terminal {
			b.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(b.w), progressbar.OptionSetDescription(b.label),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(b.unit), progressbar.OptionClearOnFinish(),
				progressbar.OptionThrottle(100*time.Millisecond))
		}
	}
	if b.bar != nil {
		// A bar that cannot be drawn must not stop the work.
		_ = b.bar.Set(done)
		return
	}
	if t := b.now(); 0 < done && done < total && !t.Before(b.next) {
		b.next = t.Add(lineEvery)
		rate := float64(done) / t.Sub(b.begin).Seconds()
		left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(b.w, "%s: %d of %d %s (%.0f %%), %.0f %s/s, about %s left\n", b.label, done, total, b.unit, 100*float64(done)/float64(total), rate, b.unit, left)
	}
}

// Close removes the bar from the terminal.
func (b *Bar) Close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		_ = b.bar.Finish()
		_ = b.bar.Clear()
	}
}
