package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"time"

	"autodev/compute/cuda"
	"autodev/compute/cuda/cublaslt"
)

// shape is a product of the training step with a name for people.
type shape struct {
	name string
	cublaslt.Product
}

// shapes lists the products of a step on n tokens of a model with these widths, as compute/cuda's Linear family and cross-entropy ask for
// them: forward, the gradient of the input, that of the weight (added to in float32), two with their activations; then the head, in pieces of rows tokens, and
// the adapters' of the given rank.
func shapes(n, embed, qkv, inner, vocab, rows, rank int) []shape {
	var all []shape
	linear := func(name string, n, in, out int, head bool) {
		b, f := cublaslt.BF16, cublaslt.F32
		forward := cublaslt.Product{M: n, N: out, K: in, TransB: true, In: b, Out: b}
		if !head {
			forward.Epilogue = cublaslt.Bias
		}
		all = append(all, shape{name, forward},
			shape{name + ", dx", cublaslt.Product{M: n, N: in, K: out, In: b, Out: b}},
			shape{name + ", dw", cublaslt.Product{M: out, N: in, K: n, TransA: true, In: b, Out: f}})
	}
	linear("attn.c_attn", n, embed, qkv, false)
	linear("attn.c_proj", n, embed, embed, false)
	linear("mlp.c_fc", n, embed, inner, false)
	linear("mlp.c_proj", n, inner, embed, false)
	all = append(all,
		shape{"mlp.c_fc with GELU", cublaslt.Product{M: n, N: inner, K: embed, TransB: true, In: cublaslt.BF16, Out: cublaslt.BF16, Epilogue: cublaslt.BiasGELU}},
		shape{"mlp.c_proj, dx with GELU's gradient", cublaslt.Product{M: n, N: inner, K: embed, In: cublaslt.BF16, Out: cublaslt.BF16, Epilogue: cublaslt.DGELU}})
	linear("head", min(rows, n), embed, vocab, true)
	linear("lora_A", n, embed, rank, true)
	linear("lora_B", n, rank, qkv, true)
	return all
}

// timed is what came of a shape.
type timed struct {
	Name       string  `json:"name"`
	M          int     `json:"m"`
	N          int     `json:"n"`
	K          int     `json:"k"`
	First      float64 `json:"first_tflops"` // the library's first choice, which is what AutoDev takes
	Best       float64 `json:"best_tflops"`
	Choice     int     `json:"best_index"`
	Algorithms int     `json:"algorithms"`
	Share      float64 `json:"share"` // first ÷ best
	Error      string  `json:"error,omitempty"`
}

func products(ctx context.Context, args []string) (_ any, err error) {
	f := flag.NewFlagSet("products", flag.ContinueOnError)
	n := f.Int("tokens", 32768, "tokens of a micro-batch")
	embed, qkv, inner, vocab := f.Int("embed", 2048, ""), f.Int("qkv", 2304, ""), f.Int("inner", 8192, ""), f.Int("vocab", 49280, "")
	rows, rank := f.Int("rows", 2048, "tokens whose logits exist at a time"), f.Int("rank", 64, "of the adapters")
	algorithms := f.Int("algorithms", 8, "timed for each product")
	runs := f.Int("runs", 10, "of each algorithm, three times")
	square := f.Int("square", 8192, "rows and columns of the product that shows the card's most")
	bytes := f.Int64("bytes", 2<<30, "of the copy that shows the memory's bandwidth")
	limit := f.Duration("limit", 60*time.Second, "after which no shape is begun")
	if err := parse(f, args); err != nil {
		return nil, err
	}
	begun := time.Now()
	d, err := cuda.New(cuda.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, d.Close()) }()
	report := struct {
		Copy     float64 `json:"copy_bytes_per_second"` // read and written
		Square   timed   `json:"square"`
		Products []timed `json:"products"`
		Left     int     `json:"left_out"` // for want of time
	}{}
	if report.Copy, err = bandwidth(d, *bytes); err != nil {
		return nil, err
	}
	s := *square
	report.Square = timeShape(d, shape{fmt.Sprint(s, "³"), cublaslt.Product{M: s, N: s, K: s, TransB: true, In: cublaslt.BF16, Out: cublaslt.BF16}}, *algorithms, *runs)
	all := shapes(*n, *embed, *qkv, *inner, *vocab, *rows, *rank)
	for i, s := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if time.Since(begun) > *limit {
			report.Left = len(all) - i
			break
		}
		report.Products = append(report.Products, timeShape(d, s, *algorithms, *runs))
	}
	return report, nil
}

// timeShape times a shape; what goes wrong is in the result, so that the others follow.
func timeShape(d *cuda.Device, s shape, algorithms, runs int) timed {
	r := timed{Name: s.name, M: s.M, N: s.N, K: s.K}
	err := d.Do(func(q *cuda.Queue) error {
		times, err := q.TimeAlgorithms(s.Product, algorithms, runs)
		if err != nil {
			return err
		}
		rate := func(t time.Duration) float64 {
			return 2 * float64(s.M) * float64(s.N) * float64(s.K) / max(t.Seconds(), 1e-9) / 1e12
		}
		r.First, r.Algorithms = rate(times[0].Took), len(times)
		for i, t := range times {
			if v := rate(t.Took); v > r.Best {
				r.Best, r.Choice = v, i
			}
		}
		r.Share = r.First / r.Best
		return nil
	})
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// bandwidth returns the bytes that a copy inside the card's memory reads and writes in a second.
func bandwidth(d *cuda.Device, bytes int64) (rate float64, err error) {
	err = d.Do(func(q *cuda.Queue) (err error) {
		p, err := q.Alloc(2 * bytes)
		if err != nil {
			return err
		}
		defer func() { err = join(err, q.Free(p)) }()
		if err := q.Fill(p, 0x3c, 2*bytes); err != nil {
			return err
		}
		best := math.Inf(1)
		for range 5 {
			took, err := q.Time(func() error { return q.Copy(p+cuda.Ptr(bytes), p, bytes) })
			if err != nil {
				return err
			}
			best = min(best, took.Seconds())
		}
		rate = 2 * float64(bytes) / max(best, 1e-9)
		return nil
	})
	return rate, err
}
