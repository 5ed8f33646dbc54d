package train

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"autodev/internal/progress"
)

// lineEvery is the time between lines of a report that is not on a terminal.
const lineEvery = 10 * time.Second

// report tells people how a run goes on: a bar on a terminal, lines elsewhere, nothing without a writer. What cannot be written
// must not stop the run, so errors of the writer are dropped.
type report struct {
	w     io.Writer
	bar   *progressbar.ProgressBar
	total int

	begun  time.Time // of this process's part of the run
	first  int       // step it began after
	next   time.Time // of the next line
	smooth float64   // tokens per second, exponentially smoothed
}

func newReport(w io.Writer, first, total int) *report {
	now := time.Now()
	r := &report{w: w, total: total, first: first, begun: now, next: now.Add(lineEvery)}
	if w != nil && progress.IsTerminal(w) {
		r.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetWidth(20), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetRenderBlankState(true))
		_ = r.bar.Set(first)
		r.bar.StartWithoutRender()
	}
	return r
}

// line says something that stays on the screen.
func (r *report) line(format string, args ...any) {
	if r.w == nil {
		return
	}
	if r.bar != nil {
		_ = r.bar.Clear()
	}
	fmt.Fprintf(r.w, format+"\n", args...)
	if r.bar != nil {
		_ = r.bar.RenderBlank()
	}
}

// step reports that step n is done.
func (r *report) step(n int, s StepResult, rate float64) {
	if r.smooth == 0 {
		r.smooth = rate
	}
	r.smooth += .2 * (rate - r.smooth)
	skipped := ""
	if s.Skipped > 0 {
		skipped = fmt.Sprintf(", %d steps skipped (loss scale %.3g)", s.Skipped, s.LossScale)
	}
	switch now := time.Now(); {
	case r.bar != nil:
		r.bar.Describe(fmt.Sprintf("loss %.3f  lr %.1e  %.0f tokens/s%s", s.Loss, s.LR, r.smooth, skipped))
		_ = r.bar.Set(n)
	case r.w != nil && (!now.Before(r.next) || n == r.total):
		r.next = now.Add(lineEvery)
		left := time.Duration(float64(now.Sub(r.begun)) / float64(n-r.first) * float64(r.total-n)).Round(time.Second)
		r.line("step %d of %d: loss %.3f, lr %.1e, %.0f tokens/s%s, about %v left", n, r.total, s.Loss, s.LR, r.smooth, skipped, left)
	}
}

func (r *report) close() {
	if r.bar != nil {
		_ = r.bar.Exit()
		fmt.Fprintln(r.w)
	}
}
