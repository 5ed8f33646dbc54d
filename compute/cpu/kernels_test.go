package cpu

import (
	"fmt"
	"math"
	"testing"

	"autodev/compute"
	"autodev/compute/cpu/vec"
	"autodev/internal/rng"
)

// A large mean must not cost the variance its digits.
func TestLayerNormOfLargeMean(t *testing.T) {
	k := NewKernels(nil)
	const width = 768
	x, y, one, zero := normal(1, width), make([]float32, width), make([]float32, width), make([]float32, width)
	for i := range x {
		x[i] = float32(math.Round(float64(x[i])*64)/64) + 3000 // exact
		one[i] = 1
	}
	k.LayerNorm(y, x, one, zero, 1, width, 1e-5)
	var mean, variance float64
	for _, v := range x {
		mean += float64(v) / width
	}
	for _, v := range x {
		variance += (float64(v) - mean) * (float64(v) - mean) / width
	}
	for i := range y {
		if want := (float64(x[i]) - mean) / math.Sqrt(variance+1e-5); math.Abs(float64(y[i])-want) > 3e-4 {
			t.Fatalf("element %d is %v, expected %v", i, y[i], want)
		}
	}
}

// Losses survive logits that overflow e^x, and gradients accumulate over calls.
func TestCrossEntropyOfLargeLogits(t *testing.T) {
	k := NewKernels(nil)
	x, w := []float32{1000, 0}, []float32{1, 0, -1, 0, 0.999, 0}
	dx, dw := make([]float32, 2), make([]float32, 6)
	work := make([]float32, CrossEntropyWork(1, 2, 3))
	for call := 1; call <= 2; call++ {
		loss, err := k.CrossEntropy(dx, dw, x, w, []int32{1}, 1, 2, 3, work)
		if err != nil {
			t.Fatal(err)
		}
		p := 1 / (1 + math.Exp(-1)) // of the first row against the third
		if want := 2000 - math.Log(p); math.Abs(float64(loss)-want) > 1e-3 {
			t.Errorf("loss %v, expected %v", loss, want)
		}
		if math.Abs(float64(dw[0])-1000*p*float64(call)) > 0.2 || math.Abs(float64(dw[2])+1000*float64(call)) > 0.1 {
			t.Errorf("dw %v after %d calls", dw, call)
		}
	}
}

// More tokens than a chunk, some unscored, so that rows are gathered: the bits are those of every token alone.
func TestCrossEntropyChunks(t *testing.T) {
	k := NewKernels(nil)
	const n, width, vocab = 700, 16, 9
	x, w := normal(1, n*width), normal(2, vocab*width)
	targets := ids(rng.New(3, "targets"), n, vocab)
	for i := 100; i < n; i += 3 {
		targets[i] = -1
	}
	dx := normal(4, n*width)
	loss, err := k.CrossEntropy(dx, nil, x, w, targets, 0.5, width, vocab, make([]float32, CrossEntropyWork(n, width, vocab)))
	if err != nil {
		t.Fatal(err)
	}
	sum, one, work := 0.0, make([]float32, width), make([]float32, CrossEntropyWork(1, width, vocab))
	for i := range n {
		part, err := k.CrossEntropy(one, nil, x[i*width:(i+1)*width], w, targets[i:i+1], 0.5, width, vocab, work)
		if err != nil {
			t.Fatal(err)
		}
		sum += float64(part)
		if !equalBits(one, dx[i*width:(i+1)*width]) {
			t.Fatalf("token %d (target %d): gradient %v, alone %v", i, targets[i], dx[i*width:(i+1)*width], one)
		}
	}
	if math.Abs(sum-float64(loss)) > 1e-4 {
		t.Errorf("loss %v, sum of the tokens' %v", loss, sum)
	}
}

// Sums over several blocks, in float64: the error of a float32 sum would be far larger than the tolerance.
func TestSumSquaresOfManyElements(t *testing.T) {
	x := normal(1, 3*normBlock+17)
	want := 0.0
	for _, v := range x {
		want += float64(v) * float64(v)
	}
	var first float64
	for _, threads := range []int{1, 2, 5} {
		d := New(Options{Threads: threads})
		got := d.Kernels().SumSquares(x, make([]float32, SumSquaresWork(len(x))))
		d.Close()
		if math.Abs(got-want) > 1e-12*want {
			t.Errorf("%v, expected %v", got, want)
		}
		if first == 0 {
			first = got
		}
		if math.Float64bits(got) != math.Float64bits(first) {
			t.Errorf("%d threads: %v, expected the bits of %v", threads, got, first)
		}
	}
}

