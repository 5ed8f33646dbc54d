package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
)

func randomProduct(r *rand.Rand, f Format, n, out, in int) product {
	return product{n: n, out: out, in: in, x: normal(r, n*in, 2), w: QuantizeAbsMax(nil, f, normal(r, out*in, 0.02), out, in),
		e: Epilogue{Bias: normal(r, out, 1), Then: vec.GELUTanh, Base: normal(r, n*out, 1)}}
}

func TestThreadsGiveTheSameBits(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, f := range []Format{Int8, Int4} {
		for _, s := range [][3]int{{1, 1000, 300}, {3, 700, 1100}, {40, 500, 700}, {100, 100, 64}} {
			p := randomProduct(r, f, s[0], s[1], s[2])
			want := p.run(best(), nil)
			for _, threads := range []int{1, 2, 3, 7} {
				pool := par.New(threads)
				t.Run(fmt.Sprint(f, s, threads), func(t *testing.T) { sameBits(t, p.run(best(), pool), want) })
				pool.Close()
			}
		}
	}
}

func TestRowsAloneAndInBatch(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernel) {
		rapid.Check(t, func(rt *rapid.T) {
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
			f := rapid.SampledFrom([]Format{Int8, Int4}).Draw(rt, "format")
			n, out, in := rapid.IntRange(1, 33).Draw(rt, "n"), rapid.IntRange(1, 60).Draw(rt, "out"), rapid.IntRange(1, 600).Draw(rt, "in")
			p := randomProduct(r, f, n, out, in)
			batch := p.run(k, nil)
			for i := range n {
				one := p
				one.n, one.x, one.e.Base = 1, p.x[i*in:][:in], p.e.Base[i*out:][:out]
				for j, v := range one.run(k, nil) {
					if math.Float32bits(v) != math.Float32bits(batch[i*out+j]) {
						rt.Fatalf("%s [%d %d %d]: row %d alone has y[%d] = %v, in the batch %v", f, n, out, in, i, j, v, batch[i*out+j])
					}
				}
			}
		})
	})
}

// TestError bounds the distance from the float64 product of the unquantised operands by that of every group's steps.
func TestError(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const n, out, in = 5, 37, 900
	for _, f := range []Format{Int8, Int4} {
		w, x := normal(r, out*in, 0.02), normal(r, n*in, 3)
		m := QuantizeAbsMax(nil, f, w, out, in)
		y := product{n: n, out: out, in: in, x: x, w: m}.run(best(), nil)
		_, scales := codesOf(m)
		for i := range n {
			_, xs := actCodes(x[i*in:][:in])
			for o := range out {
				var want, bound float64
				for k := range in {
					a, b := float64(x[i*in+k]), float64(w[o*in+k])
					// Half a step of each; the largest weight of a group may be rounded past the end by the scale's own rounding.
					da := float64(xs[k/ActGroup]) * 0.5001
					db := math.Abs(float64(scales[o*f.Groups(in)+k/f.Group()])) * 0.56
					want += a * b
					bound += math.Abs(a)*db + math.Abs(b)*da + da*db
				}
				if d := math.Abs(float64(y[i*out+o]) - want); d > bound {
					t.Errorf("%s: y[%d,%d] = %v, expected %v ± %v", f, i, o, y[i*out+o], want, bound)
				} else if d > bound/4 {
					// Errors are as often up as down: nothing near the bound is right.
					t.Errorf("%s: y[%d,%d] = %v, expected %v: %v of the bound", f, i, o, y[i*out+o], want, d/bound)
				}
			}
		}
	}
}

func TestActivationsThatAreNotNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	const n, out, in = 16, 20, 600
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		eachKernel(t, func(t *testing.T, k *kernel) {
			p := product{n: n, out: out, in: in, x: normal(r, n*in, 1), w: QuantizeAbsMax(nil, Int8, normal(r, out*in, 1), out, in)}
			good := p.run(k, nil)
			p.x[3*in+599] = bad
			for i, v := range p.run(k, nil) {
				if i/out == 3 && v == v || i/out != 3 && v != good[i] {
					t.Fatalf("%v in row 3: y[%d,%d] = %v", bad, i/out, i%out, v)
				}
			}
		})
	}
}

func TestTinyAndLargeActivations(t *testing.T) {
	for _, scale := range []float32{0, 0x1p-149, 0x1p-101, 0x1p-99, 0x1p60} {
		for _, k := range kernels() {
			p := product{n: 1, out: 1, in: 2, x: []float32{scale, -scale / 2}, w: FromCodes(Int8, []int8{127, 0}, []float32{1}, 1, 2)}
			want := scale * 127
			if scale < 0x1p-100 {
				want = 0
			}
			got := p.run(k, nil)[0]
			if math.Abs(float64(got-want)) > 1e-6*float64(want) {
				t.Errorf("%s: %v times 127 is %v", k.level, scale, got)
			}
		}
	}
}

func TestBaseMayBeY(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	p := randomProduct(r, Int4, 20, 40, 100)
	want := p.run(best(), nil)
	var rows Rows
	rows.Set(nil, p.x, p.n, p.in)
	y := append([]float32(nil), p.e.Base...)
	p.e.Base = y
	Mul(nil, y, &rows, p.w, p.e)
	sameBits(t, y, want)
}

func TestRowsAreReused(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	var rows Rows
	for _, s := range [][2]int{{40, 700}, {1, 30}, {15, 500}, {0, 5}} {
		p := product{n: s[0], out: 19, in: s[1], x: normal(r, s[0]*s[1], 1), w: QuantizeAbsMax(nil, Int8, normal(r, 19*s[1], 1), 19, s[1])}
		rows.Set(nil, p.x, p.n, p.in)
		if rows.N() != s[0] || rows.In() != s[1] {
			t.Fatalf("rows are [%d %d], expected %v", rows.N(), rows.In(), s)
		}
		y := make([]float32, p.n*p.out)
		Mul(nil, y, &rows, p.w, Epilogue{})
		sameBits(t, y, p.definition())
	}
}
