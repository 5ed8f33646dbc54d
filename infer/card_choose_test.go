package infer

import (
	"math/rand/v2"
	"slices"
	"testing"

	"autodev/model"
)

// TestCardSamples: what a card draws is what the host would from the same logits, alone and beside greedy choices and wanted logits, with tokens that are never
// generated; where more may be left than the card sorts too.
func TestCardSamples(t *testing.T) {
	onCard(t, 5)
	m, _ := cardModel(t, cardCheckpoint(func(c *model.Config) { c.Layers, c.Vocab, c.VocabSize = 1, 4400, 4400 }), Float32)
	co := newCompany(t, m)
	for _, s := range [][2]int{{40, 1}, {3, 4}, {30, 1}, {0, 20}, {0, 3}} {
		co.join(s[0], s[1])
	}
	m.card.masked = []int32{2, 99}
	if err := m.card.d.Do(m.card.mask); err != nil {
		t.Fatal(err)
	}
	options := []Sampling{
		{Temperature: 1}, {Temperature: 0.4, TopK: 5}, {Temperature: 1.3, TopP: 0.6}, {Temperature: 0.8, MinP: 0.3}, {Temperature: 1, TopK: 90, TopP: 0.8, MinP: 0.1},
		{Temperature: 0.7, TopK: m.vocab + 7}, {Temperature: 100, TopK: 4300},
	}
	other, all := 0, 0
	for round, o := range options {
		which := []int{0, 1, 2, 3, 4}
		plain := co.spans(which)
		co.run(plain)
		logits := make([][]float32, len(plain))
		for k, s := range plain {
			logits[k] = slices.Clone(s.logits)
		}
		drawn := co.spans(which)
		for k, s := range drawn {
			if k == round%5 {
				continue // the logits are wanted
			}
			s.choices, s.next = make([]int32, s.wanted()), 10*round+k
			if k != (round+1)%5 {
				s.sampling = &Sampling{}
				*s.sampling = o
				s.sampling.Seed, s.sampling.Choice = uint64(round), uint64(k)
			}
		}
		co.run(drawn)
		for k, s := range drawn {
			if s.choices == nil {
				if !sameBits(s.logits, logits[k]) {
					t.Errorf("options %d, sequence %d: other logits", round, k)
				}
				continue
			}
			how := Sampling{}
			if s.sampling != nil {
				how = *s.sampling
			}
			for r, got := range s.choices {
				row := logits[k][r*m.rows:][:m.vocab]
				want := newSampler(how, m.card.masked).next(row, s.next+r, false)
				if all++; got != want {
					other++
					t.Logf("%+v, sequence %d: token %d, the host draws %d", how, k, got, want)
				}
			}
			if s.logits != nil {
				t.Errorf("options %d, sequence %d: logits came too", round, k)
			}
		}
	}
	if other > all/50 {
		t.Errorf("%d of %d tokens are not what the host draws", other, all)
	}
}

// TestCardSampledCompletions: a card that draws makes the completions that the host's draws from its logits make, with guesses too.
func TestCardSampledCompletions(t *testing.T) {
	onCard(t, 6)
	m, _ := cardModel(t, cardCheckpoint(func(c *model.Config) { c.Layers = 1 }), BFloat16)
	r := rand.New(rand.NewPCG(3, 1))
	for i, o := range []Sampling{{Temperature: 0.8}, {Temperature: 0.6, TopP: 0.9}, {Temperature: 1, TopK: 10, MinP: 0.1}} {
		a := randomIDs(r, m.vocab, 6)
		o.Seed = uint64(i)
		req := Request{Prompt: Prompt{IDs: slices.Concat(a, a)}, MaxTokens: 12, Speculate: []Speculate{SpeculateOff, SpeculateAlways}[i%2], Sampling: o}
		got, err := m.Generate(t.Context(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Logprobs = true // which need the logits
		want, err := m.Generate(t.Context(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.IDs, want.IDs) {
			t.Errorf("%+v: %v, the host draws %v", o, got.IDs, want.IDs)
		}
	}
}
