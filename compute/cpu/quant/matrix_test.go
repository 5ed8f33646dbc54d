package quant

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestHalf(t *testing.T) {
	var finite []float64
	for h := range 1 << 16 {
		v := fromHalf(uint16(h))
		sign, exp, frac := 1-2*float64(h>>15), h>>10&31, float64(h&0x3ff)
		want := sign * (1 + frac/1024) * math.Ldexp(1, exp-15)
		switch {
		case exp == 0:
			want = sign * frac * 0x1p-24
		case exp == 31 && frac == 0:
			want = math.Inf(int(sign))
		case exp == 31:
			want = math.NaN()
		}
		if float64(v) != want && !(v != v && want != want) {
			t.Fatalf("float16 %#04x is %v, expected %v", h, v, want)
		}
		if exp < 31 {
			if back := toHalf(v); int(back) != h {
				t.Fatalf("%v became %#04x, expected %#04x", v, back, h)
			}
			if h < 0x7c00 {
				finite = append(finite, want)
			}
		}
	}
	// Between neighbours: the nearer one, in the middle the even one.
	for i := range len(finite) - 1 {
		a, b := finite[i], finite[i+1]
		for _, c := range []struct {
			v    float64
			want int
		}{{a + (b-a)*0.5, i + i&1}, {a + (b-a)*0.49, i}, {a + (b-a)*0.51, i + 1}} {
			for sign := range 2 {
				v := float32(c.v * (1 - 2*float64(sign)))
				if got := toHalf(v); int(got) != c.want|sign<<15 {
					t.Fatalf("%v became %#04x, expected %#04x", v, got, c.want|sign<<15)
				}
			}
		}
	}
	for v, want := range map[float32]uint16{65519: 0x7bff, 65520: 0x7bff, 1e30: 0x7bff, -1e30: 0xfbff, float32(math.Inf(1)): 0x7bff, 0x1p-26: 0, -0x1p-149: 0x8000} {
		if got := toHalf(v); got != want {
			t.Errorf("%v became %#04x, expected %#04x", v, got, want)
		}
	}
	if v := fromHalf(toHalf(float32(math.NaN()))); v == v {
		t.Errorf("NaN became %v", v)
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		f                      Format
		out, in, codes, scales int
	}{
		{Int8, 1, 1, 1024, 64}, {Int8, 16, 256, 4096, 64}, {Int8, 17, 257, 2 * 16 * 320, 128}, {Int4, 1, 1, 512, 64}, {Int4, 33, 65, 3 * 8 * 128, 192},
		{Int8, 8192, 2048, 8192 * 2048, 8192 * 16}, {Int4, 8192, 2048, 8192 * 1024, 8192 * 64},
		{Int8, 0, 1, 0, 0}, {Int8, 1, 0, 0, 0}, {Int8, -5, 3, 0, 0}, {Int4, 5, -3, 0, 0}, {0, 1, 1, 0, 0}, {9, 1, 1, 0, 0},
		{Int8, math.MaxInt, 1, 0, 0}, {Int8, 1, math.MaxInt, 0, 0}, {Int4, math.MaxInt, math.MaxInt, 0, 0}, {Int8, math.MinInt, math.MinInt, 0, 0},
		{Int8, 1 << (intBits/2 - 1), 1 << (intBits/2 - 1), 0, 0},
	} {
		codes, scales := Size(c.f, c.out, c.in)
		if codes != c.codes || scales != c.scales {
			t.Errorf("%s [%d %d] has %d and %d bytes, expected %d and %d", c.f, c.out, c.in, codes, scales, c.codes, c.scales)
		}
		if codes == 0 {
			if _, err := From(c.f, c.out, c.in, nil, nil); err == nil {
				t.Errorf("%s [%d %d] from nothing: no error", c.f, c.out, c.in)
			}
		}
	}
}

const intBits = 32 << (^uint(0) >> 63)

func TestFrom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range []Format{Int8, Int4} {
		m := Quantize(nil, f, normal(r, 20*300, 1), 20, 300)
		back, err := From(f, 20, 300, bytes.Clone(m.Codes()), bytes.Clone(m.Scales()))
		if err != nil {
			t.Fatal(err)
		}
		a, b := make([]float32, 20*300), make([]float32, 20*300)
		m.Dequantize(a)
		back.Dequantize(b)
		sameBits(t, b, a)
		if back.Out() != 20 || back.In() != 300 || back.Format() != f || back.Bytes() != len(m.Codes())+len(m.Scales()) {
			t.Errorf("[%d %d] %s of %d bytes", back.Out(), back.In(), back.Format(), back.Bytes())
		}
		for _, bad := range [][2]int{{-1, 0}, {0, -64}, {64, 0}} {
			_, err := From(f, 20, 300, repeat(m.Codes(), len(m.Codes())+bad[0]), repeat(m.Scales(), len(m.Scales())+bad[1]))
			if err == nil || !strings.Contains(err.Error(), "[20 300]") {
				t.Errorf("lengths off by %v: %v", bad, err)
			}
		}
	}
}

func TestFromCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, f := range []Format{Int8, Int4} {
		const out, in = 35, 330
		codes, scales := make([]int8, out*in), make([]float32, out*f.Groups(in))
		for i := range codes {
			codes[i] = int8(r.IntN(256) - 128)
			if f == Int4 {
				codes[i] >>= 4
			}
		}
		for i := range scales {
			scales[i] = float32(r.NormFloat64())
		}
		m := FromCodes(f, codes, scales, out, in)
		gotCodes, gotScales := codesOf(m)
		row := make([]float32, in)
		for o := range out {
			m.Row(row, o)
			for k := range in {
				s := RoundScale(scales[o*f.Groups(in)+k/f.Group()])
				if gotCodes[o*in+k] != int(codes[o*in+k]) || gotScales[o*f.Groups(in)+k/f.Group()] != s {
					t.Fatalf("%s [%d,%d]: code %d scale %v, expected %d and %v", f, o, k, gotCodes[o*in+k], gotScales[o*f.Groups(in)+k/f.Group()], codes[o*in+k], s)
				}
				if want := float32(codes[o*in+k]) * s; row[k] != want {
					t.Fatalf("%s [%d,%d] is %v, expected %v", f, o, k, row[k], want)
				}
			}
		}
	}
}

// TestPadding: what lies beyond out and in is zero weights.
func TestPadding(t *testing.T) {
	for _, f := range []Format{Int8, Int4} {
		codes := make([]int8, 17*65)
		for i := range codes {
			codes[i] = 7
		}
		m := FromCodes(f, codes, repeat([]float32{1}, 17*f.Groups(65)), 17, 65)
		whole := &Matrix{format: f, out: 32, in: 128, codes: m.codes, scales: m.scales}
		for i, c := range firstOf(codesOf(whole)) {
			want := 0
			if i/128 < 17 && i%128 < 65 {
				want = 7
			}
			if c != want {
				t.Fatalf("%s: code [%d,%d] is %d, expected %d", f, i/128, i%128, c, want)
			}
		}
	}
}

func firstOf[A, B any](a A, _ B) A { return a }

func TestStrings(t *testing.T) {
	for _, f := range []Format{Int8, Int4} {
		if got, err := ParseFormat(f.String()); got != f || err != nil {
			t.Errorf("%s: %s, %v", f, got, err)
		}
	}
	if _, err := ParseFormat("int5"); err == nil {
		t.Error("int5: no error")
	}
}
