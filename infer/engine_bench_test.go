package infer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"autodev/infer/infertest"
)

// BenchmarkEngineBatch is greedy decoding by 1 to 16 callers at a time: tokens per second of all together, without guesses.
func BenchmarkEngineBatch(b *testing.B) {
	c := infertest.Config(16384)
	c.Positions, c.Embed, c.Layers, c.Heads, c.Inner, c.InitStd = 2048, 1024, 12, 8, 4096, 0.02
	m, err := New(infertest.Checkpoint(c), nil, Options{Weights: Int8})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	r := rand.New(rand.NewPCG(3, 3))
	for _, callers := range []int{1, 2, 4, 8, 16} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			e := NewEngine(m, EngineOptions{Concurrency: callers, CacheBytes: 1 << 30})
			defer e.Close()
			var reqs []Request
			for range callers {
				reqs = append(reqs, Request{Prompt: Prompt{IDs: randomIDs(r, m.vocab, 100)}, MaxTokens: 64, Speculate: SpeculateOff, Sampling: Sampling{Bias: noEnd(m)}})
			}
			run := func() {
				var wg sync.WaitGroup
				for _, r := range reqs {
					wg.Go(func() {
						if _, err := e.Complete(context.Background(), []Request{r}, nil); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
			run() // the prompts are in the cache then
			before := e.Stats()
			for b.Loop() {
				run()
			}
			s := e.Stats()
			b.ReportMetric(float64(s.GeneratedTokens-before.GeneratedTokens)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(float64(s.Rows-before.Rows)/float64(s.Passes-before.Passes), "rows/pass")
		})
	}
}
