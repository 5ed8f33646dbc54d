package infer

import (
	"fmt"
	"math"
	"slices"

	"autodev/compute/cpu/vec"
	"autodev/internal/rng"
)

// Sampling says how the next token is chosen. The zero value is greedy: always the most probable token.
type Sampling struct {
	Temperature float64 // 0 is greedy
	TopK        int     // choose among the K most probable tokens; 0 is all
	TopP        float64 // choose among the fewest tokens whose probabilities reach P (Holtzman et al. 2020); 0 and 1 are all
	MinP        float64 // leaves out tokens less than MinP times as probable as the most probable one; 0 is none
	Seed        uint64
	Choice      uint64 // tells apart the alternatives drawn for one prompt with one seed

	PresencePenalty  float64           // subtracted from the logit of every token generated before
	FrequencyPenalty float64           // subtracted once per time the token was generated before
	Bias             map[int32]float64 // added to logits

	// RepetitionPenalty divides the positive and multiplies the negative logits of all tokens that are among the last RepetitionWindow
	// of prompt and completion (Keskar et al. 2019). 0 and 1 change nothing; a window of 0 is everything.
	RepetitionPenalty float64
	RepetitionWindow  int
}

// Check reports a value outside its range.
func (s Sampling) Check() error {
	for _, c := range []struct {
		name     string
		value    float64
		min, max float64
	}{
		{"temperature", s.Temperature, 0, 100},
		{"top_p", s.TopP, 0, 1},
		{"min_p", s.MinP, 0, 1},
		{"top_k", float64(s.TopK), 0, math.MaxInt32},
		{"presence_penalty", s.PresencePenalty, -2, 2},
		{"frequency_penalty", s.FrequencyPenalty, -2, 2},
		{"repetition_penalty", s.RepetitionPenalty, 0, 100},
		{"repetition_window", float64(s.RepetitionWindow), 0, math.MaxInt32},
	} {
		if !(c.value >= c.min && c.value <= c.max) {
			return &OptionError{c.name, fmt.Sprintf("found %v, expected %v to %v", c.value, c.min, c.max)}
		}
	}
	for id, b := range s.Bias {
		if !(math.Abs(b) <= 100) {
			return &OptionError{"logit_bias", fmt.Sprintf("token %d: found %v, expected -100 to 100", id, b)}
		}
	}
	return nil
}

// TokenProb is a token and its natural log-probability.
type TokenProb struct {
	ID      int32
	LogProb float64
}

// sampler chooses the tokens of one completion.
type sampler struct {
	Sampling
	masked []int32     // never chosen
	stops  []int32     // not chosen early
	usual  bool        // masked is the model's
	past   []int32     // prompt and completion, for RepetitionPenalty
	begin  *constraint // what the completion has to begin with; nil: anything
	counts map[int32]int
	order  []int32
	probs  []float64
	kept   []candidate
}

// never is the logit of what is not chosen.
var never = float32(math.Inf(-1))

// candidate is a token that may be chosen, and its probability relative to the most probable one.
type candidate struct {
	id int32
	p  float64
}

// sampler returns what chooses the tokens of j's completion.
func (m *Model) sampler(j *job) *sampler {
	masked := m.masked
	if j.IgnoreEOS {
		masked = slices.Concat(masked, m.stops)
	}
	if len(j.StopIDs) > 0 {
		// What is to end the completion must be there to choose, though it is never part of one.
		masked = slices.DeleteFunc(slices.Clone(masked), func(id int32) bool { return slices.Contains(j.StopIDs, id) })
	}
	s := newSampler(j.Sampling, masked)
	s.stops = j.stops
	s.usual = !j.IgnoreEOS && len(masked) == len(m.masked)
	if s.repeats() {
		s.past = slices.Clone(j.prompt.ids)
	}
	if j.prompt.heal != "" {
		s.begin = &constraint{index: m.tokens.fill(m.tok), tok: m.tok, rest: j.prompt.heal}
	}
	return s
}

func newSampler(s Sampling, masked []int32) *sampler {
	return &sampler{Sampling: s, masked: masked, counts: map[int32]int{}}
}

// next chooses token number index from logits [vocabulary] and changes them; early says that nothing ends with it. What Prompt.Heal took from
// the prompt may be spelled with any token: others might not spell it.
func (s *sampler) next(logits []float32, index int, early bool) int32 {
	for _, id := range s.masked {
		logits[id] = never
	}
	if early && s.begin == nil {
		for _, id := range s.stops {
			logits[id] = never
		}
	}
	for id, b := range s.Bias {
		if int(id) < len(logits) && id >= 0 {
			logits[id] += float32(b)
		}
	}
	if s.repeats() {
		s.penalise(logits)
	}
	if s.PresencePenalty != 0 || s.FrequencyPenalty != 0 {
		for id, n := range s.counts {
			logits[id] -= float32(s.PresencePenalty + float64(n)*s.FrequencyPenalty)
		}
	}
	if s.begin != nil {
		s.begin.apply(logits)
	}
	id := s.choose(logits, index)
	s.counts[id]++
	if s.begin != nil {
		if s.begin.take(id); s.begin.rest == "" {
			s.begin = nil
		}
	}
	if s.repeats() {
		s.past = append(s.past, id)
	}
	return id
}

// unchanged says whether the next token depends on nothing but the logits as the model gives them, without the tokens that it never generates.
func (s *sampler) unchanged() bool {
	return s.usual && len(s.Bias) == 0 && !s.repeats() && s.PresencePenalty == 0 && s.FrequencyPenalty == 0 && s.begin == nil
}

// greedy says that the token with the largest logit is chosen.
func (s *Sampling) greedy() bool { return s.Temperature == 0 || s.TopK == 1 }