func BenchmarkKernels(b *testing.B) {
	const n, width, inner, vocab = 512, 768, 3072, 49280
	x, dy, wide, dwide := normal(1, n*width), normal(2, n*width), normal(3, n*inner), normal(4, n*inner)
	gain, y, ywide := normal(5, width), make([]float32, n*width), make([]float32, n*inner)
	for _, threads := range []int{1, 2} {
		d := New(Options{Threads: threads})
		k := d.Kernels()
		// work is in floating-point operations, or elements where that is what counts.
		report := func(name, unit string, work float64, f func()) {
			b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(work*float64(b.N)/b.Elapsed().Seconds()/1e9, unit)
			})
		}
		report("LayerNorm", "Gelem/s", n*width, func() { k.LayerNorm(y, x, gain, gain, n, width, 1e-5) })
		report("LayerNormGrad", "Gelem/s", n*width, func() { k.LayerNormGrad(y, dy, x, gain, n, width, 1e-5) })
		scratch := make([]float32, LayerNormGradsWork(n, inner))
		dgain := make([]float32, inner)
		report("LayerNormGainGrad", "Gelem/s", n*width, func() { k.LayerNormGainGrad(dgain[:width], dy, x, n, width, 1e-5, scratch) })
		report("BiasGrad", "Gelem/s", n*inner, func() { k.BiasGrad(dgain, dwide, n, inner, scratch) })
		report("Activation", "Gelem/s", n*inner, func() { k.Activation(ywide, wide, compute.GELUTanh) })
		report("ActivationGrad", "Gelem/s", n*inner, func() { k.ActivationGrad(ywide, dwide, wide, compute.GELUTanh) })
		report("Add", "Gelem/s", n*width, func() { k.Add(y, x, dy) })
		report("Dropout", "Gelem/s", n*width, func() { k.Dropout(y, x, [2]int32{1, 2}, 3, 0.1) })
		norm := make([]float32, SumSquaresWork(n*inner))
		report("SumSquares", "Gelem/s", n*inner, func() { k.SumSquares(wide, norm) })
		p, m, v := normal(6, n*inner), make([]float32, n*inner), make([]float32, n*inner)
		h := vec.AdamWStep{LearningRate: 1e-5, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8, Decay: 0.1, Correction1: 0.1, Correction2: 0.05, Multiplier: 1}
		report("AdamW", "Gparam/s", n*inner, func() { k.AdamW(p, m, v, dwide, h) })
		table := make([]float32, vocab*width)
		tokens, positions := ids(rng.New(7, "ids"), n, vocab), make([]int32, n)
		report("Embed", "Gelem/s", n*width, func() {
			if err := k.Embed(y, table, x, tokens, positions, width); err != nil {
				b.Fatal(err)
			}
		})
		sorted := make([]float32, EmbedGradWork(n))
		report("EmbedGrad", "Gelem/s", n*width, func() {
			if err := k.EmbedGrad(table, dy, tokens, width, sorted); err != nil {
				b.Fatal(err)
			}
		})
		weight := normal(8, inner*width)
		dweight, work := make([]float32, inner*width), make([]float32, LinearWork(n, width, inner))
		const product = 2 * n * width * inner
		report("Linear", "GFLOP/s", product, func() { k.Linear(ywide, x, weight, nil, nil, n, width, inner, 1, work) })
		report("LinearGradX", "GFLOP/s", product, func() { k.LinearGradX(y, dwide, weight, nil, n, width, inner, 1, work) })
		report("LinearGradW", "GFLOP/s", product, func() { k.LinearGradW(dweight, dwide, x, n, width, inner, 1, work) })
		head, dhead := normal(9, vocab*width), make([]float32, vocab*width)
		loss := make([]float32, CrossEntropyWork(n, width, vocab))
		report("CrossEntropy", "GFLOP/s", 3*2*n*width*vocab, func() {
			if _, err := k.CrossEntropy(y, dhead, x, head, tokens, 1, width, vocab, loss); err != nil {
				b.Fatal(err)
			}
		})
		d.Close()
	}
}
