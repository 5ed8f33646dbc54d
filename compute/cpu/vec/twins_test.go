package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// results calls every function of the level with slices cut from one run of numbers and returns all it produces.
func results(l level, data []float32, n int) map[string][]float64 {
	cut := func(i int) []float32 { return append([]float32(nil), data[i*n:(i+1)*n]...) }
	out := map[string][]float64{}
	run := func(name string, f func(y, a, b, c []float32)) {
		y := cut(3)
		f(y, cut(0), cut(1), cut(2))
		out[name] = wide(y)
	}
	s, t := data[4*n], data[4*n+1]
	run("add", func(y, a, b, _ []float32) { l.add(y, a, b) })
	run("mul", func(y, a, b, _ []float32) { l.mul(y, a, b) })
	run("scale", func(y, a, _, _ []float32) { l.scale(y, a, s) })
	run("exp", func(y, a, _, _ []float32) { l.exp(y, a) })
	run("norm", func(y, a, b, c []float32) { l.norm(y, a, b, c, s, t) })
	run("normGrad", func(y, a, b, c []float32) { l.normGrad(y, a, b, c, s, t, 0.5, t) })
	run("normGradAdd", func(y, a, b, c []float32) { l.normGradAdd(y, c, a, b, c, s, t, 0.5, t) })
	run("addNormProduct", func(y, a, b, _ []float32) { l.addNormProduct(y, a, b, s, t) })
	run("softmaxGrad", func(y, a, b, _ []float32) { l.softmaxGrad(y, a, b, s) })
	run("geluTanh", func(y, a, _, _ []float32) { l.geluTanh(y, a) })
	run("geluTanhGrad", func(y, a, b, _ []float32) { l.geluTanhGrad(y, a, b) })
	run("geluErf", func(y, a, _, _ []float32) { l.geluErf(y, a) })
	run("geluErfGrad", func(y, a, b, _ []float32) { l.geluErfGrad(y, a, b) })
	run("relu", func(y, a, _, _ []float32) { l.relu(y, a) })
	run("reluGrad", func(y, a, b, _ []float32) { l.reluGrad(y, a, b) })
	run("in place add", func(y, _, b, _ []float32) { l.add(y, y, b) })
	run("in place geluTanhGrad", func(y, a, _, _ []float32) { l.geluTanhGrad(y, y, a) })
	for i, name := range []string{"adamW param", "adamW m", "adamW v"} {
		run(name, func(y, a, b, c []float32) {
			state := [][]float32{a, b, c}
			for j, v := range c {
				c[j] = v * v
			}
			l.adamW(a, b, c, append([]float32(nil), y...), &AdamWStep{0.01, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, s})
			copy(y, state[i])
		})
	}
	a, b, c := cut(0), cut(1), cut(2)
	// Adding zero: the sign of a maximum of zeros is not defined.
	out["max"] = []float64{float64(l.max(a) + 0)}
	out["dot"] = []float64{float64(l.dot(a, b))}
	out["sum"] = []float64{l.sum(a)}
	out["sumSquares"] = []float64{l.sumSquares(a, s)}
	out["sumSquares64"] = []float64{l.sumSquares64(a)}
	sum, dot := l.normGradSums(a, b, c, s, t)
	out["normGradSums"] = []float64{sum, dot}
	e := cut(0)
	total := l.expSum(e, s)
	out["expSum"] = wide(append(e, total))
	return out
}

// wide converts without loss.
func wide(x []float32) []float64 {
	w := make([]float64, len(x))
	for i, v := range x {
		w[i] = float64(v)
	}
	return w
}

func sameAsGeneric(t *testing.T, data []float32, n int) {
	t.Helper()
	want := results(generic, data, n)
	for _, l := range levels() {
		got := results(l, data, n)
		for name, w := range want {
			for i := range w {
				g := got[name][i]
				if math.Float64bits(g) != math.Float64bits(w[i]) && !(g != g && w[i] != w[i]) {
					t.Fatalf("level %d: %s of %d elements: result %d is %v, expected %v", l, name, n, i, g, w[i])
				}
			}
		}
	}
}

func TestTwinsGiveTheSameBits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := map[string]func() float32{
		"normal": func() float32 { return float32(r.NormFloat64()) },
		"large":  func() float32 { return float32(r.NormFloat64() * 60) },
		"any":    func() float32 { return math.Float32frombits(r.Uint32()) },
		"special": func() float32 {
			inf := float32(math.Inf(1))
			v := []float32{0, 1, inf, 88.722, 87.3365, 87.3366, 88.7221, 10, 10.000001, 1e-45, math.MaxFloat32, float32(math.NaN())}[r.IntN(12)]
			if r.IntN(2) == 0 {
				v = -v
			}
			return v
		},
	}
	for name, f := range draw {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 100, 1023, 1024, 1025, 2500} {
				for range 20 {
					data := make([]float32, 4*n+2)
					for i := range data {
						data[i] = f()
					}
					sameAsGeneric(t, data, n)
				}
			}
		})
	}
}

func FuzzTwins(f *testing.F) {
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		data := make([]float32, len(raw)/4)
		for i := range data {
			data[i] = math.Float32frombits(uint32(raw[4*i]) | uint32(raw[4*i+1])<<8 | uint32(raw[4*i+2])<<16 | uint32(raw[4*i+3])<<24)
		}
		if len(data) >= 2 {
			sameAsGeneric(t, data, (len(data)-2)/4)
		}
	})
}

// BenchmarkTwins times the hot functions at every level.
func BenchmarkTwins(b *testing.B) {
	const n = 4096
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]float32, 5*n)
	for i := range data {
		data[i] = float32(r.NormFloat64())
	}
	x, y, z, v, out := data[:n], data[n:2*n], data[2*n:3*n], data[3*n:4*n], data[4*n:]
	for i := range v {
		v[i] *= v[i]
	}
	for _, c := range []struct {
		name string
		f    func(l level)
	}{
		{"add", func(l level) { l.add(out, x, y) }},
		{"max", func(l level) { l.max(x) }},
		{"dot", func(l level) { l.dot(x, y) }},
		{"exp", func(l level) { l.exp(out, x) }},
		{"expSum", func(l level) { copy(out, x); l.expSum(out, 1) }},
		{"softmaxGrad", func(l level) { l.softmaxGrad(out, x, y, 0.1) }},
		{"geluTanh", func(l level) { l.geluTanh(out, x) }},
		{"geluTanhGrad", func(l level) { l.geluTanhGrad(out, x, y) }},
		{"geluErf", func(l level) { l.geluErf(out, x) }},
		{"sumSquares", func(l level) { l.sumSquares(x, 0.1) }},
		{"norm", func(l level) { l.norm(out, x, y, z, 0.1, 2) }},
		{"normGradSums", func(l level) { l.normGradSums(x, y, z, 0.1, 2) }},
		{"normGrad", func(l level) { l.normGrad(out, x, y, z, 0.1, 2, 0.1, 0.1) }},
		{"addNormProduct", func(l level) { l.addNormProduct(out, x, y, 0.1, 2) }},
		{"adamW", func(l level) { l.adamW(z, y, v, x, &AdamWStep{1e-9, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 0.5}) }},
	} {
		for _, l := range levels() {
			b.Run(fmt.Sprintf("%s/%d", c.name, l), func(b *testing.B) {
				for b.Loop() {
					c.f(l)
				}
				b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
			})
		}
	}
}
