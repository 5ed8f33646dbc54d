package ref

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
)

func near[T Float](t *testing.T, what string, got, want []T) {
	t.Helper()
	for i := range want {
		if math.Abs(float64(got[i]-want[i])) > 1e-6 {
			t.Fatalf("%s = %v, expected %v", what, got, want)
		}
	}
}

// The expected numbers of these tests can be worked out on paper.
func TestByHand(t *testing.T) {
	y := make([]float32, 4)
	must(t, Embed(y, []float32{1, 2, 3, 4, 5, 6}, []float32{10, 20, 30, 40}, []int32{2, 0}, []int32{1, 0}, 2))
	near(t, "Embed", y, []float32{35, 46, 11, 22})

	table := []float32{1, 1, 1, 1, 1, 1}
	must(t, EmbedGrad(table, []float32{1, 2, 3, 4, 5, 6}, []int32{2, 0, 2}, 2))
	near(t, "EmbedGrad", table, []float32{4, 5, 1, 1, 7, 9})

	LayerNorm(y, []float32{1, 3, 5, 5}, []float32{2, 2}, []float32{0.5, 1}, 0.000001)
	near(t, "LayerNorm", y, []float32{-1.5 + 0.000001, 3 - 0.000001, 0.5, 1})

	gain := []float64{1, 1}
	LayerNormGainGrad(gain, []float64{3, 4}, []float64{1, 3}, 0)
	near(t, "LayerNormGainGrad", gain, []float64{-2, 5})

	Linear(y, []float32{1, 2, 3, 4}, []float32{1, 1, 0, 2}, []float32{100, 200}, []float32{1, 2, 3, 4}, 2, 2, 2, 10)
	near(t, "Linear", y, []float32{131, 242, 173, 284})
	Linear(y[:2], []float32{1, 2}, []float32{1, 1, 0, 2}, nil, nil, 1, 2, 2, 1)
	near(t, "Linear without bias and base", y[:2], []float32{3, 4})
	LinearGradX(y[:2], []float32{1, 2}, []float32{1, 1, 0, 2}, []float32{7, 8}, 1, 2, 2, 2)
	near(t, "LinearGradX", y[:2], []float32{9, 18})
	dw := []float32{1, 1, 1, 1}
	LinearGradW(dw, []float32{1, 2, 0, 1}, []float32{1, 1, 3, 0}, 2, 2, 2, 2)
	near(t, "LinearGradW", dw, []float32{3, 3, 11, 5})
	db := []float32{1, 1}
	BiasGrad(db, []float32{1, 2, 3, 4})
	near(t, "BiasGrad", db, []float32{5, 7})

	// One head, D = 1, zero queries: uniform attention over the visible values 1, 2, 4; the third token starts a document.
	attr := compute.Attr{Heads: 1, KVHeads: 1, HeadDim: 1, Seq: 4, Scale: 1}
	must(t, Attention(y, []float32{0, 9, 1, 0, 9, 2, 0, 9, 4, 0, 9, 8}, []int32{0, 0, 2, 2}, [2]int32{}, attr))
	near(t, "Attention", y, []float32{1, 1.5, 4, 6})
	// Two query heads share a key head; scores ln 3 and 0 weigh the values 3:1.
	attr = compute.Attr{Heads: 2, KVHeads: 1, HeadDim: 1, Seq: 2, Scale: 0.5}
	ln9 := float32(math.Log(9))
	must(t, Attention(y, []float32{0, 0, 1, 8, 0, ln9, 0, 0}, []int32{0, 0}, [2]int32{}, attr))
	near(t, "Attention of grouped heads", y, []float32{8, 8, 4, 6})

	Activation(y[:3], []float32{-1, 0, 2}, compute.ReLU)
	near(t, "ReLU", y[:3], []float32{0, 0, 2})
	Activation(y[:3], []float32{-1, 0, 2}, compute.GELUErf) // x·Φ(x)
	near(t, "GELUErf", y[:3], []float32{-0.15865525, 0, 1.9544997})
	Activation(y[:3], []float32{-1, 0, 2}, compute.GELUTanh)
	near(t, "GELUTanh", y[:3], []float32{-0.15880801, 0, 1.9545977})
	Add(y[:2], []float32{1, 2}, []float32{3, 5})
	near(t, "Add", y[:2], []float32{4, 7})

	// Equal logits over 4 scored rows of 5: nll ln 4, p 1/4 each.
	loss, dx, head := make([]float64, 1), make([]float64, 2), []float64{1, 0, 0, 1, 0, 0, 0, 0, 100, 100}
	dhead := make([]float64, len(head))
	must(t, CrossEntropy(loss, dx, dhead, []float64{0, 0}, head, []int32{1}, 2, 2, compute.Attr{Vocab: 4}))
	near(t, "loss", loss, []float64{2 * math.Log(4)})
	near(t, "dx", dx, []float64{0.5, -1.5})

	if s := SumSquares([]float32{1, 2, 3}); s != 14 {
		t.Errorf("SumSquares = %v, expected 14", s)
	}
	// First step: m/c1 = g, v/c2 = g², so the step is lr·g/(|g|+ε) besides the decay lr·0.5·p.
	p, m, v := []float64{1, 1}, []float64{0, 0}, []float64{0, 0}
	AdamW(p, m, v, []float64{4, -1}, Hyper[float64]{0.1, 0.9, 0.99, 0, 0.5, 0.1, 0.01, 0.5})
	near(t, "AdamW", p, []float64{0.85, 1.05})
	near(t, "m", m, []float64{0.2, -0.05})
	near(t, "v", v, []float64{0.04, 0.0025})
}

