package dtype

import (
	"bytes"
	"math"
	"slices"
	"testing"
)

func TestEveryF16RoundTrips(t *testing.T) {
	for h := range 1 << 16 {
		if got := ToF16(FromF16(uint16(h))); got != uint16(h) {
			t.Fatalf("%04x became %04x", h, got)
		}
	}
}

func TestEveryBF16RoundTrips(t *testing.T) {
	for h := range 1 << 16 {
		if got := ToBF16(FromBF16(uint16(h))); got != uint16(h) {
			t.Fatalf("%04x became %04x", h, got)
		}
	}
}

func TestF16KnownValues(t *testing.T) {
	for h, want := range map[uint16]float32{
		0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 0x1p-24, 0x03ff: 1023 * 0x1p-24, 0x0400: 0x1p-14, 0x3555: 0.333251953125,
		0x7c00: float32(math.Inf(1)), 0xfc00: float32(math.Inf(-1)),
	} {
		if got := FromF16(h); got != want {
			t.Errorf("FromF16(%04x) = %v, expected %v", h, got, want)
		}
	}
	if f := FromF16(0x7e00); f == f {
		t.Errorf("FromF16(7e00) = %v, expected NaN", f)
	}
}

// Rounding is monotone and piecewise constant, so it is right everywhere if it is right at, just below and just above
// the middle between every two neighbours, for which float32 is exact.
func TestEveryRoundingBoundary(t *testing.T) {
	for name, c := range map[string]struct {
		from func(uint16) float32
		to   func(float32) uint16
		inf  uint16
		top  float64 // where infinity would sit on the grid of finite numbers
	}{
		"f16":  {FromF16, ToF16, 0x7c00, 65536},
		"bf16": {FromBF16, ToBF16, 0x7f80, 0x1p128},
	} {
		for h := uint16(0); h < c.inf; h++ {
			lo, hi := float64(c.from(h)), c.top
			if h+1 < c.inf {
				hi = float64(c.from(h + 1))
			}
			mid := float32(lo + (hi-lo)/2)
			if float64(mid) != lo+(hi-lo)/2 {
				t.Fatalf("%s: middle above %04x is no float32", name, h)
			}
			even := h
			if h&1 == 1 {
				even++
			}
			for _, p := range []struct {
				f    float32
				want uint16
			}{{math.Nextafter32(mid, 0), h}, {mid, even}, {math.Nextafter32(mid, float32(math.Inf(1))), h + 1}} {
				if got := c.to(p.f); got != p.want {
					t.Fatalf("%s: %g rounds to %04x, expected %04x", name, p.f, got, p.want)
				}
				if got := c.to(-p.f); got != p.want|0x8000 {
					t.Fatalf("%s: %g rounds to %04x, expected %04x", name, -p.f, got, p.want|0x8000)
				}
			}
		}
	}
}

func TestNaNStaysNaN(t *testing.T) {
	for _, b := range []uint32{0x7f800001, 0xff800001, 0x7fc00000, 0x7fffffff} {
		f := math.Float32frombits(b)
		if g := FromF16(ToF16(f)); g == g {
			t.Errorf("%08x became the f16 %v", b, g)
		}
		if g := FromBF16(ToBF16(f)); g == g {
			t.Errorf("%08x became the bf16 %v", b, g)
		}
	}
}

func TestEncodeDecode(t *testing.T) {
	src := []float32{1, -2.5, 0x1p-20, 0}
	for d, want := range map[DType][]byte{
		F32:  {0, 0, 128, 63, 0, 0, 32, 192, 0, 0, 128, 53, 0, 0, 0, 0},
		F16:  {0, 0x3c, 0, 0xc1, 16, 0, 0, 0},
		BF16: {128, 63, 32, 192, 128, 53, 0, 0},
	} {
		buf := make([]byte, 16)
		n, err := Encode(buf, src, d)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("%s: % x, %v, expected % x", d, buf[:n], err, want)
		}
		got := make([]float32, 4)
		if err := Decode(got, want, d); err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i] != src[i] {
				t.Errorf("%s element %d: %v, expected %v", d, i, got[i], src[i])
			}
		}
	}
	// What big-endian machines do gives the same bytes.
	portable, back := make([]byte, 16), make([]float32, 4)
	encode32(portable, src)
	decode32(back, portable)
	if !bytes.Equal(portable, []byte{0, 0, 128, 63, 0, 0, 32, 192, 0, 0, 128, 53, 0, 0, 0, 0}) || !slices.Equal(back, src) {
		t.Errorf("portable F32: % x, %v", portable, back)
	}
	got := make([]float32, 1)
	if err := Decode(got, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, F64); err != nil || got[0] != 1.5 {
		t.Errorf("F64: %v, %v", got[0], err)
	}
}

// Lengths around the unrolled loops' step, every value of both types.
func TestDecodeEveryLength(t *testing.T) {
	src := make([]byte, 1<<17)
	for i := range 1 << 16 {
		src[2*i], src[2*i+1] = byte(i), byte(i>>8)
	}
	for d, from := range map[DType]func(uint16) float32{F16: FromF16, BF16: FromBF16} {
		for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 1 << 16} {
			dst := make([]float32, n)
			if err := Decode(dst, src[:2*n], d); err != nil {
				t.Fatal(err)
			}
			for i, f := range dst {
				if math.Float32bits(f) != math.Float32bits(from(uint16(i))) {
					t.Fatalf("%s: element %d of %d is %v, expected %v", d, i, n, f, from(uint16(i)))
				}
			}
		}
	}
}

func TestErrors(t *testing.T) {
	buf := make([]byte, 8)
	for _, c := range []struct {
		err  func() error
		want string
	}{
		{func() error { return Decode(make([]float32, 1), buf, I64) }, "element type I64, expected one of F64 F32 F16 BF16"},
		{func() error { return Decode(make([]float32, 1), buf, F32) }, "8 bytes for 1 elements of F32, expected 4"},
		{func() error { _, err := Encode(buf, []float32{0, 65520}, F16); return err }, "element 1: 65520 is beyond F16, expected at most 65504"},
		{func() error { _, err := Encode(buf, []float32{-math.MaxFloat32}, BF16); return err }, "element 0: -3.4028235e+38 is beyond BF16, expected at most 3.3895314e+38"},
		{func() error { _, err := Encode(buf, []float32{1}, U8); return err }, "element type U8, expected F32, F16 or BF16"},
		{func() error { _, err := ParseFloat("int8"); return err }, `element type "int8", expected f32, bf16 or f16`},
	} {
		if err := c.err(); err == nil || err.Error() != c.want {
			t.Errorf("error %v, expected %s", err, c.want)
		}
	}
}
