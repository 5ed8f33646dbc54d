package gguf

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/model/dtype"
)

// block returns 32 zeros with some elements set.
func block(set map[int]float32) []float32 {
	x := make([]float32, blockLen)
	for i, v := range set {
		x[i] = v
	}
	return x
}

func TestQ8Block(t *testing.T) {
	// The scale is 1: halves are rounded away from zero.
	x := block(map[int]float32{0: 127, 1: -127, 2: 0.5, 3: -0.5, 4: 1.5, 5: 0.49999997, 31: -2.4})
	got := make([]byte, 34)
	if err := encode(got, x, Q8_0); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 34)
	binary.LittleEndian.PutUint16(want, dtype.ToF16(1))
	for i, q := range map[int]int8{0: 127, 1: -127, 2: 1, 3: -1, 4: 2, 5: 0, 31: -2} {
		want[2+i] = byte(q)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("found % x, expected % x", got, want)
	}
}

func TestQ4Block(t *testing.T) {
	// The largest magnitude, −8, gives the scale 1 and level 0; level 8 is zero; 8 itself would be level 16 and is cut to 15.
	x := block(map[int]float32{0: -8, 1: 8, 2: 0.5, 3: 0.49, 16: 7, 17: -7.6, 18: -0.5})
	got := make([]byte, 18)
	if err := encode(got, x, Q4_0); err != nil {
		t.Fatal(err)
	}
	want := []byte{0x00, 0x3c, 0xf0, 0x0f, 0x89, 0x88}
	for len(want) < 18 {
		want = append(want, 0x88)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("found % x, expected % x", got, want)
	}
}

// TestZeroBlock: ggml divides zero by −8, so the scale of Q4_0 is a negative zero.
func TestZeroBlock(t *testing.T) {
	for _, zero := range []float32{0, float32(math.Copysign(0, -1))} {
		x := block(nil)
		for i := range x {
			x[i] = zero
		}
		got := make([]byte, 18)
		if err := encode(got, x, Q4_0); err != nil {
			t.Fatal(err)
		}
		if got[0] != 0 || got[1] != 0x80 || got[2] != 0x88 {
			t.Errorf("%v: found % x, expected a scale of −0 and levels 8", zero, got)
		}
		back := make([]float32, blockLen)
		if err := decode(back, got, Q4_0); err != nil {
			t.Fatal(err)
		}
		for i, v := range back {
			if v != 0 {
				t.Errorf("element %d: found %v, expected 0", i, v)
			}
		}
	}
}

// TestTinyNumbers: 1/d is infinite for scales below 2^-128, and 0·∞ is no number.
func TestTinyNumbers(t *testing.T) {
	x := block(map[int]float32{3: math.SmallestNonzeroFloat32, 4: -1e-43})
	for _, kind := range []Type{Q8_0, Q4_0} {
		b := make([]byte, types[kind].bytes)
		back := make([]float32, blockLen)
		if err := encode(b, x, kind); err != nil {
			t.Fatal(err)
		}
		if err := decode(back, b, kind); err != nil {
			t.Fatal(err)
		}
		for i, v := range back {
			if v != 0 {
				t.Errorf("%v: element %d: found %v, expected 0", kind, i, v)
			}
		}
	}
}

func TestWhatATypeCannotHold(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		kind Type
		x    float32
		want string
	}{
		{F32, nan, "element 5: NaN, expected a finite number"},
		{Q8_0, inf, "element 5: -Inf, expected a finite number"},
		{F16, -70000, "element 5: -70000 is beyond F16, expected at most 65504 (BF16 holds it)"},
		{BF16, math.MaxFloat32, "element 5: 3.4028235e+38 is beyond BF16"},
		{Q8_0, 1e7, "element 0: block of 32 numbers up to 1e+07, whose scale is beyond Q8_0's F16"},
		{Q4_0, -1e6, "element 0: block of 32 numbers up to -1e+06, whose scale is beyond Q4_0's F16"},
	} {
		x := block(map[int]float32{5: c.x})
		err := encode(make([]byte, 128), x, c.kind)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %v: found %v, expected %q", c.kind, c.x, err, c.want)
		}
	}
}

// TestErrorNamesTheElement: the index is that in the tensor, not in the chunk that was converted.
func TestErrorNamesTheElement(t *testing.T) {
	x := make([]float32, 5*chunkLen)
	x[3*chunkLen+77] = float32(math.NaN())
	for _, kind := range []Type{F32, F16, BF16, Q8_0, Q4_0} {
		err := encodeTo(new(bytes.Buffer), x, kind)
		if want := "element 393293: NaN, expected a finite number"; err == nil || err.Error() != want {
			t.Errorf("%v: found %v, expected %q", kind, err, want)
		}
	}
}

// TestRoundTripError bounds what quantisation may change, element by element.
func TestRoundTripError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rapid.Float32Range(-1000, 1000), blockLen, blockLen).Draw(t, "x")
		scale := float32(math.Ldexp(1, rapid.IntRange(-10, 5).Draw(t, "scale")))
		for i := range x {
			x[i] *= scale
		}
		top := float64(abs(maxAbs(x)))
		for _, c := range []struct {
			kind Type
			step float64 // the largest error as a part of the largest magnitude: half a step (Q4_0: a step at one end), and the F16 scale's own
		}{{F32, 0}, {F16, 1.0 / 2048}, {BF16, 1.0 / 256}, {Q8_0, 0.5/127 + 1.0/2048}, {Q4_0, 1.0/8 + 1.0/2048}} {
			b, back := make([]byte, 4*blockLen), make([]float32, blockLen)
			if err := encode(b, x, c.kind); err != nil {
				t.Fatal(err)
			}
			if err := decode(back, b[:blockLen/types[c.kind].block*types[c.kind].bytes], c.kind); err != nil {
				t.Fatal(err)
			}
			for i := range x {
				// F16 scales and elements below 2^-14 have absolute steps of 2^-24.
				if diff := math.Abs(float64(x[i] - back[i])); diff > c.step*top*1.001+128*0x1p-24 {
					t.Fatalf("%v: element %d: %v became %v, which is %v off in a block up to %v", c.kind, i, x[i], back[i], diff, top)
				}
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	x := make([]float32, 1<<20)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	for _, kind := range []Type{F16, Q8_0, Q4_0} {
		b.Run(kind.String(), func(b *testing.B) {
			dst := make([]byte, len(x)*4)
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				if err := encode(dst, x, kind); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
