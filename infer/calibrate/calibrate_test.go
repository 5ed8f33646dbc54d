package calibrate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
)

// correlated returns n rows of inputs that share a few causes, of different sizes and not around 0.
func correlated(r *rand.Rand, n, in int) []float32 {
	const causes = 12
	mix := make([]float64, causes*in)
	for i := range mix {
		mix[i] = r.NormFloat64()
	}
	x := make([]float32, n*in)
	for row := range n {
		var c [causes]float64
		for i := range c {
			c[i] = r.NormFloat64()
		}
		for k := range in {
			v := 0.3*r.NormFloat64() + 0.5*float64(k%3)
			for i, f := range c {
				v += f * mix[i*in+k]
			}
			x[row*in+k] = float32(v * (0.2 + float64(k%7)))
		}
	}
	return x
}

func weights(r *rand.Rand, n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	return w
}

// loss is the mean squared error of the outputs for x, with shift added.
func loss(x, w, q, shift []float32, n, out, in int) float64 {
	var sum float64
	for row := range n {
		for o := range out {
			var d float64
			for k := range in {
				d += float64(x[row*in+k]) * float64(q[o*in+k]-w[o*in+k])
			}
			if shift != nil {
				d += float64(shift[o])
			}
			sum += d * d
		}
	}
	return sum / float64(n*out)
}

func dequantized(f quant.Format, r *Result, out, in int) []float32 {
	q := make([]float32, out*in)
	quant.FromCodes(f, r.Codes, r.Scales, out, in).Dequantize(q)
	return q
}

// TestQuantize: the outputs' error falls well below that of rounding with the best scales, on inputs that were not seen too; and
// the number of threads changes nothing.
func TestQuantize(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n, out = 1500, 20
	for _, f := range []quant.Format{quant.Int8, quant.Int4} {
		for _, in := range []int{17, 64, 300} {
			all := correlated(r, 2*n, in)
			seen, unseen := all[:n*in], all[n*in:]
			w := weights(r, out*in)
			nearest := make([]float32, out*in)
			quant.Quantize(nil, f, w, out, in).Dequantize(nearest)
			var first *Result
			for _, threads := range []int{1, 3} {
				p := par.New(threads)
				x := Observe(p, slices.Clone(seen), n, in, true)
				got, err := Quantize(p, f, w, out, x, Options{})
				p.Close()
				if err != nil {
					t.Fatal(err)
				}
				if first == nil {
					first = got
				} else if !slices.Equal(first.Codes, got.Codes) || !slices.Equal(first.Scales, got.Scales) || !slices.Equal(first.Shift, got.Shift) {
					t.Errorf("%s, %d inputs: three threads found another result", f, in)
				}
			}
			q := dequantized(f, first, out, in)
			for name, x := range map[string][]float32{"seen": seen, "unseen": unseen} {
				a, b := loss(x, w, q, first.Shift, n, out, in), loss(x, w, nearest, nil, n, out, in)
				if !(a < 0.5*b) {
					t.Errorf("%s, %d inputs, %s: error %v, rounded %v", f, in, name, a, b)
				}
			}
		}
	}
}

