package cuda

import (
	"fmt"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cudaplan"
)

// TestProducts: cuBLASLt has an algorithm for every product that training and inference ask for, in every type that the card multiplies in, at
// SantaCoder's sizes and at odd ones. Nothing is computed, and addresses are made up: on a card this says in a second which products it lacks.
func TestProducts(t *testing.T) {
	widths := []struct {
		name                                    string
		n, embed, qkv, inner, vocab, rows, rank int
	}{
		{"santacoder", 32768, 2048, 2304, 8192, 49280, 49280, 64},
		{"odd", 37, 52, 76, 100, 257, 263, 3}, // rows of weights that are no multiples of a vector
		{"one", 1, 16, 24, 64, 32, 32, 1},
	}
	onBench(t, func(b workbench) {
		stores := []Store{F32, F16}
		if b.d.Properties().Capability >= 80 {
			stores = append(stores, BF16)
		}
		const at, base, vector, aux = Ptr(1 << 20), Ptr(1 << 30), Ptr(1<<20 + 64), Ptr(1 << 31)
		for _, w := range widths {
			for _, s := range stores {
				b.do(func(q *Queue) error {
					check := func(what string, prepare func() error) {
						t.Helper()
						if err := prepare(); err != nil {
							b.t.Errorf("%s, %v, %s: %v", w.name, s, what, err)
						}
					}
					for _, l := range []linear{
						{w.n, w.embed, w.qkv, 1, s}, {w.n, w.embed, w.embed, 1, s}, {w.n, w.embed, w.inner, 1, s}, {w.n, w.inner, w.embed, 1, s},
						{w.n, w.embed, w.rank, 1, s}, {w.n, w.rank, w.qkv, 2, s}, {w.n, w.rank, w.inner, 2, s},
					} {
						what := fmt.Sprintf("linear of %d in %d out, ", l.in, l.out)
						for _, to := range []Ptr{0, base} {
							for _, bias := range []Ptr{0, vector} {
								check(fmt.Sprint(what, "forward, base ", to != 0, ", bias ", bias != 0), func() error {
									_, err := l.forward(q, at, at, at, bias, to)
									return err
								})
							}
							check(fmt.Sprint(what, "gradient of x, base ", to != 0), func() error {
								_, err := l.gradX(q, at, at, at, to)
								return err
							})
							check(fmt.Sprint(what, "gradient of w, fresh ", to != 0), func() error {
								_, err := l.gradW(q, at, at, at, to != 0)
								return err
							})
						}
						// Where these are missing, products and activations stay apart.
						note := func(what string, err error) {
							if cublaslt.Unsupported(err) {
								b.t.Logf("%s, %v, %s: not fused: %v", w.name, s, what, err)
							} else if err != nil {
								b.t.Error(err)
							}
						}
						if l.out%8 == 0 && l.in%8 == 0 {
							for _, bias := range []Ptr{0, vector} {
								for _, z := range []Ptr{0, aux} {
									for _, to := range []Ptr{0, base} {
										_, err := l.forwardGELU(q, at, z, at, at, bias, to)
										note(fmt.Sprint(what, "GELU, bias ", bias != 0, ", aux ", z != 0, ", base ", to != 0), err)
									}
								}
							}
							_, err := l.gradXGELU(q, at, at, at, base, aux)
							note(what+"gradient of GELU", err)
						}
					}
					h := head{x: at, w: at, targets: at, work: at, n: min(w.n, 2*cudaplan.LogitRows), width: w.embed, rows: w.rows, vocab: w.vocab}
					check("cross-entropy", func() error { _, err := crossEntropy(q, at, at, at, h, at, s); return err })
					check("likelihoods", func() error { _, err := tokenNLL(q, at, h, s); return err })
					k := q.Inference(s)
					for _, n := range []int{FewRows + 1, 512, w.n} {
						if n <= FewRows {
							continue
						}
						check(fmt.Sprint("logits of ", n, " rows"), func() error {
							_, err := k.Logits(at, at, Norm{}, Weight{At: at}, min(n, 512), w.embed, w.vocab)
							return err
						})
						check(fmt.Sprint("scores of ", n, " rows"), func() error {
							_, err := k.NLL(at, at, Weight{At: at}, at, at, min(n, 512), w.embed, w.vocab)
							return err
						})
						for _, p := range []Product{
							{In: w.embed, Out: w.inner, Bias: vector, Activate: true, Act: compute.GELUTanh}, {In: w.embed, Out: w.inner, Activate: true, Act: compute.GELUTanh},
							{In: w.inner, Out: w.embed, Bias: vector, Base: base},
						} {
							p.Y, p.X, p.W, p.N = at, at, Weight{At: at}, n
							check(fmt.Sprintf("inference's linear, %+v", p), func() error { _, err := k.Linear(p); return err })
						}
					}
					return nil
				})
			}
		}
	})
}
