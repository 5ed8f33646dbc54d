package cuda

import (
	"fmt"
	"testing"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/compute/cuda/cudatest"
)

var quantFormats = map[int]quant.Format{8: quant.Int8, 4: quant.Int4}

// quantised returns the problem's weights as the processor stores them, and what they stand for.
func (p gemvProblem) quantised(t testing.TB, bits int) (m *quant.Matrix, w []float32) {
	t.Helper()
	pool := par.New(1)
	defer pool.Close()
	m = quant.Quantize(pool, quantFormats[bits], random(2, p.out*p.in, F32), p.out, p.in)
	w = make([]float32, p.out*p.in)
	m.Dequantize(w)
	return m, w
}

func (b workbench) quantised(m *quant.Matrix, bits int) quantised {
	return quantised{codes: put(b, m.Codes()), scales: put(b, m.Scales()), bits: bits, in: m.In(), out: m.Out()}
}

func (p gemvProblem) runQuant(b workbench, bits int, m *quant.Matrix, x, bias, base []float32) []float32 {
	y := b.empty(p.n * p.out * p.to.Size())
	var atBias, atBase Ptr
	if p.bias {
		atBias = b.floats(bias, BF16)
	}
	if p.base {
		atBase = b.floats(base, p.to)
	}
	atX, w := b.floats(x, BF16), b.quantised(m, bits)
	b.run(func(q *Queue) (Op, error) { return gemvQuant(q, y, atX, w, atBias, atBase, p.n, p.gelu, p.to) })
	return b.read(y, p.n*p.out, p.to)
}

var quantProblems = []gemvProblem{
	{n: 1, in: 64, out: 16, store: BF16, to: BF16},
	{n: 3, in: 2116, out: 18, bias: true, gelu: true, store: BF16, to: BF16}, // warps with several groups, the last in part, padded
	{n: 8, in: 300, out: 5, bias: true, base: true, store: BF16, to: BF16},
	{n: 2, in: 512, out: 33, store: BF16, to: F32},
	{n: 1, in: 4, out: 1, base: true, store: BF16, to: BF16},
}

// TestQuantisedGEMV: products are those of the weights that the processor's codes and scales stand for.
func TestQuantisedGEMV(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, bits := range []int{8, 4} {
			for _, p := range quantProblems {
				if p.to == F32 && bits == 4 {
					continue
				}
				x, _, bias, base := p.operands()
				m, w := p.quantised(b.t, bits)
				got := p.runQuant(b, bits, m, x, bias, base)
				absolute, relative := 2e-4, 0x1p-8
				if p.to == F32 {
					relative = 1e-5
				}
				cudatest.Close(b.t.(*testing.T), fmt.Sprintf("%d bits, %+v", bits, p), got, p.want(x, w, bias, base), absolute, relative)
				// Every row alone has the same bits.
				for r := range p.n {
					one := p
					one.n = 1
					alone := one.runQuant(b, bits, m, x[r*p.in:][:p.in], bias, base[r*p.out:][:p.out])
					sameBits(b.t, fmt.Sprintf("%d bits, row %d of %+v", bits, r, p), alone, got[r*p.out:][:p.out])
				}
			}
		}
	})
}

func TestWidenQuantised(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, bits := range []int{8, 4} {
			for _, p := range quantProblems {
				m, w := p.quantised(b.t, bits)
				y, on := b.empty(2*p.in*p.out), b.quantised(m, bits)
				b.run(func(q *Queue) (Op, error) { return widenQuant(q, y, on) })
				for i := range w {
					w[i] = round(w[i], BF16)
				}
				sameBits(b.t, fmt.Sprintf("%d bits, [%d,%d]", bits, p.out, p.in), b.read(y, p.in*p.out, BF16), w)
			}
		}
	})
}

func TestQuantisedGEMVPlantedBug(t *testing.T) {
	p := gemvProblem{n: 2, in: 2048, out: 16, store: BF16, to: F32}
	x, _, bias, base := p.operands()
	m, w := p.quantised(t, 8)
	want := p.want(x, w, bias, base)
	planted(t, "gemv_quant.cu:gemv_quant_barrier", 3, func(b workbench) bool {
		_, differs := cudatest.Differs(p.runQuant(b, 8, m, x, bias, base), want, 1e-2, 1e-4)
		return differs
	})
}

func TestQuantisedGEMVRefuses(t *testing.T) {
	d := openAny(t, 1)
	for _, w := range []quantised{{bits: 2, in: 64, out: 16}, {bits: 8, in: 62, out: 16}, {bits: 8, in: 64}, {bits: 4, in: 64, out: 16}} {
		err := d.Do(func(q *Queue) error {
			w.codes, w.scales = 256, 256
			_, err := gemvQuant(q, 256, 256, w, 0, 0, 2, false, F32)
			return err
		})
		if err == nil {
			t.Errorf("%+v was prepared", w)
		}
	}
}
