package compute

import (
	"math"
	"testing"
)

func TestStorage(t *testing.T) {
	for _, c := range []struct {
		s                      Storage
		parameter, flow, exact DType
		masters                bool
		text                   string
	}{
		{Uniform(F32), F32, F32, F32, false, "f32"},
		{Uniform(F64), F64, F64, F64, false, "f64"},
		{Mixed(BF16), BF16, BF16, F32, true, "bf16 with f32"},
		{Mixed(F16), F16, F16, F32, true, "f16 with f32"},
	} {
		if c.s.Of(Parameter) != c.parameter || c.s.Of(Flow) != c.flow || c.s.Of(Exact) != c.exact || c.s.Masters() != c.masters || c.s.String() != c.text {
			t.Errorf("%v: %v, %v, %v, masters %v", c.s, c.s.Of(Parameter), c.s.Of(Flow), c.s.Of(Exact), c.s.Masters())
		}
		if err := c.s.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []Storage{{}, Uniform(I32), Uniform(BF16), Uniform(F16), Mixed(F64), Mixed(F32), {Float: F64, Short: BF16}} {
		if s.Check() == nil {
			t.Errorf("%v is accepted", s)
		}
	}
}

func TestBF16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct{ x, want float32 }{
		{0, 0}, {1, 1}, {-2.5, -2.5}, {inf, inf}, {-inf, -inf}, {math.MaxFloat32, inf},
		{1 + 1.0/256, 1}, {1 + 3.0/256, 1 + 4.0/256}, // ties to even
		{1 + 1.0/256 + 1.0/65536, 1 + 1.0/128}, {1 + 1.0/256 - 1.0/65536, 1},
		{math.SmallestNonzeroFloat32, 0}, {1e-40, 0x1p-133}, // subnormal
	} {
		if got := FromShort(BF16, ToShort(BF16, []float32{c.x}))[0]; got != c.want {
			t.Errorf("%v becomes %v, expected %v", c.x, got, c.want)
		}
	}
	for _, bits := range []uint32{0x7f800001, 0x7fc00000, 0xffffffff, 0x7fffffff} {
		if got := FromShort(BF16, ToShort(BF16, []float32{math.Float32frombits(bits)}))[0]; got == got {
			t.Errorf("NaN %08x becomes %v", bits, got)
		}
	}
}

func TestF16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct{ x, want float32 }{
		{0, 0}, {1, 1}, {-2.5, -2.5}, {inf, inf}, {65504, 65504}, {65519, 65504}, {65520, inf}, {-1e6, -inf},
		{1 + 1.0/2048, 1}, {1 + 3.0/2048, 1 + 4.0/2048}, // ties to even
		{0x1p-24, 0x1p-24}, {0x1p-25, 0}, {0x1.8p-25, 0x1p-24}, {0x1.8p-15, 0x1.8p-15}, // subnormal
	} {
		if got := FromShort(F16, ToShort(F16, []float32{c.x}))[0]; got != c.want {
			t.Errorf("%v becomes %v, expected %v", c.x, got, c.want)
		}
		if err := CheckF16([]float32{0, c.x}); (err == nil) != (math.IsInf(float64(c.want), 0) == math.IsInf(float64(c.x), 0)) {
			t.Errorf("%v, which becomes %v: error %v", c.x, c.want, err)
		}
	}
	if got := FromShort(F16, ToShort(F16, []float32{float32(math.NaN())}))[0]; got == got {
		t.Errorf("NaN becomes %v", got)
	}
	if err := CheckF16([]float32{1, -65520}); err == nil || err.Error() != "element 1 is -65520, float16 holds numbers up to 65504: bfloat16 and float32 hold it" {
		t.Errorf("error %v", err)
	}
}
