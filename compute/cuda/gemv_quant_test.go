package cuda

import (
	"fmt"
	"math"
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
		atBias = b.floats(bias, p.store)
	}
	if p.base {
		atBase = b.floats(base, p.to)
	}
	atX, w, norm := b.floats(x, p.store), b.quantised(m, bits), p.normed(b)
	b.run(func(q *Queue) (Op, error) {
		return gemvQuant(q, y, atX, w, atBias, atBase, norm, p.n, p.gelu, p.store, p.to)
	})
	return b.read(y, p.n*p.out, p.to)
}

var quantProblems = []gemvProblem{
	{n: 1, in: 64, out: 16, store: BF16, to: BF16},
	{n: 3, in: 2116, out: 18, bias: true, gelu: true, store: BF16, to: BF16}, // warps with several groups, the last in part, padded
	{n: 8, in: 300, out: 5, bias: true, base: true, store: BF16, to: BF16},
	{n: 2, in: 512, out: 33, store: BF16, to: F32},
	{n: 1, in: 4, out: 1, base: true, store: BF16, to: BF16},
	{n: 3, in: 2116, out: 18, bias: true, gelu: true, store: F16, to: F16},
	{n: 8, in: 300, out: 5, bias: true, base: true, store: F16, to: F16},
	{n: 2, in: 512, out: 33, store: F16, to: F32},
	{n: 1, in: 2116, out: 18, bias: true, gelu: true, store: F32, to: F32},
	{n: 4, in: 300, out: 33, bias: true, base: true, store: F32, to: F32},
	{n: 18, in: 68, out: 20, bias: true, base: true, store: BF16, to: BF16},              // blocks of 8, 8 and 2 rows
	{n: 1, in: 520, out: 200, norm: true, bias: true, base: true, store: BF16, to: BF16}, // several panels a block
	{n: 9, in: 264, out: 17, norm: true, gelu: true, store: F32, to: F32},
}

// TestQuantisedGEMV: products are those of the weights that the processor's codes and scales stand for.
func TestQuantisedGEMV(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, bits := range []int{8, 4} {
			for _, p := range quantProblems {
				if p.to != p.store && bits == 4 {
					continue
				}
				x, _, bias, base := p.operands()
				m, w := p.quantised(b.t, bits)
				got := p.runQuant(b, bits, m, x, bias, base)
				absolute, _ := p.tolerance()
				absolute, relative := 2e-4+2*absolute, map[Store]float64{F32: 1e-5, BF16: 0x1p-8, F16: 0x1p-11}[p.to]
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
				y, on := b.empty(p.store.Size()*p.in*p.out), b.quantised(m, bits)
				b.run(func(q *Queue) (Op, error) { return widenQuant(q, y, on, p.store) })
				for i := range w {
					w[i] = round(w[i], p.store)
				}
				sameBits(b.t, fmt.Sprintf("%d bits, [%d,%d]", bits, p.out, p.in), b.read(y, p.in*p.out, p.store), w)
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

func TestWidenQuantisedPlantedBug(t *testing.T) {
	p := gemvProblem{in: 520, out: 20}
	m, w := p.quantised(t, 8)
	planted(t, "quant.cu:widen_quant_group", 5, func(b workbench) bool {
		y, on := b.empty(4*p.in*p.out), b.quantised(m, 8)
		b.run(func(q *Queue) (Op, error) { return widenQuant(q, y, on, F32) })
		_, differs := cudatest.Differs(b.read(y, p.in*p.out, F32), w, 1e-6, 1e-6)
		return differs
	})
}

// embedding is a table of codes and what is read of it.
type embedding struct {
	width, rows, placeRows int
	ids, positions         []int32
	store                  Store
}

func (e embedding) problem() gemvProblem { return gemvProblem{in: e.width, out: e.rows} }

func (e embedding) run(b workbench, m *quant.Matrix, places []float32) []float32 {
	n := len(e.ids)
	y, on := b.empty(e.store.Size()*n*e.width), b.quantised(m, 8)
	at, ids, positions := b.floats(places, e.store), put(b, e.ids), put(b, e.positions)
	b.run(func(q *Queue) (Op, error) {
		return embedQuant(q, y, on, at, ids, positions, n, e.placeRows, e.store)
	})
	return b.read(y, n*e.width, e.store)
}

func (e embedding) want(w, places []float32) []float32 {
	want := make([]float32, len(e.ids)*e.width)
	for i, id := range e.ids {
		for k := range e.width {
			v := float32(math.NaN())
			if p := e.positions[i]; id >= 0 && int(id) < e.rows && p >= 0 && int(p) < e.placeRows {
				v = w[int(id)*e.width+k] + places[int(p)*e.width+k]
			}
			want[i*e.width+k] = v
		}
	}
	return want
}

// TestEmbedQuantised: rows are those that the codes stand for; what is in no table gives NaNs and reads nothing beside them.
func TestEmbedQuantised(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, e := range []embedding{
			{width: 4, rows: 1, placeRows: 1, ids: []int32{0}, positions: []int32{0}, store: BF16},
			{width: 300, rows: 37, placeRows: 5, ids: []int32{36, 0, 15, 16, 31, 36, 37, -1, 3}, positions: []int32{4, 0, 1, 2, 3, 4, 1, 0, 5}, store: BF16},
			{width: 300, rows: 37, placeRows: 5, ids: []int32{36, 0, 15, 16, 37}, positions: []int32{4, 0, 1, 2, 1}, store: F16},
			{width: 520, rows: 33, placeRows: 3, ids: []int32{32, 17, 9, 33}, positions: []int32{2, 1, 0, 2}, store: F32},
		} {
			m, w := e.problem().quantised(b.t, 8)
			places := random(5, e.placeRows*e.width, e.store)
			unit := map[Store]float64{F32: 0x1p-22, BF16: 0x1p-8, F16: 0x1p-11}[e.store]
			cudatest.Close(b.t, fmt.Sprintf("%+v", e), e.run(b, m, places), e.want(w, places), 1e-6, unit)
		}
	})
}

func TestEmbedQuantisedPlantedBug(t *testing.T) {
	e := embedding{width: 64, rows: 40, placeRows: 2, ids: []int32{7, 30}, positions: []int32{0, 1}, store: F32}
	m, w := e.problem().quantised(t, 8)
	places := random(5, e.placeRows*e.width, F32)
	planted(t, "quant.cu:embed_quant_row", 5, func(b workbench) bool {
		_, differs := cudatest.Differs(e.run(b, m, places), e.want(w, places), 1e-6, 1e-6)
		return differs
	})
}

func TestQuantisedGEMVRefuses(t *testing.T) {
	d := openAny(t, 1)
	for _, w := range []quantised{{bits: 2, in: 64, out: 16}, {bits: 8, in: 62, out: 16}, {bits: 8, in: 64}, {bits: 4, in: 64, out: 16}} {
		err := d.Do(func(q *Queue) error {
			w.codes, w.scales = 256, 256
			_, err := gemvQuant(q, 256, 256, w, 0, 0, normed{}, 2, false, BF16, F32)
			return err
		})
		if err == nil {
			t.Errorf("%+v was prepared", w)
		}
	}
	err := d.Do(func(q *Queue) error {
		_, err := embedQuant(q, 256, quantised{codes: 256, scales: 256, bits: 4, in: 64, out: 16}, 256, 256, 256, 2, 2, BF16)
		return err
	})
	if err == nil {
		t.Error("an embedding in 4 bits was prepared")
	}
}
