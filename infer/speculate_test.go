package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"autodev/model"
)

// longest finds the longest run that ends ids and occurs before, by comparing every place.
func longest(ids []int32) (length int) {
	for p := len(ids) - 1; p > 0; p-- {
		n := 0
		for n < maxMatch && n < p && ids[p-1-n] == ids[len(ids)-1-n] && ids[p-1-n] != boundary {
			n++
		}
		length = max(length, n)
	}
	return length
}

// TestLookup: a match is an earlier occurrence of the end of the text, as long as there is any unless the run is too frequent to
// compare all, and never crosses a boundary; what follows is a copy of what followed there.
func TestLookup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(rapid.Int32Range(-1, rapid.Int32Range(1, 9).Draw(t, "symbols")), 1, 120).Draw(t, "ids")
		l := newLookup(rapid.SampledFrom([]int{1, 30, 200}).Draw(t, "room"))
		for i, id := range ids {
			l.push(id)
			seen := ids[:i+1]
			at, n := l.match()
			if n == 0 {
				if at != -1 || id != boundary && slices.Contains(seen[:i], id) {
					t.Fatalf("%v: no match (%d)", seen, at)
				}
				continue
			}
			if at <= 0 || at > i || !slices.Equal(seen[at-n:at], seen[i+1-n:]) || slices.Contains(seen[at-n:at], boundary) {
				t.Fatalf("%v: match of %d before %d", seen, n, at)
			}
			if want := longest(seen); n != want && i < candidates {
				t.Fatalf("%v: match of %d, expected %d", seen, n, want)
			}
			k := rapid.IntRange(0, 20).Draw(t, "follow")
			got := l.follow(nil, at, k)
			// Read on as if the text repeated itself from there.
			whole := slices.Concat(seen, got)
			for j, g := range got {
				if g != whole[at+j] || g == boundary {
					t.Fatalf("%v: after %d follow %v", seen, at, got)
				}
			}
			if len(got) < k && whole[at+len(got)] != boundary {
				t.Fatalf("%v: after %d follow only %v", seen, at, got)
			}
		}
	})
}

// TestDraftLength: drafts grow where guesses are confirmed and passes are cheap, shrink where they fail, and stop where a pass
// costs what its tokens would cost alone.
func TestDraftLength(t *testing.T) {
	timed := func(s *speculation, perToken float64) {
		for _, n := range passSizes {
			s.timed(n, time.Duration(float64(time.Millisecond)*(1+perToken*float64(n-1))))
		}
	}
	var s speculation
	timed(&s, 0.1)
	first := s.draft(4, 31, 0)
	if first < 1 {
		t.Fatalf("no draft at first")
	}
	for range 30 {
		s.judged(4, first, first)
	}
	more := s.draft(4, 31, 0)
	if more <= first {
		t.Errorf("draft of %d after success, %d before", more, first)
	}
	if n := s.draft(4, 2, 0); n != 2 {
		t.Errorf("draft of %d of 2 guesses", n)
	}
	for range 400 {
		s.judged(4, more, 0)
	}
	if n := s.draft(4, 31, 0); n >= first {
		t.Errorf("draft of %d after failures, %d at first", n, first)
	}
	// Other matches have their own record, those that grow pass through several.
	if n := s.draft(20, 31, 0); n < 7 {
		t.Errorf("draft of %d after a long match", n)
	}
	var dear speculation
	timed(&dear, 1)
	drafts := 0
	guesses := map[int]bool{}
	for range 2140 + len(passSizes) - 1 {
		if n := dear.draft(20, 31, 0); n > 0 {
			drafts, guesses[n] = drafts+1, true
		}
	}
	if drafts != len(passSizes)-1 || len(guesses) != drafts {
		t.Errorf("%d drafts of lengths %v where none pays, expected each once", drafts, guesses)
	}
	// What was slow once is measured again.
	timed(&dear, 0.01)
	if n := dear.draft(20, 31, 0); n < 15 {
		t.Errorf("draft of %d where passes have become cheap", n)
	}
	// One disturbed pass changes little, a lasting change is learnt.
	dear.timed(1, time.Second)
	if c := dear.passCost(0); c > 0.05 {
		t.Errorf("cost of %v s after one disturbance", c)
	}
	for range 500 {
		dear.timed(1, time.Second)
	}
	if c := dear.passCost(0); c < 0.9 {
		t.Errorf("cost of %v s after lasting slowness", c)
	}
}

// TestPassCost: between and beyond what was timed, costs are monotone and finite, from whatever was timed.
func TestPassCost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s speculation
		base := rapid.Float64Range(1e-6, 1).Draw(t, "base")
		slope := rapid.Float64Range(0, 1).Draw(t, "slope")
		for i, n := range passSizes {
			if rapid.Bool().Draw(t, "timed") {
				s.cost[i] = base * (1 + slope*float64(n-1))
			}
		}
		last := 0.0
		for i := range passSizes {
			c := s.passCost(i)
			if !(c > 0) || math.IsInf(c, 0) || c < last*(1-1e-9) {
				t.Fatalf("costs %v: %v after %v", s.cost, c, last)
			}
			last = c
		}
	})
}

