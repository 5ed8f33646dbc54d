package cuda

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

// gemvProblem is a product of few rows and what it should be.
type gemvProblem struct {
	n, in, out       int
	bias, base, gelu bool
	norm             bool
	store, to        Store
}

// Of the problems' layer norms.
const normEpsilon = 1e-5

// normed puts the parameters of the problem's norm on the device.
func (p gemvProblem) normed(b workbench) normed {
	if !p.norm {
		return normed{}
	}
	return normed{b.floats(random(5, p.in, p.store), p.store), b.floats(random(6, p.in, p.store), p.store), normEpsilon}
}

func (p gemvProblem) operands() (x, w, bias, base []float32) {
	scale := float32(1 / math.Sqrt(float64(p.in)))
	w = random(2, p.out*p.in, F32)
	for i, v := range w {
		w[i] = round(v*scale, p.store)
	}
	return random(1, p.n*p.in, p.store), w, random(3, p.out, p.store), random(4, p.n*p.out, p.to)
}

func (p gemvProblem) run(b workbench, x, w, bias, base []float32) []float32 {
	y := b.empty(p.n * p.out * p.to.Size())
	var atBias, atBase Ptr
	if p.bias {
		atBias = b.floats(bias, p.store)
	}
	if p.base {
		atBase = b.floats(base, p.to)
	}
	atX, atW, norm := b.floats(x, p.store), b.floats(w, p.store), p.normed(b)
	b.run(func(q *Queue) (Op, error) {
		return gemv(q, y, atX, atW, atBias, atBase, norm, p.n, p.in, p.out, p.gelu, p.store, p.to)
	})
	return b.read(y, p.n*p.out, p.to)
}

func (p gemvProblem) want(x, w, bias, base []float32) []float32 {
	want := make([]float32, p.n*p.out)
	if p.norm {
		y := make([]float32, len(x))
		ref.LayerNorm(y, x, random(5, p.in, p.store), random(6, p.in, p.store), normEpsilon)
		x = decode(encode(y, p.store), p.store)
	}
	for r := range p.n {
		for o := range p.out {
			var v float64
			for i := range p.in {
				v += float64(x[r*p.in+i]) * float64(w[o*p.in+i])
			}
			if p.bias {
				v += float64(bias[o])
			}
			if p.gelu {
				v = 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
			}
			if p.base {
				v += float64(base[r*p.out+o])
			}
			want[r*p.out+o] = float32(v)
		}
	}
	return want
}

func (p gemvProblem) tolerance() (absolute, relative float64) {
	if p.norm && p.store != F32 {
		absolute = 4e-3 // an element of a norm may be rounded to its neighbour
	}
	switch p.to {
	case BF16:
		return absolute + 1e-5, 0x1p-8
	case F16:
		return absolute + 1e-5, 0x1p-11
	}
	return absolute + 2e-5, 1e-6
}

var gemvProblems = []gemvProblem{
	{n: 1, in: 64, out: 4, store: BF16, to: BF16},
	{n: 3, in: 2056, out: 6, bias: true, gelu: true, store: BF16, to: BF16}, // a third turn for one vector
	{n: 8, in: 1032, out: 9, bias: true, base: true, store: BF16, to: BF16},
	{n: 2, in: 40, out: 5, store: BF16, to: F32},
	{n: 1, in: 520, out: 1, bias: true, base: true, store: F32, to: F32},
	{n: 7, in: 260, out: 10, gelu: true, store: F32, to: F32},
	{n: 2, in: 30, out: 3, bias: true, base: true, store: F32, to: F32},
	{n: 5, in: 131, out: 7, bias: true, store: BF16, to: BF16},
	{n: 1, in: 3, out: 2, store: BF16, to: F32},
	{n: 3, in: 2056, out: 6, bias: true, gelu: true, store: F16, to: F16},
	{n: 8, in: 1032, out: 9, bias: true, base: true, store: F16, to: F16},
	{n: 2, in: 40, out: 5, store: F16, to: F32},
	{n: 5, in: 131, out: 7, bias: true, store: F16, to: F16},
	{n: 1, in: 3, out: 2, store: F16, to: F32},
	{n: 17, in: 72, out: 6, bias: true, base: true, store: BF16, to: BF16}, // a third block with one row
	{n: mostGEMV, in: 12, out: 5, gelu: true, store: F32, to: F32},
	{n: 1, in: 2056, out: 150, norm: true, bias: true, base: true, store: BF16, to: BF16}, // several turns of each warp, norms of more than one vector a thread
	{n: 7, in: 264, out: 5, norm: true, gelu: true, store: BF16, to: BF16},
	{n: 2, in: 64, out: 66, norm: true, store: F16, to: F32},
	{n: 9, in: 260, out: 3, norm: true, store: F32, to: F32},
}

func TestGEMV(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, p := range gemvProblems {
			x, w, bias, base := p.operands()
			absolute, relative := p.tolerance()
			cudatest.Close(b.t.(*testing.T), fmt.Sprintf("%+v", p), p.run(b, x, w, bias, base), p.want(x, w, bias, base), absolute, relative)
		}
	})
}

