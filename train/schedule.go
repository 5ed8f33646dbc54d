package train

import (
	"math"

	"autodev/configs"
)

// schedule is the learning rate over a run: linear warm-up, then cosine, linear decay or constant, by the formulas of Hugging
// Face transformers (get_cosine_with_min_lr_schedule_with_warmup and its kin). There the first of w warm-up steps has
// learning rate 0 and step w, counted from 0, the peak.
type schedule struct {
	peak          float64
	kind          string
	warmup, total int
	floor         float64 // share of the peak at the end
}

func newSchedule(t configs.Train, total int) schedule {
	s := schedule{peak: t.LR, kind: t.Schedule, warmup: t.WarmupSteps, total: total, floor: t.MinLRRatio}
	if s.warmup == 0 {
		s.warmup = int(math.Ceil(t.WarmupRatio * float64(total)))
	}
	return s
}

// at returns the learning rate of optimiser step n, counted from 1.
func (s schedule) at(n int) float64 {
	done := n - 1
	if done < s.warmup {
		return s.peak * float64(done) / float64(s.warmup)
	}
	f := 1.0
	switch p := float64(done-s.warmup) / float64(max(1, s.total-s.warmup)); s.kind {
	case "cosine":
		f = math.Max(0, .5*(1+math.Cos(math.Pi*p)))
	case "linear":
		f = math.Max(0, 1-p)
	}
	return s.peak * (f*(1-s.floor) + s.floor)
}
