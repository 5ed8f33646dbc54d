package quant

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// checkQuantized: scales can be stored, codes are within their range, and every weight has the nearest code.
func checkQuantized(t *testing.T, m *Matrix, w []float32) {
	t.Helper()
	codes, scales := codesOf(m)
	lo, hi := m.format.Range()
	for i, c := range codes {
		s := scales[i/m.in*m.format.Groups(m.in)+i%m.in/m.format.Group()]
		if s != s || s == 0 {
			if c != 0 {
				t.Fatalf("code %d with the scale %v", c, s)
			}
			continue
		}
		if c < lo || c > hi {
			t.Fatalf("code %d, expected between %d and %d", c, lo, hi)
		}
		exact := min(max(float64(w[i])/float64(s), float64(lo)), float64(hi))
		if math.Abs(exact-float64(c)) > 0.5001 {
			t.Fatalf("weight %v with the scale %v has code %d", w[i], s, c)
		}
	}
}

func TestQuantizeFindsExactCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range []Format{Int8, Int4} {
		lo, hi := f.Range()
		for range 50 {
			w := make([]float32, f.Group())
			s := RoundScale(float32(r.NormFloat64() * 0.01))
			for i := range w {
				w[i] = s * float32(lo+r.IntN(hi-lo+1))
			}
			w[r.IntN(len(w))] = s * float32(hi)
			if f == Int4 {
				w[0] = s * float32(lo)
			}
			if loss := f.loss(w, nil, f.Scale(w, nil)); loss > 1e-14 {
				t.Errorf("%s: weights on a grid of %v lose %v with the scale %v", f, s, loss, f.Scale(w, nil))
			}
		}
	}
}

func TestScaleIsNeverWorseThanAbsMax(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]Format{Int8, Int4}).Draw(t, "format")
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), 1, f.Group()).Draw(t, "w")
		var h []float32
		if rapid.Bool().Draw(t, "importance") {
			h = rapid.SliceOfN(rapid.Float32Range(0, 5), len(w), len(w)).Draw(t, "h")
		}
		got, plain := f.loss(w, h, f.Scale(w, h)), f.loss(w, h, f.absMaxScale(maxAbs(w)))
		if got > plain {
			t.Fatalf("loss %v, with the largest magnitude %v", got, plain)
		}
	})
}

// TestScaleIsWorthIt: on normal weights the searched scale of int4 saves a good part of the squared error.
func TestScaleIsWorthIt(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for f, most := range map[Format]float64{Int4: 0.85, Int8: 1} {
		var got, plain, power float64
		for range 200 {
			w := normal(r, f.Group(), 0.02)
			got += f.loss(w, nil, f.Scale(w, nil))
			plain += f.loss(w, nil, f.absMaxScale(maxAbs(w)))
			for _, v := range w {
				power += float64(v) * float64(v)
			}
		}
		t.Logf("%s: relative squared error %.3g, with the largest magnitude %.3g (%.3f)", f, got/power, plain/power, got/plain)
		if got > most*plain {
			t.Errorf("%s: squared error %.3f of that with the largest magnitude, expected at most %v", f, got/plain, most)
		}
	}
}

func TestQuantizeUnusualWeights(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, f := range []Format{Int8, Int4} {
		for _, v := range []float32{0, 1e-30, 1e-9, 1e4, 3e38, inf, -inf, nan} {
			w := repeat([]float32{v, -v / 2, 0}, 100)
			m := Quantize(nil, f, w, 1, 100)
			checkQuantized(t, m, w)
			back := make([]float32, 100)
			m.Row(back, 0)
			switch {
			case v-v != 0:
				if back[0] == back[0] {
					t.Errorf("%s: %v became %v", f, v, back[0])
				}
			case v <= 1e3:
				if d := math.Abs(float64(back[0] - v)); d > float64(v)/12+1e-9 {
					t.Errorf("%s: %v became %v", f, v, back[0])
				}
			default: // beyond the largest scale: the largest value there is
				if back[0] < 255*7 || back[0] > v {
					t.Errorf("%s: %v became %v", f, v, back[0])
				}
			}
		}
	}
}

// loss is the squared error of weights w of importance h with the scale s.
func (f Format) loss(w, h []float32, s float32) float64 {
	return newGroup(genericKernel(), f, w, h).loss(s)
}

func TestSearchTwinsGiveTheSameBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]Format{Int8, Int4}).Draw(t, "format")
		w := rapid.SliceOfN(rapid.Float32(), 1, f.Group()).Draw(t, "w")
		h := rapid.SliceOfN(rapid.Float32Min(0), len(w), len(w)).Draw(t, "h")
		inv := rapid.Float32().Draw(t, "inv")
		want := newGroup(genericKernel(), f, w, h)
		wc, cc := want.project(inv)
		loss, scale := want.loss(inv), want.scale()
		for _, k := range kernels() {
			g := newGroup(k, f, w, h)
			gotWC, gotCC := g.project(inv)
			for i, pair := range [][2]float64{{gotWC, wc}, {gotCC, cc}, {g.loss(inv), loss}, {float64(g.scale()), float64(scale)}} {
				if pair[0] != pair[1] && (pair[0] == pair[0] || pair[1] == pair[1]) {
					t.Fatalf("%s: result %d is %v, expected %v", k.level, i, pair[0], pair[1])
				}
			}
		}
	})
}