// A row has the same bits whichever others are beside it.
func TestGEMVRows(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, p := range []gemvProblem{
			{in: 136, out: 6, bias: true, base: true, gelu: true, store: BF16, to: BF16}, {in: 2056, out: 40, norm: true, bias: true, store: BF16, to: BF16}, {in: 132, out: 5, norm: true, store: F32, to: F32}, {in: 72, out: 5, store: BF16, to: F32}, {in: 136, out: 6, bias: true, store: F16, to: F16}, {in: 52, out: 5, store: F32, to: F32}, {in: 21, out: 5, store: F32, to: F32},
		} {
			p.n = mostGEMV
			x, w, bias, base := p.operands()
			all := p.run(b, x, w, bias, base)
			for _, n := range []int{1, 2, 3, 5, 7, 8, 9, 23} {
				p.n = n
				from := mostGEMV - n
				got := p.run(b, x[from*p.in:], w, bias, base[from*p.out:])
				sameBits(b.t, fmt.Sprintf("%+v", p), got, all[from*p.out:])
			}
		}
	})
}

func TestGEMVPlantedBug(t *testing.T) {
	p := gemvProblem{n: 3, in: 520, out: 8, norm: true, store: F32, to: F32}
	x, w, bias, base := p.operands()
	want := p.want(x, w, bias, base)
	planted(t, "gemv.cu:gemv_norm_barrier", 3, func(b workbench) bool {
		_, differs := cudatest.Differs(p.run(b, x, w, bias, base), want, 2e-5, 1e-6)
		return differs
	})
}

func TestGEMVRefuses(t *testing.T) {
	d := openAny(t, 1)
	for _, p := range []gemvProblem{{n: 0, in: 8, out: 8, store: F32, to: F32}, {n: mostGEMV + 1, in: 8, out: 8, store: F32, to: F32}, {n: 1, in: 8, out: 8, store: F16, to: BF16}, {n: 1, in: 8, out: 8, store: F32, to: BF16}} {
		err := d.Do(func(q *Queue) error {
			_, err := gemv(q, 256, 256, 256, 0, 0, normed{}, p.n, p.in, p.out, false, p.store, p.to)
			return err
		})
		if err == nil {
			t.Errorf("%+v was prepared", p)
		}
	}
}

// BenchmarkGEMV says what part of the memory's bandwidth products of few rows read weights at: the matrices of a decoding step of SantaCoder,
// as many of each as are more than the second-level cache holds.
func BenchmarkGEMV(b *testing.B) {
	if !cudatest.GPU() {
		b.Skip("SKIPPED: the stand-in's times mean nothing, set AUTODEV_TEST_GPU")
	}
	d := openDevice(b, Options{})
	for _, p := range []gemvProblem{
		{in: 2048, out: 2304}, {in: 2048, out: 2048}, {in: 2048, out: 8192, gelu: true}, {in: 8192, out: 2048}, {in: 2048, out: 49280},
	} {
		for _, n := range []int{1, 4, 8} {
			for _, bits := range []int{16, 8, 4} {
				p.n = n
				b.Run(fmt.Sprintf("%dx%d/rows %d/bits %d", p.out, p.in, n, bits), func(b *testing.B) { p.time(b, d, bits) })
			}
		}
	}
}

// time reports the rate at which weights are read, the best of b.N runs.
func (p gemvProblem) time(b *testing.B, d *Device, bits int) {
	bytes := int64(p.in) * int64(p.out) * int64(bits) / 8
	scales := int64(p.in/64) * int64(p.out) * 2 // at most
	copies := int(max(1, 256<<20/bytes))
	best := math.Inf(1)
	err := d.Do(func(q *Queue) error {
		x, y := alloc[uint16](b, q, p.n*p.in), alloc[uint16](b, q, p.n*p.out)
		if err := q.Fill(x, 0, int64(2*p.n*p.in)); err != nil {
			return err
		}
		var all Sequence
		for range copies {
			codes, s := alloc[uint8](b, q, int(bytes)), alloc[uint8](b, q, int(scales))
			if err := errors.Join(q.Fill(codes, 0, bytes), q.Fill(s, 0, scales)); err != nil {
				return err
			}
			var l *Launch
			var err error
			if bits == 16 {
				l, err = gemv(q, y, x, codes, 0, 0, normed{}, p.n, p.in, p.out, p.gelu, BF16, BF16)
			} else {
				l, err = gemvQuant(q, y, x, quantised{codes, s, bits, p.in, p.out}, 0, 0, normed{}, p.n, p.gelu, BF16, BF16)
			}
			if err != nil {
				return err
			}
			all = append(all, l)
		}
		if err := errors.Join(all.Enqueue(q), q.Sync()); err != nil {
			return err
		}
		graph, err := q.Capture(func() error { return all.Enqueue(q) })
		if err != nil {
			return err
		}
		for range b.N {
			took, err := q.Time(func() error { return graph.Enqueue(q) })
			if err != nil {
				return err
			}
			best = min(best, took.Seconds())
		}
		return graph.Free(q)
	})
	if err != nil {
		b.Fatal(err)
	}
	rate := float64(bytes) * float64(copies) / best
	b.ReportMetric(rate/1e9, "GB/s")
	if peak := d.Properties().Bandwidth; peak > 0 {
		b.ReportMetric(100*rate/peak, "%-of-peak")
	}
}
