package quant

import (
	"encoding/binary"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// hostile makes a product of arbitrary stored bytes and activations.
func hostile(t *testing.T, f Format, n, out, in int, codes, scales []byte, x []float32) product {
	t.Helper()
	c, s := Size(f, out, in)
	p := product{n: n, out: out, in: in, x: repeat(x, n*in)}
	var err error
	if p.w, err = From(f, out, in, repeat(codes, c), repeat(scales, s)); err != nil {
		t.Fatal(err)
	}
	return p
}

// repeat returns n elements of x over and over.
func repeat[T any](x []T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = x[i%len(x)]
	}
	return out
}

func sameAsGeneric(t *testing.T, p product) {
	t.Helper()
	want := p.run(genericKernel(), nil)
	for _, k := range kernels() {
		t.Run(k.level, func(t *testing.T) { sameBits(t, p.run(k, nil), want) })
	}
}

func TestTwinsGiveTheSameBits(t *testing.T) {
	formats := rapid.SampledFrom([]Format{Int8, Int4})
	floats := rapid.Custom(func(t *rapid.T) float32 {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
		case 1:
			return float32(rapid.IntRange(-255, 255).Draw(t, "halves")) / 2 // ties
		}
		return rapid.Float32Range(-10, 10).Draw(t, "x")
	})
	rapid.Check(t, func(r *rapid.T) {
		f := formats.Draw(r, "format")
		n, out, in := rapid.IntRange(1, 32).Draw(r, "n"), rapid.IntRange(1, 70).Draw(r, "out"), rapid.IntRange(1, 700).Draw(r, "in")
		codes := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(r, "codes")
		scales := rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(r, "scales")
		x := rapid.SliceOfN(floats, 1, 300).Draw(r, "x")
		p := hostile(t, f, n, out, in, codes, scales, x)
		want := p.run(genericKernel(), nil)
		for _, k := range kernels() {
			got := p.run(k, nil)
			for i := range want {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) && !(got[i] != got[i] && want[i] != want[i]) {
					r.Fatalf("%s: y[%d] = %v, expected %v", k.level, i, got[i], want[i])
				}
			}
		}
	})
}

// TestExtremes has the largest sums there can be: every code at an end of its range.
func TestExtremes(t *testing.T) {
	for _, f := range []Format{Int8, Int4} {
		for _, code := range []byte{0, 0xff, 0x0f, 0xf0} {
			for _, x := range [][]float32{{1}, {-1}, {1, -1}, {1, 1, -1, -1}} {
				sameAsGeneric(t, hostile(t, f, 15, 33, 520, []byte{code}, []byte{0, 0x3c}, x))
			}
		}
	}
}

func FuzzTwins(f *testing.F) {
	f.Add(uint8(0), uint8(1), uint8(17), uint16(130), []byte("codes and then some"), []byte("sc"), []byte("activations of any bits!"))
	f.Add(uint8(1), uint8(15), uint8(32), uint16(600), []byte{0, 255}, []byte{0, 0x3c}, []byte{0, 0, 0x80, 0x7f, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, format, n, out uint8, in uint16, codes, scales, raw []byte) {
		if n == 0 || out == 0 || in == 0 || in > 1200 || n > 40 || len(codes) == 0 || len(scales) == 0 || len(raw) < 4 {
			return
		}
		x := make([]float32, len(raw)/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		sameAsGeneric(t, hostile(t, []Format{Int8, Int4}[format%2], int(n), int(out), int(in), codes, scales, x))
	})
}

// FuzzQuantize quantises arbitrary weights: no panic, and codes and scales that dequantise to something within the law.
func FuzzQuantize(f *testing.F) {
	f.Add([]byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0, 0, 0, 0xc0, 0x7f})
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0x7f, 0x7f})
	f.Fuzz(func(t *testing.T, raw []byte) {
		w := make([]float32, len(raw)/4)
		for i := range w {
			w[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		if len(w) == 0 {
			return
		}
		for _, format := range []Format{Int8, Int4} {
			for _, m := range []*Matrix{Quantize(nil, format, w, 1, len(w)), QuantizeAbsMax(nil, format, w, 1, len(w))} {
				checkQuantized(t, m, w)
			}
		}
	})
}