// place is where in the probability of all that is left token number index is drawn, in [0,1).
func (s *Sampling) place(index int) float64 {
	return rng.New(s.Seed, "sample", s.Choice, uint64(index)).Float64()
}

// repeats says whether there is a penalty for repetition.
func (s *sampler) repeats() bool { return s.RepetitionPenalty != 0 && s.RepetitionPenalty != 1 }

// penalise applies RepetitionPenalty, once to every token.
func (s *sampler) penalise(logits []float32) {
	window := s.past
	if n := s.RepetitionWindow; n > 0 && n < len(window) {
		window = window[len(window)-n:]
	}
	s.order = append(s.order[:0], window...)
	slices.Sort(s.order)
	for _, id := range slices.Compact(s.order) {
		switch v := float64(logits[id]); {
		case math.IsInf(v, 0):
		case v > 0:
			logits[id] = float32(v / s.RepetitionPenalty)
		default:
			logits[id] = float32(v * s.RepetitionPenalty)
		}
	}
}

func (s *sampler) choose(logits []float32, index int) int32 {
	if s.greedy() {
		return argmax(logits)
	}
	s.candidates(logits)
	// Probabilities relative to the most probable candidate, so that none overflows.
	top := math.Inf(-1)
	for _, id := range s.order {
		top = max(top, float64(logits[id]))
	}
	s.probs = s.probs[:0]
	var sum float64
	for _, id := range s.order {
		p := math.Exp((float64(logits[id]) - top) / s.Temperature)
		s.probs = append(s.probs, p)
		sum += p
	}
	if s.TopP > 0 && s.TopP < 1 {
		sum = s.nucleus(sum)
	}
	if s.MinP > 0 {
		sum = s.probable()
	}
	u := s.place(index) * sum
	for i, p := range s.probs {
		if u -= p; u < 0 {
			return s.order[i]
		}
	}
	// Rounding can leave u at zero after the last candidate: the last one that has any probability is meant.
	for i := len(s.probs) - 1; i > 0; i-- {
		if s.probs[i] > 0 {
			return s.order[i]
		}
	}
	return s.order[0]
}

// candidates fills order with the ids to choose among.
func (s *sampler) candidates(logits []float32) {
	if s.TopK > 0 && s.TopK < len(logits) {
		s.order = largest(s.order[:0], logits, s.TopK)
		return
	}
	s.order = s.order[:0]
	for id := range logits {
		s.order = append(s.order, int32(id))
	}
}

// nucleus keeps the fewest, most probable candidates that reach TopP of sum and returns their sum.
func (s *sampler) nucleus(sum float64) float64 {
	// All candidates below this bound together are less than 1−TopP, so none of them is in the nucleus.
	bound := (1 - s.TopP) * sum / float64(len(s.probs))
	s.kept = s.kept[:0]
	for i, p := range s.probs {
		if p >= bound {
			s.kept = append(s.kept, candidate{s.order[i], p})
		}
	}
	slices.SortFunc(s.kept, func(a, b candidate) int {
		switch {
		case a.p > b.p:
			return -1
		case a.p < b.p:
			return 1
		}
		return int(a.id) - int(b.id)
	})
	s.order, s.probs = s.order[:0], s.probs[:0]
	var reached float64
	for _, c := range s.kept {
		s.order, s.probs = append(s.order, c.id), append(s.probs, c.p)
		if reached += c.p; reached >= s.TopP*sum {
			break
		}
	}
	return reached
}

// probable keeps the candidates that are at least MinP times as probable as the most probable one, and returns their sum. That one is
// a candidate always, and its probs is 1.
func (s *sampler) probable() float64 {
	n, sum := 0, 0.0
	for i, p := range s.probs {
		if p >= s.MinP {
			s.order[n], s.probs[n] = s.order[i], p
			n, sum = n+1, sum+p
		}
	}
	s.order, s.probs = s.order[:n], s.probs[:n]
	return sum
}

// argmax returns the index of the largest element, the first of equal ones.
func argmax(x []float32) int32 {
	const block = 512
	best, top := 0, float32(math.Inf(-1))
	for i := 0; i < len(x); i += block {
		if v := vec.Max(x[i:min(i+block, len(x))]); v > top {
			best, top = i, v
		}
	}
	for i, v := range x[best:min(best+block, len(x))] {
		if v == top {
			return int32(best + i)
		}
	}
	return 0 // nothing above −∞
}

// largest appends to dst the indexes of the k largest elements of x, largest first, lower index first among equal ones.
func largest(dst []int32, x []float32, k int) []int32 {
	base := len(dst)
	for i, v := range x {
		top := dst[base:]
		if len(top) == k {
			if k == 0 || !(v > x[top[k-1]]) {
				continue
			}
			dst = dst[:len(dst)-1]
		}
		at, _ := slices.BinarySearchFunc(dst[base:], v, func(j int32, v float32) int {
			if x[j] >= v {
				return -1
			}
			return 1
		})
		dst = slices.Insert(dst, base+at, int32(i))
	}
	return dst
}

// logSumExp returns log Σ exp(x): exponentials in float32, relative to the largest, summed in float64 in index order.
func logSumExp(x []float32) float64 {
	top := vec.Max(x)
	if math.IsInf(float64(top), 0) {
		return float64(top)
	}
	var sum float64
	var block [1024]float32
	for len(x) > 0 {
		e := block[:min(len(x), len(block))]
		for i, v := range x[:len(e)] {
			e[i] = v - top
		}
		vec.Exp(e, e)
		for _, v := range e {
			sum += float64(v)
		}
		x = x[len(e):]
	}
	return float64(top) + math.Log(sum)
}
