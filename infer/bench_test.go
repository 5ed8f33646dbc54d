package infer

import (
	"context"
	"math/rand/v2"
	"testing"

	"autodev/infer/infertest"
	"autodev/model"
)

// The size of autodev-tiny.
func benchModel(b *testing.B) *Model {
	return newModel(b, infertest.Checkpoint(benchConfig()), nil, 0)
}

func benchConfig() model.Config {
	c := infertest.Config(8192)
	c.Positions, c.Embed, c.Layers, c.Heads, c.Inner, c.InitStd = 1024, 256, 6, 4, 1024, 0.02
	return c
}

func BenchmarkPrompt512(b *testing.B) {
	m := benchModel(b)
	ids := randomIDs(rand.New(rand.NewPCG(1, 1)), m.vocab, 512)
	for b.Loop() {
		s := m.NewSession()
		if _, err := s.Append(context.Background(), ids); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	b.ReportMetric(float64(b.N*len(ids))/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkDecodeAfter512(b *testing.B) {
	m := benchModel(b)
	ids := randomIDs(rand.New(rand.NewPCG(1, 1)), m.vocab, 512)
	s := m.NewSession()
	defer s.Close()
	if _, err := s.Append(context.Background(), ids); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		logits, err := s.Append(context.Background(), ids[:1])
		if err != nil {
			b.Fatal(err)
		}
		argmax(logits)
		s.Truncate(512)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkNLL1024(b *testing.B) {
	m := benchModel(b)
	ids := randomIDs(rand.New(rand.NewPCG(1, 1)), m.vocab, 1024)
	for b.Loop() {
		if _, err := m.NLL(context.Background(), ids, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*(len(ids)-1))/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkGenerate shows what the loop around the model costs, and the engine around that: the model is as small as can be.
func BenchmarkGenerate(b *testing.B) {
	m := textModel(b, func(c *model.Config) { c.Embed, c.Layers, c.Inner, c.Heads = 8, 1, 8, 1 }, 1)
	r := Request{Prompt: Prompt{Prefix: "def add(a, b):\n"}, MaxTokens: 500, Sampling: Sampling{Temperature: 1, TopP: 0.9, Bias: noEnd(m)}, Stop: []string{"\n\n\n\n\n"}}
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	for name, complete := range map[string]func() (Result, error){
		"model": func() (Result, error) { return m.Generate(context.Background(), r, func(Chunk) error { return nil }) },
		"engine": func() (Result, error) {
			all, err := e.Complete(context.Background(), []Request{r}, func(int, Chunk) error { return nil })
			return all[0], err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			tokens := 0
			for b.Loop() {
				res, err := complete()
				if err != nil {
					b.Fatal(err)
				}
				tokens += len(res.IDs)
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