func TestDropoutKeepsItsShareAndMask(t *testing.T) {
	x := make([]float32, 1<<14)
	for i := range x {
		x[i] = 1
	}
	y, again := make([]float32, len(x)), make([]float32, len(x)-5)
	Dropout(y, x, [2]int32{1, 2}, 3, 0.25)
	Dropout(again, x[5:], [2]int32{1, 2}, 3, 0.25)
	if !slices.Equal(y[:len(again)], again) {
		t.Error("the mask depends on more than key, salt and index")
	}
	kept := 0
	for _, v := range y {
		if v != 0 {
			kept++
			if v != float32(1/0.75) {
				t.Fatalf("kept element is %v", v)
			}
		}
	}
	if share := float64(kept) / float64(len(x)); math.Abs(share-0.75) > 0.02 {
		t.Errorf("kept %v of the elements, expected 0.75", share)
	}
	Dropout(again, x[5:], [2]int32{1, 2}, 4, 0.25)
	if slices.Equal(y[:len(again)], again) {
		t.Error("salt changes nothing")
	}
}

func buffer(dtype compute.DType, shape ...int) compute.Buffer {
	return compute.Buffer{DType: dtype, Shape: shape}
}

func TestDoReportsOutOfRange(t *testing.T) {
	f32 := func(n int) compute.Host { return compute.Host{F32: make([]float32, n)} }
	i32 := func(v ...int32) compute.Host { return compute.Host{I32: v} }
	scale := compute.Attr{Vocab: 3, Heads: 1, KVHeads: 1, HeadDim: 1, Seq: 2, Scale: 1}
	f, i := compute.F32, compute.I32
	for _, c := range []struct {
		call    compute.Call
		in, out []compute.Host
		want    string
	}{
		{compute.Call{Kernel: compute.Embed, In: []compute.Buffer{buffer(f, 3, 2), buffer(f, 2, 2), buffer(i, 2), buffer(i, 2)}, Out: []compute.Buffer{buffer(f, 2, 2)}},
			[]compute.Host{f32(6), f32(4), i32(0, 3), i32(0, 1)}, []compute.Host{f32(4)}, "ids[1] is 3, expected 0 to 2"},
		{compute.Call{Kernel: compute.Embed, In: []compute.Buffer{buffer(f, 3, 2), buffer(f, 2, 2), buffer(i, 2), buffer(i, 2)}, Out: []compute.Buffer{buffer(f, 2, 2)}},
			[]compute.Host{f32(6), f32(4), i32(0, 2), i32(-1, 1)}, []compute.Host{f32(4)}, "positions[0] is -1, expected 0 to 1"},
		{compute.Call{Kernel: compute.EmbedGrad, In: []compute.Buffer{buffer(f, 2, 2), buffer(i, 2)}, Out: []compute.Buffer{buffer(f, 3, 2)}},
			[]compute.Host{f32(4), i32(0, -5)}, []compute.Host{f32(6)}, "ids[1] is -5, expected 0 to 2"},
		{compute.Call{Kernel: compute.Attention, Attr: scale, In: []compute.Buffer{buffer(f, 4, 3), buffer(i, 4)}, Out: []compute.Buffer{buffer(f, 4, 1)}},
			[]compute.Host{f32(12), i32(0, 0, 0, 2)}, []compute.Host{f32(4)}, "docStart[3] is 2, expected 0 to 1"},
		{compute.Call{Kernel: compute.AttentionGrad, Attr: scale, In: []compute.Buffer{buffer(f, 4, 1), buffer(f, 4, 3), buffer(i, 4)}, Out: []compute.Buffer{buffer(f, 4, 3)}},
			[]compute.Host{f32(4), f32(12), i32(0, -1, 0, 1)}, []compute.Host{f32(12)}, "docStart[1] is -1, expected 0 to 1"},
		{compute.Call{Kernel: compute.CrossEntropy, Attr: scale, In: []compute.Buffer{buffer(f, 2, 2), buffer(f, 4, 2), buffer(i, 2), buffer(f, 1)}, Out: []compute.Buffer{buffer(f, 1), buffer(f, 2, 2), buffer(f, 4, 2)}},
			[]compute.Host{f32(4), f32(8), i32(-1, 3), f32(1)}, []compute.Host{f32(1), f32(4), f32(8)}, "targets[1] is 3, expected -1 to 2"},
		{compute.Call{Kernel: compute.TokenNLL, Attr: scale, In: []compute.Buffer{buffer(f, 2, 2), buffer(f, 4, 2), buffer(i, 2)}, Out: []compute.Buffer{buffer(f, 2)}},
			[]compute.Host{f32(4), f32(8), i32(4, 0)}, []compute.Host{f32(2)}, "targets[0] is 4, expected -1 to 2"},
	} {
		c.call.Name = "site"
		err := Kernels{}.Do(&c.call, c.in, c.out)
		var r *compute.RangeError
		if !errors.As(err, &r) || !strings.HasSuffix(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "site: ") {
			t.Errorf("%v: error %v, expected site: … %s", c.call.Kernel, err, c.want)
		}
	}
}

func TestDoRunsBothFloats(t *testing.T) {
	call := compute.Call{Kernel: compute.Add, In: []compute.Buffer{buffer(compute.F64, 2), buffer(compute.F64, 2)}, Out: []compute.Buffer{buffer(compute.F64, 2)}}
	y := []float64{0, 0}
	must(t, Kernels{}.Do(&call, []compute.Host{{F64: []float64{1, 2}}, {F64: []float64{0.5, 1e-12}}}, []compute.Host{{F64: y}}))
	if y[0] != 1.5 || y[1] != 2+1e-12 {
		t.Errorf("Add in float64 = %v", y)
	}
	err := Kernels{}.Do(&call, []compute.Host{{F64: []float64{1, 2}}, {F64: []float64{1}}}, []compute.Host{{F64: y}})
	if err == nil || !strings.Contains(err.Error(), "input 1 has 1 f64 elements, expected 2") {
		t.Errorf("short operand: %v", err)
	}
	if err := (Kernels{}).Do(&call, []compute.Host{{F64: []float64{1, 2}}}, []compute.Host{{F64: y}}); err == nil {
		t.Error("a missing operand is accepted")
	}
}
