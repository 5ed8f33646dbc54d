package cuda

import (
	"fmt"
	"slices"
	"testing"

	"autodev/compute/cuda/cudatest"
)

// Gradients over more tiles than there are stages, of all heads of a key head in one block as of some; documents begin within tiles. They have the same bits under
// all schedules.
func TestAttentionGradientsLong(t *testing.T) {
	whole := func(p attentionProblem) attentionProblem {
		p.enough = 1
		return p
	}
	problems := []attentionProblem{
		longAttention(450, 2, 64, BF16),
		whole(newAttentionProblem(1, 140, 8, 1, 128, 0, F16)),
		whole(newAttentionProblem(1, 70, 24, 2, 48, 0, BF16)),
		whole(newAttentionProblem(1, 300, 3, 1, 96, 0, BF16)),
	}
	first := make([][]float32, len(problems))
	eachSeed(t, func(t *testing.T, d *Device) {
		for i, p := range problems {
			_, dqkv := p.check(t, d)
			if first[i] == nil {
				first[i] = dqkv
			}
			if !slices.Equal(dqkv, first[i]) {
				t.Errorf("%v: other bits than under the first schedule", p)
			}
		}
	})
}

// Barriers and waits that are taken out of the gradients' kernels for compute capability 9.0 must show, and wrong steps.
func TestAttentionHopperGradientBugsAreCaught(t *testing.T) {
	p := longAttention(450, 2, 64, BF16)
	_, want := p.want(t)
	for _, bug := range []struct {
		name  string
		least int
	}{
		{"copies", 3}, {"proxy", 5}, {"full", 2}, {"empty", 3}, {"wait", 5}, {"keys_full", 3}, {"keys_empty", 3}, {"keys_wait", 5}, {"step", 5},
	} {
		planted(t, fmt.Sprint("attention64_hopper_grad.cu:hopper_grad_", bug.name), bug.least, func(b workbench) bool {
			_, dqkv, err := p.run(t, b.d)
			if err != nil {
				return true
			}
			_, tolerance := p.tolerance()
			_, differs := cudatest.Differs(dqkv, want, 2*tolerance, 0x1p-6)
			return differs
		})
	}
}
