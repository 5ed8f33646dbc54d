package cuda

import (
	"fmt"
	"math"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cudaplan"
	"autodev/compute/ref"
)

// scored is a head and its targets, and what the reference makes of them. Padding rows of w are large: nothing may come of them.
type scored struct {
	n, width, rows, vocab int
	x, w                  []float32
	targets               []int32
}

func newScored(n, width, rows, vocab int, s Store) scored {
	c := scored{n, width, rows, vocab, random(1, n*width, s), random(2, rows*width, s), randomIDs(3, n, vocab)}
	for i := vocab * width; i < len(c.w); i++ {
		c.w[i] = round(100*c.w[i], s)
	}
	c.targets[0] = int32(vocab - 1)
	for i := 2; i < n; i += 3 {
		c.targets[i] = -100
	}
	return c
}

func (c scored) head(b workbench, s Store) head {
	d := compute.F32
	if s != F32 {
		d = compute.BF16
	}
	work := min(c.n, cudaplan.LogitRows)*cudaplan.LogitStride(c.vocab, d)*s.Size() + 4*c.n
	return head{b.floats(c.x, s), b.floats(c.w, s), put(b, c.targets), b.empty(work), c.n, c.width, c.rows, c.vocab}
}

// headShapes are tokens, width, rows, scored rows: one of each; no rows but scored ones, of an odd number; rows padded by more and by
// less than a vector; more scored rows than a block has threads for vectors; more tokens than a piece.
var headShapes = [][4]int{{1, 8, 1, 1}, {5, 16, 37, 37}, {7, 12, 64, 41}, {6, 8, 42, 41}, {3, 8, 9001, 9000}, {cudaplan.LogitRows + 5, 8, 24, 20}}

// headTolerance is of likelihoods, and of gradients as a share of their sizes: logits and their gradients are rounded to the store.
func headTolerance(s Store, unit float64) (nll, gradient float64) {
	if s == F32 {
		return 2e-5, 2e-5
	}
	return 12 * unit, 8 * unit // of logits up to some 10
}

func (c scored) crossEntropy(b workbench, frozen bool, s Store) (loss, dx, dw []float32) {
	const scale = 0.25
	h := c.head(b, s)
	pl, px, pw, ps := b.empty(4), b.empty(len(c.x)*s.Size()), Ptr(0), put(b, []float32{scale})
	if !frozen {
		pw = put(b, random(4, len(c.w), F32))
	}
	b.run(func(q *Queue) (Op, error) { return crossEntropy(q, pl, px, pw, h, ps, s) })
	if !frozen {
		dw = get[float32](b, pw, len(c.w))
	}
	return get[float32](b, pl, 1), b.read(px, len(c.x), s), dw
}

func (c scored) want(t testing.TB) (loss, dx, dw []float32) {
	loss, dx, dw = make([]float32, 1), make([]float32, len(c.x)), random(4, len(c.w), F32)
	if err := ref.CrossEntropy(loss, dx, dw, c.x, c.w, c.targets, 0.25, c.width, compute.Attr{Vocab: c.vocab}); err != nil {
		t.Fatal(err)
	}
	return loss, dx, dw
}

func TestCrossEntropy(t *testing.T) {
	first := map[string][]float32{}
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, shape := range headShapes {
				c := newScored(shape[0], shape[1], shape[2], shape[3], s.store)
				wantLoss, wantX, wantW := c.want(b.t)
				loss, dx, dw := c.crossEntropy(b, false, s.store)
				what := fmt.Sprint(s.store, shape)
				nll, gradient := headTolerance(s.store, s.unit)
				cudatest.Close(b.t, what+" loss", loss, wantLoss, nll/4, nll/4)
				cudatest.Close(b.t, what+" dx", dx, wantX, gradient, gradient)
				cudatest.Close(b.t, what+" dw", dw, wantW, 4*gradient, gradient)
				all := append(append(loss, dx...), dw...)
				if old := first[what]; old != nil {
					sameBits(b.t, what+" under another schedule", all, old)
				}
				first[what] = all
				_, frozen, _ := c.crossEntropy(b, true, s.store)
				sameBits(b.t, what+" with a frozen head", frozen, dx)
			}
		}
	})
}

func TestTokenNLL(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, shape := range headShapes {
				c := newScored(shape[0], shape[1], shape[2], shape[3], s.store)
				want := make([]float32, c.n)
				if err := ref.TokenNLL(want, c.x, c.w, c.targets, c.width, compute.Attr{Vocab: c.vocab}); err != nil {
					b.t.Fatal(err)
				}
				h, p := c.head(b, s.store), b.empty(4*c.n)
				b.run(func(q *Queue) (Op, error) { return tokenNLL(q, p, h, s.store) })
				nll, _ := headTolerance(s.store, s.unit)
				cudatest.Close(b.t, fmt.Sprint(s.store, shape), get[float32](b, p, c.n), want, nll, nll/4)
			}
		}
	})
}

// A target that is no scored row makes the loss a NaN and nothing else: no memory beside the logits is touched.
func TestTargetsOutOfRange(t *testing.T) {
	onBench(t, func(b workbench) {
		c := newScored(4, 8, 24, 20, BF16)
		c.targets[1] = 20
		loss, dx, _ := c.crossEntropy(b, false, BF16)
		if loss[0] == loss[0] {
			b.t.Errorf("loss %v, expected a NaN", loss[0])
		}
		sameBits(b.t, "gradient of the wrong token", dx[8:16], make([]float32, 8))
		h, p := c.head(b, BF16), b.empty(4*c.n)
		b.run(func(q *Queue) (Op, error) { return tokenNLL(q, p, h, BF16) })
		if nll := get[float32](b, p, c.n); nll[1] == nll[1] || nll[0] != nll[0] || nll[2] != 0 {
			b.t.Errorf("likelihoods %v, expected a NaN in place 1 alone", nll)
		}
		h.vocab = 25
		if _, err := tokenNLL(nil, p, h, BF16); err == nil {
			b.t.Error("more scored rows than rows are accepted")
		}
	})
}

// The kernel alone, on given logits.
func TestTokenNLLWithoutBarrierIsCaught(t *testing.T) {
	planted(t, "cross_entropy.cu:softmax_barrier", 3, func(b workbench) bool {
		const rows, vocab = 3, 2000
		logits, targets, want := random(1, rows*vocab, F32), randomIDs(2, rows, vocab), make([]float32, rows)
		for i := range want {
			sum := 0.0
			for _, x := range logits[i*vocab:][:vocab] {
				sum += math.Exp(float64(x))
			}
			want[i] = float32(math.Log(sum)) - logits[i*vocab+int(targets[i])]
		}
		nll, p, at := b.empty(4*rows), put(b, logits), put(b, targets)
		b.run(func(q *Queue) (Op, error) {
			return q.Prepare("token_nll_f32", Grid{Blocks: Dim{rows}, Threads: Dim{512}}, nll, p, at, vocab, vocab)
		})
		_, differs := cudatest.Differs(get[float32](b, nll, rows), want, 1e-3, 1e-3)
		return differs
	})
}
