package ref

import (
	"math"
	"testing"

	"autodev/compute"
)

func TestBFloat16(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct{ x, want float64 }{
		{0, 0}, {1, 1}, {-3, -3},
		{1 + 0x1p-8, 1}, {1 + 3*0x1p-8, 1 + 0x1p-6}, // halfway: to the even mantissa
		{1 + 0x1p-8 + 0x1p-20, 1 + 0x1p-7}, {-(1 + 0x1p-8 + 0x1p-20), -(1 + 0x1p-7)},
		{math.MaxFloat32, inf}, {0x1.fep127, 0x1.fep127}, {inf, inf}, {-inf, -inf},
	} {
		if got := BFloat16(c.x); got != c.want {
			t.Errorf("BFloat16(%v) = %v, expected %v", c.x, got, c.want)
		}
		if got := BFloat16(float32(c.x)); got != float32(c.want) {
			t.Errorf("BFloat16(float32(%v)) = %v, expected %v", c.x, got, c.want)
		}
	}
	if got := BFloat16(nan); got == got {
		t.Errorf("BFloat16(NaN) = %v", got)
	}
	if got := BFloat16(math.Float32frombits(0x7f800001)); got == got {
		t.Errorf("BFloat16 of a NaN whose mantissa is all in the lower half is %v", got)
	}
}

// The attribute rounds what enters products, and nothing that is added to them.
func TestOperandsAreRounded(t *testing.T) {
	const fine = 1 + 0x1p-12 // 1 as a bfloat16
	buffer := func(shape ...int) compute.Buffer {
		return compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: shape}
	}
	for _, bf16 := range []bool{false, true} {
		y := []float32{0}
		c := compute.Call{
			Kernel: compute.Linear, Attr: compute.Attr{Alpha: 1, BF16: bf16},
			In: []compute.Buffer{buffer(1, 1), buffer(1, 1), buffer(1), buffer(1, 1)}, Out: []compute.Buffer{buffer(1, 1)},
		}
		in := []compute.Host{{F32: []float32{fine}}, {F32: []float32{fine}}, {F32: []float32{0x1p-10}}, {F32: []float32{0x1p-11}}}
		if err := (Kernels{}).Do(&c, in, []compute.Host{{F32: y}}); err != nil {
			t.Fatal(err)
		}
		want := float32(1 + 0x1p-10 + 0x1p-11)
		if !bf16 {
			want = float32(fine*fine + 0x1p-10 + 0x1p-11)
		}
		if y[0] != want {
			t.Errorf("BF16 %v: %v, expected %v", bf16, y[0], want)
		}
	}
}
