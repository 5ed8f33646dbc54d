package infer

import (
	"math"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"
)

func TestSamplingCheck(t *testing.T) {
	for _, c := range []struct {
		s    Sampling
		want string
	}{
		{Sampling{}, ""},
		{Sampling{Temperature: 1, TopP: 1, TopK: 50, PresencePenalty: -2, FrequencyPenalty: 2, Bias: map[int32]float64{1: -100}}, ""},
		{Sampling{Temperature: -0.1}, "temperature: found -0.1, expected 0 to 100"},
		{Sampling{Temperature: math.NaN()}, "temperature: found NaN, expected 0 to 100"},
		{Sampling{TopP: 1.5}, "top_p: found 1.5, expected 0 to 1"},
		{Sampling{TopK: -1}, "top_k: found -1, expected 0 to 2.147483647e+09"},
		{Sampling{PresencePenalty: 3}, "presence_penalty: found 3, expected -2 to 2"},
		{Sampling{FrequencyPenalty: -3}, "frequency_penalty: found -3, expected -2 to 2"},
		{Sampling{MinP: 1.1}, "min_p: found 1.1, expected 0 to 1"},
		{Sampling{RepetitionPenalty: -1}, "repetition_penalty: found -1, expected 0 to 100"},
		{Sampling{RepetitionPenalty: math.Inf(1)}, "repetition_penalty: found +Inf, expected 0 to 100"},
		{Sampling{RepetitionWindow: -1}, "repetition_window: found -1, expected 0 to 2.147483647e+09"},
		{Sampling{Bias: map[int32]float64{7: 101}}, "logit_bias: token 7: found 101, expected -100 to 100"},
	} {
		err := c.s.Check()
		if got := errorText(err); got != c.want {
			t.Errorf("%+v: %q, expected %q", c.s, got, c.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestSampleFrequencies draws many tokens and compares how often each comes with its exact probability.
func TestSampleFrequencies(t *testing.T) {
	inf := float32(math.Inf(-1))
	logits := []float32{0, 1, 2, inf, 1, -1, 2.5, -30}
	for _, c := range []struct {
		name string
		s    Sampling
		kept []int // candidates
	}{
		{"all", Sampling{Temperature: 1}, []int{0, 1, 2, 4, 5, 6, 7}},
		{"hot", Sampling{Temperature: 2, TopP: 1}, []int{0, 1, 2, 4, 5, 6, 7}},
		{"top 3, the lower of two equals", Sampling{Temperature: 1, TopK: 3}, []int{6, 2, 1}},
		// Probabilities at temperature 1: 6: .466, 2: .283, 1 and 4: .104 each, 0: .038, 5: .014.
		{"nucleus .7", Sampling{Temperature: 1, TopP: 0.7}, []int{6, 2}},
		{"nucleus .8", Sampling{Temperature: 1, TopP: 0.8}, []int{6, 2, 1}},
		{"nucleus .01", Sampling{Temperature: 1, TopP: 0.01}, []int{6}},
		{"at least a tenth", Sampling{Temperature: 1, MinP: 0.1}, []int{6, 2, 1, 4}},
		{"at least a tenth, hot", Sampling{Temperature: 4, MinP: 0.5}, []int{6, 2, 1, 4, 0}},
		{"the most probable", Sampling{Temperature: 1, MinP: 1}, []int{6}},
		{"at least a fifth of the top 3", Sampling{Temperature: 1, TopK: 3, MinP: 0.2}, []int{6, 2, 1}},
		{"nucleus, at least half", Sampling{Temperature: 1, TopP: 0.9, MinP: 0.5}, []int{6, 2}},
		{"nucleus of the top 2", Sampling{Temperature: 1, TopK: 2, TopP: 0.9}, []int{6, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, sum := make([]float64, len(logits)), 0.0
			for _, i := range c.kept {
				p[i] = math.Exp(float64(logits[i]) / c.s.Temperature)
				sum += p[i]
			}
			const n = 20000
			count := make([]float64, len(logits))
			s := newSampler(c.s, nil)
			for i := range n {
				count[s.next(slices.Clone(logits), i, false)]++
			}
			for i := range p {
				want := p[i] / sum
				// Five standard deviations; exactly none for what is no candidate.
				if d := math.Abs(count[i]/n - want); d > 5*math.Sqrt(want*(1-want)/n) {
					t.Errorf("token %d: drawn with frequency %v, expected %v", i, count[i]/n, want)
				}
			}
		})
	}
}

func TestSamplerKeys(t *testing.T) {
	draw := func(s Sampling) []int32 {
		p := newSampler(s, nil)
		var ids []int32
		for i := range 40 {
			ids = append(ids, p.next(make([]float32, 50), i, false))
		}
		return ids
	}
	a := draw(Sampling{Temperature: 1, Seed: 1})
	if !slices.Equal(a, draw(Sampling{Temperature: 1, Seed: 1})) {
		t.Error("the same seed draws other tokens")
	}
	if slices.Equal(a, draw(Sampling{Temperature: 1, Seed: 2})) || slices.Equal(a, draw(Sampling{Temperature: 1, Seed: 1, Choice: 1})) {
		t.Error("another seed or choice draws the same tokens")
	}
}

func TestSamplerChangesLogits(t *testing.T) {
	for _, c := range []struct {
		name   string
		s      Sampling
		masked []int32
		want   []int32 // greedy tokens from the logits 0, 3, 2, 1 every time
	}{
		{"plain", Sampling{}, nil, []int32{1, 1, 1, 1}},
		{"masked", Sampling{}, []int32{1}, []int32{2, 2, 2, 2}},
		{"bias", Sampling{Bias: map[int32]float64{0: 5, 1: -100}}, nil, []int32{0, 0, 0, 0}},
		{"presence", Sampling{PresencePenalty: 1.5}, nil, []int32{1, 2, 1, 1}},
		{"frequency", Sampling{FrequencyPenalty: 0.6}, nil, []int32{1, 1, 2, 1}},
		{"first of equals", Sampling{Bias: map[int32]float64{0: 3}}, nil, []int32{0, 0, 0, 0}},
	} {
		s := newSampler(c.s, c.masked)
		var got []int32
		for i := range 4 {
			got = append(got, s.next([]float32{0, 3, 2, 1}, i, false))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, expected %v", c.name, got, c.want)
		}
	}
}

// TestRepetitionPenalty follows the definition in float64: divided or multiplied once, whatever the number of occurrences, in the
// window only, before the other penalties and without a trace in the logits of the next token.
func TestRepetitionPenalty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const vocab = 6
		s := newSampler(Sampling{
			RepetitionPenalty: rapid.SampledFrom([]float64{0, 0.5, 1, 1.3, 2}).Draw(t, "penalty"), RepetitionWindow: rapid.IntRange(0, 5).Draw(t, "window"),
			PresencePenalty: rapid.SampledFrom([]float64{0, 0.7}).Draw(t, "presence"),
		}, nil)
		prompt := rapid.SliceOfN(rapid.Int32Range(0, vocab-1), 0, 6).Draw(t, "prompt")
		s.past = slices.Clone(prompt)
		past := slices.Clone(prompt)
		for i := range 8 {
			logits := rapid.SliceOfN(rapid.Float32Range(-3, 3), vocab, vocab).Draw(t, "logits")
			want := make([]float64, vocab)
			for id, l := range logits {
				want[id] = float64(l)
				window := past
				if n := s.RepetitionWindow; n > 0 {
					window = past[max(0, len(past)-n):]
				}
				if p := s.RepetitionPenalty; p != 0 && slices.Contains(window, int32(id)) {
					if l > 0 {
						want[id] /= p
					} else {
						want[id] *= p
					}
				}
				if slices.Contains(past[len(prompt):], int32(id)) {
					want[id] -= s.PresencePenalty
				}
			}
			id := s.next(logits, i, false)
			past = append(past, id)
			for k := range want {
				if math.Abs(float64(logits[k])-want[k]) > 1e-5 || want[k] > want[id]+1e-5 {
					t.Fatalf("token %d: logit %v, expected %v; chosen %d of %v", k, logits[k], want[k], id, want)
				}
			}
		}
	})
}

func TestLargest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rapid.Float32Range(-3, 3), 1, 60).Draw(t, "x")
		if rapid.Bool().Draw(t, "ties") {
			for i := range x {
				x[i] = float32(math.Round(float64(x[i])))
			}
		}
		k := rapid.IntRange(0, 70).Draw(t, "k")
		want := make([]int32, len(x))
		for i := range want {
			want[i] = int32(i)
		}
		sort.SliceStable(want, func(i, j int) bool { return x[want[i]] > x[want[j]] })
		want = want[:min(k, len(x))]
		if got := largest(nil, x, k); !slices.Equal(got, want) {
			t.Fatalf("%v, expected %v", got, want)
		}
		if len(want) > 0 && argmax(x) != want[0] {
			t.Fatalf("argmax %d, expected %d", argmax(x), want[0])
		}
	})
}

func TestLogSumExp(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, c := range []struct {
		x    []float32
		want float64
	}{
		{[]float32{0}, 0},
		{[]float32{0, 0}, math.Ln2},
		{[]float32{1000, 1000, inf}, 1000 + math.Ln2},
		{[]float32{-1e30, 3}, 3},
		{[]float32{1, 2, 3}, 3.4076059644443806},
		{make([]float32, 3000), math.Log(3000)},
		{[]float32{inf, inf}, math.Inf(-1)},
	} {
		if got := logSumExp(c.x); got != c.want && !(math.Abs(got-c.want) < 2e-7) {
			t.Errorf("%v: %v, expected %v", c.x, got, c.want)
		}
	}
}