// copying returns a prompt whose completion, when replayed, is mostly in it, and that completion: runs of the prompt with
// changes.
func copying(r *rand.Rand, vocab int) (prompt, target []int32) {
	prompt = randomIDs(r, vocab, 150)
	for len(target) < 90 {
		from := r.IntN(len(prompt) - 40)
		target = append(target, prompt[from:from+5+r.IntN(35)]...)
		target = append(target, int32(r.IntN(vocab)))
	}
	return prompt, target
}

type outcome struct {
	text, chunks string
	ids          []int32
	tokens       []Token
	reason       FinishReason
	stop         string
}

func outcomeOf(t interface{ Fatal(...any) }, m *Model, r Request) (outcome, Result) {
	var chunks strings.Builder
	res, err := m.Generate(context.Background(), r, func(c Chunk) error {
		fmt.Fprintf(&chunks, "%q%v%s|", c.Text, len(c.Tokens), c.FinishReason)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return outcome{res.Text, chunks.String(), res.IDs, res.Tokens, res.FinishReason, res.StopText}, res
}

func (o outcome) equal(p outcome) bool {
	return o.text == p.text && o.chunks == p.chunks && slices.Equal(o.ids, p.ids) && o.reason == p.reason && o.stop == p.stop &&
		slices.EqualFunc(o.tokens, p.tokens, func(a, b Token) bool {
			return a.ID == b.ID && a.Start == b.Start && a.LogProb == b.LogProb && slices.Equal(a.Top, b.Top)
		})
}

// TestSpeculationLossless: a completion is the same with and without drafts, chunk by chunk and bit by bit, for any sampling,
// stops within a draft, the end of the context, and replays.
func TestSpeculationLossless(t *testing.T) {
	m := textModel(t, func(c *model.Config) { c.Positions = 220 }, 2)
	drafted, accepted := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom([]string{"return a + b\n", "for i in range(10):\n", "x = 1\n", "é日\n"})
		r := Request{
			Prompt:    Prompt{Prefix: strings.Join(rapid.SliceOfN(line, 1, 12).Draw(t, "lines"), ""), Suffix: rapid.SampledFrom([]string{"", "return a"}).Draw(t, "suffix")},
			MaxTokens: rapid.IntRange(0, 300).Draw(t, "max tokens"),
			Sampling: Sampling{
				Temperature: rapid.SampledFrom([]float64{0, 0, 0.3, 1}).Draw(t, "temperature"), Seed: rapid.Uint64().Draw(t, "seed"),
				TopK: rapid.SampledFrom([]int{0, 3}).Draw(t, "top k"), TopP: rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "top p"),
				FrequencyPenalty: rapid.SampledFrom([]float64{0, 0, 0.5}).Draw(t, "penalty"),
			},
			Stop:     rapid.SliceOfN(rapid.SampledFrom([]string{"a", "re", "\n", "é"}), 0, 2).Draw(t, "stop"),
			Logprobs: rapid.Bool().Draw(t, "logprobs"), Top: 2,
			PromptLogprobs: rapid.Bool().Draw(t, "prompt logprobs"),
		}
		if rapid.Bool().Draw(t, "endless") {
			r.Sampling.Bias = noEnd(m)
		}
		if rapid.Bool().Draw(t, "at least") {
			r.MinTokens = min(r.MaxTokens, 20)
		}
		if rapid.Bool().Draw(t, "replay") {
			r.Replay = m.tok.Encode(r.Prompt.Prefix + "x" + r.Prompt.Prefix)
			r.Replay = append(r.Replay, m.stops[0])
			r.Replay = append(r.Replay, r.Replay...)
		}
		r.Speculate = SpeculateOff
		want, plain := outcomeOf(t, m, r)
		if plain.Drafted != 0 || plain.Accepted != 0 {
			t.Fatalf("%d tokens drafted although off", plain.Drafted)
		}
		for _, r.Speculate = range []Speculate{SpeculateAlways, SpeculateAuto} {
			got, res := outcomeOf(t, m, r)
			if !got.equal(want) {
				t.Fatalf("%d drafted, %d accepted:\n%+v\nwithout\n%+v", res.Drafted, res.Accepted, got, want)
			}
			drafted, accepted = drafted+res.Drafted, accepted+res.Accepted
			if res.Accepted > res.Drafted || res.Accepted > len(res.IDs) {
				t.Fatalf("%d accepted of %d drafted for %d tokens", res.Accepted, res.Drafted, len(res.IDs))
			}
		}
	})
	t.Logf("%d tokens drafted, %d accepted", drafted, accepted)
	if accepted == 0 || accepted == drafted {
		t.Errorf("%d tokens drafted, %d accepted: expected right and wrong ones", drafted, accepted)
	}
}

