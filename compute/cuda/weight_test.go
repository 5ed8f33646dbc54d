package cuda

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cpu/quant"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cuda/cudatest"
)

func (b workbench) weight(m *quant.Matrix, bits int) Weight {
	w := b.quantised(m, bits)
	return Weight{At: w.codes, Scales: w.scales, Bits: bits}
}

// TestLinearOfCodes: products of many rows with weights of codes are those with what the codes stand for, whatever memory there is to widen them in: the bits
// are the same in one part and in several, and what is widened stays inside its memory.
func TestLinearOfCodes(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, bits := range []int{8, 4} {
			for _, p := range []gemvProblem{
				{n: FewRows + 1, in: 68, out: 50, bias: true, gelu: true, store: BF16, to: BF16},
				{n: 40, in: 300, out: 96, bias: true, base: true, store: BF16, to: BF16},
				{n: 40, in: 300, out: 96, bias: true, base: true, store: F16, to: F16},
				{n: 37, in: 300, out: 40, bias: true, base: true, store: F32, to: F32},
			} {
				x, _, bias, base := p.operands()
				m, w := p.quantised(b.t, bits)
				for i := range w {
					w[i] = round(w[i], p.store)
				}
				var first []float32
				for _, parts := range []int{1, 2, 6} {
					panels := max(1, ceilDiv(p.out, quantPanel)/parts)
					wide := panels * quantPanel * p.in * p.store.Size()
					y, at := b.floats(base, p.store), b.empty(wide)
					product := Product{Y: y, X: b.floats(x, p.store), W: b.weight(m, bits), Bias: b.floats(bias, p.store), N: p.n, In: p.in, Out: p.out, Activate: p.gelu, Act: compute.GELUTanh}
					if p.base {
						product.Base = y
					}
					b.run(func(q *Queue) (Op, error) {
						return q.Inference(p.store).Widening(at, int64(wide)).Linear(product)
					})
					got := b.read(y, p.n*p.out, p.store)
					unit := map[Store]float64{F32: 1e-5, BF16: 0x1p-7, F16: 0x1p-10}[p.store]
					what := fmt.Sprintf("%d bits in %d panels at a time, %+v", bits, panels, p)
					cudatest.Close(b.t, what, got, p.want(x, w, bias, base), 1e-3, unit)
					if first == nil || cudatest.GPU() { // a card's products may be summed in another order when they are wider
						first = got
					}
					sameBits(b.t, what, got, first)
				}
			}
		}
	})
}

// TestLogitsOfCodes: logits of few and of many rows, and scores.
func TestLogitsOfCodes(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range []Store{BF16, F16, F32} {
			for _, n := range []int{3, mostGEMV + 4} {
				p := gemvProblem{n: n, in: 68, out: 75, store: s, to: F32}
				x, _, _, _ := p.operands()
				m, w := p.quantised(b.t, 8)
				if n > FewRows {
					for i := range w {
						w[i] = round(w[i], s)
					}
				}
				want := p.want(x, w, nil, nil)
				const vocab = 70
				targets, nll := make([]int32, n), make([]float32, n)
				for r := range n {
					sum := 0.0
					for _, v := range want[r*p.out:][:vocab] {
						sum += math.Exp(float64(v))
					}
					targets[r] = int32(7 * r % vocab)
					nll[r] = float32(math.Log(sum)) - want[r*p.out+int(targets[r])]
				}
				wide := 2 * quantPanel * p.in * s.Size()
				atX, on, at, atTargets := b.floats(x, s), b.weight(m, 8), b.empty(wide), put(b, targets)
				y, scores, work := b.empty(4*n*p.out), b.empty(4*n), b.empty(int(NLLWork(n, vocab)))
				b.run(func(q *Queue) (Op, error) {
					return q.Inference(s).Widening(at, int64(wide)).Logits(y, atX, Norm{}, on, n, p.in, p.out)
				})
				cudatest.Close(b.t, fmt.Sprintf("logits of %d rows in %v", n, s), b.read(y, n*p.out, F32), want, 1e-4, 1e-5)
				if n <= FewRows {
					continue
				}
				b.run(func(q *Queue) (Op, error) {
					return q.Inference(s).Widening(at, int64(wide)).NLL(scores, atX, on, atTargets, work, n, p.in, vocab)
				})
				cudatest.Close(b.t, fmt.Sprintf("scores in %v", s), b.read(scores, n, F32), nll, 1e-4, 1e-5)
			}
		}
	})
}

// TestWideBytes: memory to widen weights in is a whole matrix or bounded, never less than a panel, and enough for the products that ask for it.
func TestWideBytes(t *testing.T) {
	for _, c := range []struct {
		s       Store
		in, out int
		want    int64
	}{
		{BF16, 64, 20, 2 * 64 * 32},
		{F32, 64, 16, 4 * 64 * 16},
		{BF16, 2048, 49280, 64 << 20},
		{BF16, 6144, 24576, 64 << 20 / (2 * 6144 * 16) * (2 * 6144 * 16)},
		{F32, 4 << 20, 32, 4 * 4 << 20 * 16},
	} {
		if got := c.s.WideBytes(c.in, c.out); got != c.want {
			t.Errorf("%v [%d,%d]: %d bytes, expected %d", c.s, c.out, c.in, got, c.want)
		}
		k := Inference{s: c.s}
		if each, err := k.Widening(256, c.want).part(c.in, c.out); err != nil || int64(each)*int64(c.in)*int64(c.s.Size()) > c.want || each%quantPanel != 0 {
			t.Errorf("%v [%d,%d]: parts of %d outputs, %v", c.s, c.out, c.in, each, err)
		}
		if _, err := k.Widening(256, int64(c.s.Size()*c.in*quantPanel-1)).part(c.in, c.out); err == nil || !strings.Contains(err.Error(), "expected at least") {
			t.Errorf("error %v", err)
		}
	}
}

// TestLinearWithoutEpilogue: where the library has no epilogue with GELU, the activation is a launch of its own.
func TestLinearWithoutEpilogue(t *testing.T) {
	for _, s := range []Store{F32, BF16, F16} {
		for _, epilogues := range []cublaslt.Epilogue{cublaslt.None | cublaslt.Bias | cublaslt.GELU, cublaslt.None | cublaslt.Bias} {
			t.Run(fmt.Sprint(s, " with epilogues ", epilogues), func(t *testing.T) {
				d, _ := onStandin(t, "", map[string]int64{"epilogues": int64(epilogues)})
				b := workbench{t, d}
				p := gemvProblem{n: FewRows + 9, in: 64, out: 48, bias: true, gelu: true, store: s, to: s}
				x, w, bias, _ := p.operands()
				y := b.empty(p.n * p.out * s.Size())
				product := Product{Y: y, X: b.floats(x, s), W: Weight{At: b.floats(w, s)}, Bias: b.floats(bias, s), N: p.n, In: p.in, Out: p.out, Activate: true, Act: compute.GELUTanh}
				b.run(func(q *Queue) (Op, error) { return q.Inference(s).Linear(product) })
				unit := map[Store]float64{F32: 1e-5, BF16: 0x1p-6, F16: 0x1p-9}[s]
				cudatest.Close(t, "y", b.read(y, p.n*p.out, s), p.want(x, w, bias, nil), unit/4, unit)
			})
		}
	}
}
