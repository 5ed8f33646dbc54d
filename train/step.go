package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"autodev/data/pack"
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

// divergence is a loss or gradient that is no number.
type divergence struct {
	step int
	what string
	v    float64
}

func (d *divergence) Error() string {
	return fmt.Sprintf("step %d: the %s is %v: training has diverged (a lower train.lr or a longer warm-up may help)", d.step, d.what, d.v)
}

// dataError is a failure to read training or evaluation data.
type dataError struct {
	step int
	err  error
}

func (d *dataError) Error() string { return fmt.Sprintf("step %d: %v", d.step, d.err) }
func (d *dataError) Unwrap() error { return d.err }

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
	for m := range t.Accumulation {
		b := batch(windows[m*t.MicroBatch : (m+1)*t.MicroBatch])
		loss, err := j.plans.MicroStep(ctx, b, scale, dropoutKey(j.recipe.Seed, n, m))
		if err != nil {
			return r, err
		}
		r.Loss += loss
	}
	if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
		return r, &divergence{n, "loss", r.Loss}
	}
	ctx = context.WithoutCancel(ctx)
	var err error
	if r.GradNorm, err = j.plans.GradNorm(ctx); err != nil {
		return r, err
	}
	if math.IsNaN(r.GradNorm) || math.IsInf(r.GradNorm, 0) {
		return r, &divergence{n, "gradient's norm", r.GradNorm}
	}
	groups := make([]graph.Hyper, len(j.groups))
	for i, h := range j.groups {
		h.LearningRate = r.LR
		groups[i] = h
	}
	return r, j.plans.Update(ctx, n, clipping(t.Clip, r.GradNorm), groups...)
}
