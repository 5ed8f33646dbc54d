package infer

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"autodev/infer/infertest"
	"autodev/internal/edits"
	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// corpusEdits returns edits of files of the corpus's test part, and as many files with another to follow, which copy nothing.
func corpusEdits(t testing.TB, files int) (changed, others []edits.Edit) {
	t.Helper()
	tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil {
		t.Fatal(err)
	}
	changed, others, err = edits.Corpus(t.Context(), tok, sharedtest.Path(t, "corpus/test"), files)
	if err != nil {
		t.Fatal(err)
	}
	return changed, others
}

// follow counts the passes that a completion of e's target takes when a pass of n tokens costs cost(n), and the sum of their
// costs. What is measured of them is now and then several times as long.
func follow(learnt *speculation, e edits.Edit, cost func(n int) float64, noise *rand.Rand) (passes, drafted, accepted int, total float64) {
	d := newDrafter(learnt, nil, e.Prompt, len(e.Target), false)
	d.push(e.Target[0])
	for i := 0; i+1 < len(e.Target); {
		draft := d.draft(len(e.Target)-i-2, 0)
		right := common(draft, e.Target[i+1:])
		passes, drafted, accepted = passes+1, drafted+len(draft), accepted+right
		total += cost(1 + len(draft))
		measured := cost(1 + len(draft))
		if noise.IntN(3) == 0 {
			measured *= 1 + 3*noise.Float64()
		}
		learnt.timed(1+len(draft), time.Duration(measured*float64(time.Second)))
		if len(draft) > 0 {
			d.judged(len(draft), right)
		}
		for _, id := range e.Target[i+1 : i+2+right] {
			d.push(id)
		}
		i += 1 + right
	}
	return passes, drafted, accepted, total
}

// TestEdits: on edits of real files most guesses are right and a model whose passes are bound by reading weights writes at least
// four times as fast; where nothing is copied, or passes cost what their tokens cost alone, guessing loses next to nothing.
func TestEdits(t *testing.T) {
	changed, others := corpusEdits(t, 12)
	for _, model := range []struct {
		name             string
		perToken         float64 // of another token in a pass, in passes of one
		least, leastElse float64 // times as fast on edits and on others
	}{
		{"bound by weights", 0.02, 4, 1.1},
		{"between", 0.2, 2, 1},
		{"bound by arithmetic", 1, 0.98, 0.97},
	} {
		cost := func(n int) float64 { return 1 + model.perToken*float64(n-1) }
		var learnt speculation
		noise := rand.New(rand.NewPCG(5, 5))
		type sums struct{ files, tokens, passes, drafted, accepted, cost float64 }
		byKind := map[string]*sums{}
		all := func(name string, list []edits.Edit) float64 {
			total := &sums{}
			for _, e := range list {
				passes, drafted, accepted, c := follow(&learnt, e, cost, noise)
				if byKind[e.Kind] == nil {
					byKind[e.Kind] = &sums{}
				}
				for _, s := range []*sums{byKind[e.Kind], total} {
					s.files++
					s.tokens += float64(len(e.Target) - 1)
					s.passes += float64(passes)
					s.drafted += float64(drafted)
					s.accepted += float64(accepted)
					s.cost += c
				}
			}
			byKind[name] = total
			return total.tokens / total.cost
		}
		faster, fasterElse := all("all edits", changed), all("another file", others)
		for _, name := range append(edits.Kinds(), "all edits", edits.Other) {
			s := byKind[name]
			t.Logf("%s, %s: %.0f completions, %.1f tokens a pass, %.0f %% of %.0f guesses right, %.2f times as fast",
				model.name, name, s.files, s.tokens/s.passes, 100*s.accepted/max(1, s.drafted), s.drafted, s.tokens/s.cost)
		}
		if faster < model.least || fasterElse < model.leastElse {
			t.Errorf("%s: edits %.2f times as fast, others %.2f; expected at least %v and %v", model.name, faster, fasterElse, model.least, model.leastElse)
		}
	}
}

// BenchmarkEdit decodes edits of real files, followed in place of the choices of a model of random weights, without and with
// guesses.
func BenchmarkEdit(b *testing.B) {
	changed, _ := corpusEdits(b, 2)
	c := infertest.Config(49280)
	c.Positions, c.Embed, c.Layers, c.Heads, c.Inner, c.InitStd = 2048, 768, 12, 12, 3072, 0.02
	ckpt := infertest.Checkpoint(c)
	for _, weights := range []Weights{Float32, Int8} {
		m, err := New(ckpt, nil, Options{Weights: weights})
		if err != nil {
			b.Fatal(err)
		}
		for name, how := range map[string]Speculate{"off": SpeculateOff, "auto": SpeculateAuto} {
			b.Run(string(weights)+"/"+name, func(b *testing.B) {
				var tokens, drafted, accepted int
				var spent time.Duration
				for i := 0; b.Loop(); i++ {
					e := changed[i%len(changed)]
					res, err := m.Generate(context.Background(), Request{Prompt: Prompt{IDs: e.Prompt}, MaxTokens: 200, Replay: e.Target, Speculate: how}, nil)
					if err != nil {
						b.Fatal(err)
					}
					tokens, drafted, accepted, spent = tokens+len(res.IDs), drafted+res.Drafted, accepted+res.Accepted, spent+res.Timings.Decode
				}
				b.ReportMetric(float64(tokens)/spent.Seconds(), "tokens/s")
				b.ReportMetric(float64(accepted)/float64(max(1, drafted)), "right/guess")
				b.ReportMetric(float64(accepted)/float64(tokens), "right/token")
			})
		}
		m.Close()
	}
}
