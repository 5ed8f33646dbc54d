package train

import (
	"context"
	"errors"
	"fmt"
	"io"

	"autodev/data/pack"
	"autodev/internal/float16"
	"autodev/internal/rng"
	"autodev/train/graph"
)

// batch strings windows together.
func batch(windows []pack.Window) graph.Batch {
	var b graph.Batch
	for _, w := range windows {
		b.IDs = append(b.IDs, w.IDs...)
		b.Targets = append(b.Targets, w.Targets...)
		b.Positions = append(b.Positions, w.Positions...)
		b.DocStart = append(b.DocStart, w.DocStart...)
	}
	return b
}

// dropoutKey is the key of a micro-batch's dropout.
func dropoutKey(seed uint64, step, micro int) [2]int32 {
	w := rng.Philox(rng.KeyOf(seed, "dropout"), rng.Counter{uint32(step), uint32(uint64(step) >> 32), uint32(micro), 0})
	return [2]int32{int32(w[0]), int32(w[1])}
}

// clipping returns the factor by which PyTorch's clip_grad_norm_ scales gradients of the given norm; a limit of 0 is none.
func clipping(limit, norm float64) float64 {
	if limit == 0 {
		return 1
	}
	return min(1, limit/(norm+1e-6))
}

// divergence says after which step training cannot go on, and why.
type divergence struct {
	step int
	why  string
}

func (d *divergence) Error() string { return fmt.Sprintf("step %d: %s", d.step, d.why) }

// noNumber is the divergence of a loss or gradient that is none.
func noNumber(step int, what string, v float64) *divergence {
	return &divergence{step, fmt.Sprintf("the %s is %v: training has diverged (a lower train.lr or a longer warm-up may help)", what, v)}
}

// dataError is a failure to read training or evaluation data.
type dataError struct {
	step int
	err  error
}

func (d *dataError) Error() string { return fmt.Sprintf("step %d: %v", d.step, d.err) }
func (d *dataError) Unwrap() error { return d.err }

// overflowed notes that step n overflowed, and reports it if nothing else has happened for long.
func (j *job) overflowed(n int, r *StepResult) error {
	j.scale.after(true)
	r.Overflow, r.Skipped = true, j.scale.Skipped
	if j.scale.InRow < maxSkippedInRow {
		return nil
	}
	return &divergence{n, fmt.Sprintf("losses or gradients overflowed float16 in the last %d steps, which were skipped, at last with a loss scale of %.3g: training has diverged, or the model's own values exceed float16's %d (precision float32 holds them)",
		maxSkippedInRow, r.LossScale, float16.Max)}
}

// step takes optimiser step n. When ctx ends before the update, nothing but gradients has changed and the error is ctx's; the
// update itself is not interrupted.
func (j *job) step(ctx context.Context, n int) (StepResult, error) {
	t := &j.recipe.Train
	windows := make([]pack.Window, j.windowsPerStep())
	scored := 0
	for i := range windows {
		w, err := j.windows.Next(ctx)
		if errors.Is(err, io.EOF) {
			return StepResult{}, &dataError{n, fmt.Errorf("the data ended, expected enough for %d steps: it has changed since they were counted", j.total)}
		}
		if err != nil {
			return StepResult{}, &dataError{n, err}
		}
		windows[i] = w
		scored += w.Scored()
	}
	r := StepResult{LR: j.schedule.at(n), Scored: scored, Epoch: int(j.windows.Stats().Epoch)}
	r.Tokens = int64(n) * int64(len(windows)*j.sequence)
	if err := j.plans.ZeroGrads(); err != nil {
		return r, err
	}
	// The loss is the mean over all scored tokens of the step, however they are spread over micro-batches. (With loss_on
	// middle there may be none.)
	scale := float32(1 / float64(max(1, scored)))
	up := 1.0
	if j.scale != nil {
		up = j.scale.Scale
		r.LossScale, r.Skipped = up, j.scale.Skipped
	}
	for m := range t.Accumulation {
		b := batch(windows[m*t.MicroBatch : (m+1)*t.MicroBatch])
		loss, err := j.plans.MicroStep(ctx, b, scale*float32(up), dropoutKey(j.recipe.Seed, n, m))
		if err != nil {
			return r, err
		}
		r.Loss += loss / up
	}
	if !finite(r.Loss) && j.scale == nil {
		return r, noNumber(n, "loss", r.Loss)
	}
	ctx = context.WithoutCancel(ctx)
	var err error
	if r.GradNorm, err = j.plans.GradNorm(ctx); err != nil {
		return r, err
	}
	r.GradNorm /= up
	updates := n
	switch overflow := !finite(r.Loss) || !finite(r.GradNorm); {
	case overflow && j.scale == nil:
		return r, noNumber(n, "gradient's norm", r.GradNorm)
	case overflow:
		err = j.overflowed(n, &r)
		return r, err
	case j.scale != nil:
		j.scale.after(false)
		updates -= j.scale.Skipped
	}
	groups := make([]graph.Hyper, len(j.groups))
	for i, h := range j.groups {
		h.LearningRate = r.LR
		groups[i] = h
	}
	return r, j.plans.Update(ctx, updates, clipping(t.Clip, r.GradNorm)/up, groups...)
}