// TestSpeculationSession: after a completion with drafts the session holds what one without leaves, bit by bit.
func TestSpeculationSession(t *testing.T) {
	m := randomModel(t, nil, 2)
	r := rand.New(rand.NewPCG(1, 7))
	for range 6 {
		prompt, target := copying(r, m.vocab)
		var logits [2][]float32
		for i, how := range []Speculate{SpeculateOff, SpeculateAlways} {
			j, err := m.prepare(Request{Prompt: Prompt{IDs: prompt}, MaxTokens: 1 + r.IntN(len(target)), Replay: target, Speculate: how})
			if err != nil {
				t.Fatal(err)
			}
			s := m.NewSession()
			res, err := m.run(t.Context(), j, s, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(prompt) + len(res.IDs); s.Len() > n || s.Len() < n-1 || !slices.Equal(s.ids, slices.Concat(prompt, res.IDs)[:s.Len()]) {
				t.Fatalf("session of %d tokens after %d", s.Len(), n)
			}
			s.Truncate(len(prompt))
			last, err := s.Append(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			logits[i] = slices.Clone(last)
			s.Close()
		}
		if !sameBits(logits[0], logits[1]) {
			t.Error("logits after a completion with drafts differ")
		}
	}
}

// TestSpeculationReplay: a target that copies the prompt with changes is drafted and mostly accepted, in far fewer passes.
func TestSpeculationReplay(t *testing.T) {
	m := randomModel(t, nil, 1)
	prompt, target := copying(rand.New(rand.NewPCG(3, 3)), m.vocab)
	req := Request{Prompt: Prompt{IDs: prompt}, MaxTokens: 1000, Replay: target, Speculate: SpeculateAlways}
	res, err := m.Generate(t.Context(), req, nil)
	if err != nil || !slices.Equal(res.IDs, target) || res.FinishReason != FinishLength {
		t.Fatalf("%v, %q, %v; expected %v", res.IDs, res.FinishReason, err, target)
	}
	if res.Accepted < len(target)*6/10 {
		t.Errorf("%d of %d tokens accepted, expected most", res.Accepted, len(target))
	}
	req.Replay = []int32{97}
	if _, err := m.Generate(t.Context(), req, nil); errorText(err) != "replay: token 0: found id 97, expected 0 to 96" {
		t.Errorf("replay of a token that is none: %v", err)
	}
}

// TestSpeculationCancel: a completion cancelled at any look at the context, or by its receiver at any chunk, is a beginning of the
// whole one.
func TestSpeculationCancel(t *testing.T) {
	m := textModel(t, nil, 1)
	prompt := m.tok.Encode(strings.Repeat("for i in range(10):\n    print(i)\n", 3))
	r := Request{Prompt: Prompt{IDs: prompt}, MaxTokens: 60, Replay: slices.Concat(prompt, prompt), Speculate: SpeculateAlways}
	whole, err := m.Generate(t.Context(), r, nil)
	if err != nil || whole.Accepted == 0 {
		t.Fatalf("%d accepted, %v", whole.Accepted, err)
	}
	counted := &countdown{Context: context.Background(), left: 1 << 30}
	if _, err := m.Generate(counted, r, nil); err != nil {
		t.Fatal(err)
	}
	looks := 1<<30 - counted.left
	for at := 0; at < looks; at += 3 {
		c := &countdown{Context: context.Background(), left: at}
		res, err := m.Generate(c, r, nil)
		if !errors.Is(err, context.Canceled) || c.left != -1 || res.FinishReason != FinishCancel || !slices.Equal(res.IDs, whole.IDs[:len(res.IDs)]) {
			t.Fatalf("cancelled at look %d of %d: %v, %d looks more, %v", at, looks, err, -1-c.left, res.IDs)
		}
	}
	gone := errors.New("gone")
	for at := range whole.IDs {
		n := 0
		res, err := m.Generate(t.Context(), r, func(Chunk) error {
			if n++; n > at {
				return gone
			}
			return nil
		})
		if !errors.Is(err, gone) || len(res.IDs) == 0 || !slices.Equal(res.IDs, whole.IDs[:len(res.IDs)]) {
			t.Fatalf("receiver gone at chunk %d: %v, %v", at, err, res.IDs)
		}
	}
}

// TestSpeculationTogether: completions that learn from each other's drafts at the same time are what they are alone.
func TestSpeculationTogether(t *testing.T) {
	m := textModel(t, nil, 3)
	var wg sync.WaitGroup
	for i := range 8 {
		r := Request{Prompt: Prompt{Prefix: strings.Repeat("x = a\n", 3+i)}, MaxTokens: 50, Sampling: Sampling{Temperature: float64(i%2) / 4, Seed: uint64(i)}}
		r.Speculate = SpeculateOff
		want, _ := outcomeOf(t, m, r)
		for _, how := range []Speculate{SpeculateAuto, SpeculateAlways} {
			r := r
			r.Speculate = how
			wg.Go(func() {
				if got, _ := outcomeOf(failing{t}, m, r); !got.equal(want) {
					t.Errorf("request %d: %q, expected %q", i, got.text, want.text)
				}
			})
		}
	}
	wg.Wait()
}

// failing reports a failure from any goroutine.
type failing struct{ t *testing.T }

func (f failing) Fatal(args ...any) { f.t.Error(args...) }