// TestShiftKeepsTheMean: with the shift the outputs' mean error over the inputs is zero; without centring there is none.
func TestShiftKeepsTheMean(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n, out, in = 400, 7, 70
	x := correlated(r, n, in)
	w := weights(r, out*in)
	got, err := Quantize(nil, quant.Int4, w, out, Observe(nil, slices.Clone(x), n, in, true), Options{})
	if err != nil {
		t.Fatal(err)
	}
	q := dequantized(quant.Int4, got, out, in)
	for o := range out {
		var sum, size float64
		for row := range n {
			for k := range in {
				d := float64(x[row*in+k]) * float64(q[o*in+k]-w[o*in+k])
				sum, size = sum+d, size+math.Abs(d)
			}
		}
		if mean := sum/n + float64(got.Shift[o]); !(math.Abs(mean) < 1e-5*size/n) {
			t.Errorf("output %d: the mean moved by %v", o, mean)
		}
	}
	plain, err := Quantize(nil, quant.Int4, w, out, Observe(nil, slices.Clone(x), n, in, false), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(plain.Shift, func(v float32) bool { return v != 0 }) {
		t.Errorf("shift of a layer without bias: %v", plain.Shift)
	}
}

// TestIndependentInputs: with nothing to make up for, the codes are the nearest ones for their scales.
func TestIndependentInputs(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const out, in = 5, 130
	x := &Inputs{In: in, Rows: 1, Mean: make([]float32, in), Covariance: make([]float32, in*in)}
	for i := range in {
		x.Covariance[i*in+i] = 1 + float32(i%5)
	}
	w := weights(r, out*in)
	got, err := Quantize(nil, quant.Int4, w, out, x, Options{})
	if err != nil {
		t.Fatal(err)
	}
	groups := quant.Int4.Groups(in)
	for o := range out {
		for g := range groups {
			lo, hi := g*64, min(in, g*64+64)
			want := make([]int8, hi-lo)
			quant.Int4.Round(want, w[o*in+lo:o*in+hi], got.Scales[o*groups+g])
			if !slices.Equal(got.Codes[o*in+lo:o*in+hi], want) {
				t.Errorf("output %d, group %d: %v, nearest %v", o, g, got.Codes[o*in+lo:o*in+hi], want)
			}
		}
	}
}

// TestDegenerateInputs: inputs that never vary, and too few rows for a full covariance, still give codes; numbers that are none
// are an error.
func TestDegenerateInputs(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const out, in = 3, 66
	w := weights(r, out*in)
	for name, rows := range map[string][]float32{"constant": make([]float32, 4*in), "one row": weights(r, in)} {
		got, err := Quantize(nil, quant.Int4, w, out, Observe(nil, rows, len(rows)/in, in, true), Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l := loss(w[:in], w, dequantized(quant.Int4, got, out, in), nil, 1, out, in); !(l < 10) {
			t.Errorf("%s: far from the weights: %v", name, l)
		}
	}
	bad := weights(r, 4*in)
	bad[7] = float32(math.NaN())
	if _, err := Quantize(nil, quant.Int4, w, out, Observe(nil, bad, 4, in, true), Options{}); err == nil {
		t.Error("NaN among the inputs: expected an error")
	}
	if _, err := Quantize(nil, quant.Int4, w[1:], out, Observe(nil, weights(r, in), 1, in, true), Options{}); err == nil {
		t.Error("a missing weight: expected an error")
	}
}

func TestSample(t *testing.T) {
	texts := func(n int) func(yield func(string, error) bool) {
		return func(yield func(string, error) bool) {
			for i := range n {
				if !yield(string(make([]byte, i%9*3)), nil) {
					return
				}
			}
		}
	}
	encode := func(s string) []int32 {
		ids := make([]int32, len(s))
		for i := range ids {
			ids[i] = int32(i)
		}
		return ids
	}
	o := SampleOptions{Tokens: 200, Window: 10, Seed: 3}
	a, err := Sample(t.Context(), texts(1000), encode, o)
	if err != nil {
		t.Fatal(err)
	}
	total, starts := 0, map[int32]bool{}
	for _, ids := range a {
		if len(ids) == 0 || len(ids) > 10 {
			t.Errorf("a window of %d tokens", len(ids))
		}
		total += len(ids)
		starts[ids[0]] = true
	}
	if total != 200 || len(starts) < 3 {
		t.Errorf("%d tokens from %d places, expected 200 from several", total, len(starts))
	}
	b, _ := Sample(t.Context(), texts(1000), encode, o)
	if !slices.EqualFunc(a, b, slices.Equal[[]int32]) {
		t.Error("the same seed gave other windows")
	}
	o.Seed = 4
	if b, _ = Sample(t.Context(), texts(1000), encode, o); slices.EqualFunc(a, b, slices.Equal[[]int32]) {
		t.Error("another seed gave the same windows")
	}
	if few, err := Sample(t.Context(), texts(4), encode, o); err != nil || len(few) != 3 {
		t.Errorf("four documents, one empty: %d windows, %v", len(few), err)
	}
	broken := errors.New("broken")
	if _, err := Sample(t.Context(), func(yield func(string, error) bool) { yield("", broken) }, encode, o); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Sample(ctx, texts(3), encode, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
