package train

import "math"

// Loss scaling as PyTorch's torch.amp.GradScaler does it, with its constants. The largest scale is NVIDIA Apex's: gradients that are all zero
// never overflow.
const (
	firstLossScale  = 1 << 16
	maxLossScale    = 1 << 24
	growthInterval  = 2000 // steps without an overflow after which the scale is doubled
	maxSkippedInRow = 25   // from the largest scale to below 1
)

// lossScale is what losses are multiplied by in float16, and gradients divided by afterwards, so that the gradients of activations are not lost
// below float16's smallest numbers (Micikevicius et al. 2018). A step whose gradients overflow is skipped and halves the scale. Scales are
// powers of two: they change exponents alone. It is part of a checkpoint.
type lossScale struct {
	Scale   float64 `json:"scale"`
	Good    int     `json:"good_steps"`           // since the scale last changed
	Skipped int     `json:"skipped_steps"`        // of the whole run
	InRow   int     `json:"skipped_steps_in_row"` // up to now
}

func newLossScale() *lossScale { return &lossScale{Scale: firstLossScale} }

// valid reports whether s is a state that a run can be in.
func (s *lossScale) valid() bool {
	fraction, _ := math.Frexp(s.Scale)
	return fraction == 0.5 && s.Good >= 0 && s.Skipped >= s.InRow && s.InRow >= 0
}

// after notes whether a step overflowed, which is then skipped, and sets the scale of the next.
func (s *lossScale) after(overflow bool) {
	if overflow {
		s.Scale /= 2
		s.Good = 0
		s.Skipped++
		s.InRow++
		return
	}
	s.InRow = 0
	if s.Good++; s.Good == growthInterval {
		s.Scale, s.Good = min(2*s.Scale, maxLossScale), 0
	}
}
