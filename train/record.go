package train

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
)

// RecordFile is the run's record in its output folder: a JSON object a line.
const RecordFile = "train.jsonl"

// Entry is a line of the record. All but Time is a pure function of the recipe and its data: two runs of one recipe differ in
// nothing else.
type Entry struct {
	Step int `json:"step"`
	// Run describes the run; the first line has it.
	Run *RunInfo `json:"run,omitempty"`
	// Train is the result of the optimiser step.
	Train *StepResult `json:"train,omitempty"`
	// Eval is a measurement after the step.
	Eval *EvalResult `json:"eval,omitempty"`
	// Time is what depends on the machine and the day.
	Time *Timing `json:"time,omitempty"`
}

// RunInfo describes a run.
type RunInfo struct {
	Steps      int    `json:"steps"`
	Parameters int64  `json:"parameters"` // of the model and its adapters
	Trained    int64  `json:"trained"`
	Plan       string `json:"plan"` // hash of the computation
	Data       string `json:"data"` // fingerprint of the training documents
}

// StepResult is what an optimiser step did.
type StepResult struct {
	Loss     float64 `json:"loss"` // mean −log probability of the step's scored tokens, before the update, in nats
	LR       float64 `json:"lr"`
	GradNorm float64 `json:"grad_norm"` // before clipping
	Scored   int     `json:"scored"`    // tokens with a loss in this step
	Tokens   int64   `json:"tokens"`    // tokens read since the beginning of the run, padding included
	Epoch    int     `json:"epoch"`     // passes over the data finished before the step's last window

	// In float16: what the loss was multiplied by for the gradients' sake, whether they overflowed, so that the step was skipped, and how many
	// steps of the run were. In an overflow Loss and GradNorm may be no numbers, which are null.
	LossScale float64 `json:"loss_scale,omitempty"`
	Overflow  bool    `json:"overflow,omitempty"`
	Skipped   int     `json:"skipped_steps,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (r StepResult) MarshalJSON() ([]byte, error) {
	type numbers StepResult
	if finite(r.Loss) && finite(r.GradNorm) {
		return json.Marshal(numbers(r))
	}
	or := func(v float64) *float64 {
		if finite(v) {
			return &v
		}
		return nil
	}
	return json.Marshal(struct {
		Loss     *float64 `json:"loss"`
		GradNorm *float64 `json:"grad_norm"`
		numbers
	}{or(r.Loss), or(r.GradNorm), numbers(r)})
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// EvalResult is a measurement on the evaluation documents: every token of a document but its first.
type EvalResult struct {
	Loss       float64 `json:"loss"` // mean per token, nats
	Perplexity float64 `json:"perplexity"`
	Tokens     int     `json:"tokens"` // scored
	Documents  int     `json:"documents"`
}

// Timing is measured by the clock.
type Timing struct {
	Seconds         float64 `json:"seconds"`           // of this step or measurement
	TokensPerSecond float64 `json:"tokens_per_second"` // of this step or measurement
	At              string  `json:"at"`                // RFC 3339
}

// record appends lines to the record.
type record struct {
	f     *os.File
	empty bool // when it was opened
}

// recordBegin is how every record begins.
const recordBegin = `{"step":0,"run":{`

// openRecord opens the record and drops what was written after step, whole lines or not. measured is the step of the last
// measurement that is left, -1 for none. A file of something else, such as documents to train on, is left alone: it is an error.
func openRecord(name string, step int) (_ *record, measured int, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, -1, fmt.Errorf("record: %w", err)
	}
	keep := int64(0)
	if err = isRecord(f); err == nil {
		keep, measured, err = recordUpTo(f, step)
	}
	if err == nil {
		err = f.Truncate(keep)
	}
	if err == nil {
		_, err = f.Seek(keep, io.SeekStart)
	}
	if err != nil {
		return nil, -1, errors.Join(fmt.Errorf("record %s: %w", name, err), f.Close())
	}
	return &record{f, keep == 0}, measured, nil
}

// isRecord reports a file that is not empty and no record, not even one that was cut off in its first line.
func isRecord(f io.ReaderAt) error {
	b := make([]byte, len(recordBegin))
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !strings.HasPrefix(recordBegin, string(b[:n])) {
		return fmt.Errorf("found a file that begins with %q, expected none or the record of an earlier run, which begins with %q (choose another --out)", b[:n], recordBegin)
	}
	return nil
}

// recordUpTo returns the length of the beginning of r that holds whole lines of steps up to step, and the step of the last
// measurement in it.
func recordUpTo(r io.Reader, step int) (keep int64, measured int, err error) {
	measured = -1
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return keep, measured, nil
		}
		if err != nil {
			return keep, measured, err
		}
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.Step > step {
			return keep, measured, nil
		}
		if e.Eval != nil {
			measured = e.Step
		}
		keep += int64(len(line))
	}
}

func (r *record) add(e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("record: step %d: %w", e.Step, err)
	}
	if _, err := r.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// sync makes what was written durable.
func (r *record) sync() error {
	if err := r.f.Sync(); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

func (r *record) close() error { return r.f.Close() }
