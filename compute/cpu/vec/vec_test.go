package vec

import (
	"fmt"
	"math"
	"testing"

	"autodev/internal/rng"
)

// sweep returns every so-manieth float32 of both signs up to limit, and the special ones.
func sweep(limit float32) []float32 {
	var x []float32
	for b := uint32(0); math.Float32frombits(b) <= limit; b += 9973 {
		x = append(x, math.Float32frombits(b), -math.Float32frombits(b))
	}
	return append(x, 0, limit, -limit)
}

// ulp returns the distance of neighbouring float32 numbers at x.
func ulp(x float64) float64 {
	return math.Max(math.Ldexp(1, math.Ilogb(x)-23), math.SmallestNonzeroFloat32)
}

func TestExpWithinTwoULP(t *testing.T) {
	x := sweep(87.336)
	y := make([]float32, len(x))
	Exp(y, x)
	worst := 0.0
	for i := range x {
		want := math.Exp(float64(x[i]))
		worst = max(worst, math.Abs(float64(y[i])-want)/ulp(want))
	}
	t.Logf("worst error of Exp: %.2f ulp over %d numbers", worst, len(x))
	if !(worst <= 2) {
		t.Errorf("Exp is off by %v ulp", worst)
	}
	special := []float32{-88, float32(math.Inf(-1)), 88.73, float32(math.Inf(1)), float32(math.NaN()), 0, 88.7}
	Exp(special, special)
	inf := float32(math.Inf(1))
	for i, want := range []float32{0, 0, inf, inf} {
		if special[i] != want {
			t.Errorf("special value %d: %v, expected %v", i, special[i], want)
		}
	}
	if special[4] == special[4] || special[5] != 1 || special[6] > math.MaxFloat32 || special[6] < 3e38 {
		t.Errorf("NaN, 0, 88.7: %v", special[4:])
	}
}

func TestActivationFunctions(t *testing.T) {
	tanh := func(x float64) (value, slope float64) {
		c := math.Sqrt(2 / math.Pi)
		e := math.Exp(-2 * c * (x + 0.044715*x*x*x))
		s := 1 / (1 + e)
		return x * s, s + x*s*s*e*2*c*(1+3*0.044715*x*x)
	}
	erf := func(x float64) (value, slope float64) {
		cdf := 0.5 * math.Erfc(-x/math.Sqrt2)
		return x * cdf, cdf + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	}
	for _, c := range []struct {
		name   string
		f      func(y, x []float32)
		grad   func(dx, dy, x []float32)
		want   func(float64) (value, slope float64)
		around float64 // relative accuracy is promised above this x
		slope  float64 // promised accuracy of the derivative
	}{{"GELUTanh", GELUTanh, GELUTanhGrad, tanh, -4, 3e-6}, {"GELUErf", GELUErf, GELUErfGrad, erf, math.Inf(1), 1e-6}} {
		x := sweep(9)
		y, dx, ones := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
		for i := range ones {
			ones[i] = 1
		}
		c.f(y, x)
		c.grad(dx, ones, x)
		var byX, relative, slopeError float64
		for i := range x {
			value, slope := c.want(float64(x[i]))
			e := math.Abs(float64(y[i]) - value)
			if math.Abs(float64(x[i])) > 1e-30 { // below, products become subnormal
				byX = max(byX, e/math.Abs(float64(x[i])))
				if float64(x[i]) > c.around {
					relative = max(relative, e/math.Abs(value))
				}
			}
			slopeError = max(slopeError, math.Abs(float64(dx[i])-slope))
		}
		t.Logf("%s: error/|x| %.1e, relative %.1e, derivative %.1e", c.name, byX, relative, slopeError)
		if !(byX <= 1e-6 && relative <= 2e-6 && slopeError <= c.slope) {
			t.Errorf("%s: error/|x| %v, relative %v, derivative %v", c.name, byX, relative, slopeError)
		}
		far := []float32{1e30, 100, -100, -1e20, float32(math.NaN())}
		slopes := make([]float32, len(far))
		c.grad(slopes, ones[:len(far)], far)
		c.f(far, far)
		if far[0] != 1e30 || far[1] != 100 || math.Abs(float64(far[2])) > 1e-20 || math.Abs(float64(far[3])) > 1e-2 || far[4] == far[4] {
			t.Errorf("%s of large numbers: %v", c.name, far)
		}
		if slopes[0] != 1 || slopes[1] != 1 || math.Abs(float64(slopes[2])) > 1e-20 || math.Abs(float64(slopes[3])) > 1e-20 || slopes[4] == slopes[4] {
			t.Errorf("%s' of large numbers: %v", c.name, slopes)
		}
	}
	y, x := make([]float32, 4), []float32{-1, 0, 3, float32(math.NaN())}
	ReLU(y, x)
	if y[0] != 0 || y[1] != 0 || y[2] != 3 || y[3] == y[3] {
		t.Errorf("ReLU: %v", y)
	}
	ReLUGrad(y, []float32{5, 6, 7, 8}, x)
	if y[0] != 0 || y[1] != 0 || y[2] != 7 {
		t.Errorf("ReLU's gradient: %v", y)
	}
}

var lengths = []int{0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 100, 1023, 1024, 1025, 3000}

func gaussian(seed uint64, n int) []float32 {
	r := rng.New(seed, "vec")
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func TestSumsAgainstFloat64(t *testing.T) {
	for _, n := range lengths {
		a, b, g := gaussian(1, n), gaussian(2, n), gaussian(3, n)
		var sum, squares, centred, dot, gsum, gdot, abs float64
		largest := math.Inf(-1)
		const mean, rstd = 0.25, 1.5
		for i := range a {
			x, y := float64(a[i]), float64(b[i])
			sum, squares, dot = sum+x, squares+x*x, dot+x*y
			centred += (x - mean) * (x - mean)
			gsum += x * float64(g[i])
			gdot += x * float64(g[i]) * (y - mean) * rstd
			abs += math.Abs(x) + x*x + math.Abs(x*float64(g[i])*(y-mean)*rstd)
			largest = max(largest, x)
		}
		near := func(what string, got, want float64) {
			t.Helper()
			if !(math.Abs(got-want) <= 1e-6*(abs+1)) {
				t.Errorf("%s of %d elements: %v, expected %v", what, n, got, want)
			}
		}
		near("Sum", Sum(a), sum)
		near("SumSquares", SumSquares(a, mean), centred)
		if got := SumSquares64(a); math.Abs(got-squares) > 1e-14*squares {
			t.Errorf("SumSquares64 of %d elements: %v, expected %v", n, got, squares)
		}
		near("Dot", float64(Dot(a, b)), dot)
		s, d := NormGradSums(a, b, g, mean, rstd)
		near("NormGradSums", s, gsum)
		near("NormGradSums's product", d, gdot)
		if got := float64(Max(a)); got != largest {
			t.Errorf("Max of %d elements: %v, expected %v", n, got, largest)
		}
		if n == 0 {
			continue
		}
		e, want := append([]float32(nil), a...), 0.0
		for _, x := range a {
			want += math.Exp(float64(x) - largest)
		}
		near("ExpSum", float64(ExpSum(e, float32(largest))), want)
		single := make([]float32, n)
		for i := range a {
			single[i] = a[i] - float32(largest)
		}
		Exp(single, single)
		for i := range e {
			if e[i] != single[i] {
				t.Fatalf("ExpSum left %v at %d, expected %v", e[i], i, single[i])
			}
		}
	}
	huge := []float32{1e30, 1e-30}
	if got := SumSquares64(huge); math.Abs(got/1e60-1) > 1e-6 {
		t.Errorf("SumSquares64 of large numbers: %v", got)
	}
	if got := Max([]float32{1, float32(math.NaN()), 2}); got != 2 {
		t.Errorf("Max with NaN: %v", got)
	}
}

// The lane laws: leading zeros in multiples of 16 and trailing zeros change nothing.
func TestSumsIgnoreZerosAround(t *testing.T) {
	for _, n := range lengths {
		a, b := gaussian(1, n), gaussian(2, n)
		for _, pad := range [][2]int{{0, 5}, {16, 0}, {48, 16}, {64, 1}} {
			wide := func(x []float32) []float32 {
				w := make([]float32, pad[0]+n+pad[1])
				copy(w[pad[0]:], x)
				return w
			}
			if got, want := Dot(wide(a), wide(b)), Dot(a, b); got != want {
				t.Errorf("Dot of %d elements with zeros %v: %v, expected %v", n, pad, got, want)
			}
			minus := make([]float32, pad[0]+n+pad[1])
			for i := range minus {
				minus[i] = float32(math.Inf(-1))
			}
			copy(minus[pad[0]:], a)
			if got, want := ExpSum(minus, 1), ExpSum(append([]float32(nil), a...), 1); got != want {
				t.Errorf("ExpSum of %d elements with −Inf %v: %v, expected %v", n, pad, got, want)
			}
		}
	}
}

// elementwise lists the functions that map elements to elements, as functions of up to four inputs.
var elementwise = map[string]func(y, a, b, c, d []float32){
	"Add":            func(y, a, b, _, _ []float32) { Add(y, a, b) },
	"Mul":            func(y, a, b, _, _ []float32) { Mul(y, a, b) },
	"Scale":          func(y, a, _, _, _ []float32) { Scale(y, a, 0.3) },
	"Exp":            func(y, a, _, _, _ []float32) { Exp(y, a) },
	"ExpSum":         func(y, a, _, _, _ []float32) { copy(y, a); ExpSum(y, 0.5) },
	"Norm":           func(y, a, b, c, _ []float32) { Norm(y, a, b, c, 0.1, 2) },
	"NormGradAdd":    func(y, a, b, c, _ []float32) { NormGradAdd(y, c, a, b, c, 0.1, 2, 0.3, 0.4) },
	"NormGrad":       func(y, a, b, c, _ []float32) { NormGrad(y, a, b, c, 0.1, 2, 0.3, 0.4) },
	"AddNormProduct": func(y, a, b, c, _ []float32) { copy(y, c); AddNormProduct(y, a, b, 0.1, 2) },
	"SoftmaxGrad":    func(y, a, b, _, _ []float32) { SoftmaxGrad(y, a, b, 0.2) },
	"GELUTanh":       func(y, a, _, _, _ []float32) { GELUTanh(y, a) },
	"GELUTanhGrad":   func(y, a, b, _, _ []float32) { GELUTanhGrad(y, a, b) },
	"GELUErf":        func(y, a, _, _, _ []float32) { GELUErf(y, a) },
	"GELUErfGrad":    func(y, a, b, _, _ []float32) { GELUErfGrad(y, a, b) },
	"ReLU":           func(y, a, _, _, _ []float32) { ReLU(y, a) },
	"ReLUGrad":       func(y, a, b, _, _ []float32) { ReLUGrad(y, a, b) },
	"AdamW param":    func(y, a, b, c, d []float32) { adam(a, b, c, d, y, nil, nil) },
	"AdamW m":        func(y, a, b, c, d []float32) { adam(a, b, c, d, nil, y, nil) },
	"AdamW v":        func(y, a, b, c, d []float32) { adam(a, b, c, d, nil, nil, y) },
}

func adam(param, m, v, grad, toParam, toM, toV []float32) {
	p, m := append([]float32(nil), param...), append([]float32(nil), m...)
	w := make([]float32, len(v))
	Mul(w, v, v)
	AdamW(p, m, w, grad, &AdamWStep{0.01, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 0.5})
	copy(toParam, p)
	copy(toM, m)
	copy(toV, w)
}

// An element's bits do not depend on where it stands, and nothing is written beside the slice.
func TestElementwiseFunctionsIgnorePlace(t *testing.T) {
	const n = 200
	a, b, c, d := gaussian(1, n), gaussian(2, n), gaussian(3, n), gaussian(4, n)
	for name, f := range elementwise {
		all := make([]float32, n)
		f(all, a, b, c, d)
		for _, lo := range []int{0, 1, 3, 16, 17} {
			for _, length := range lengths[1:12] {
				y := make([]float32, length+2)
				y[0], y[length+1] = 42, 42
				hi := lo + length
				f(y[1:1+length:1+length], a[lo:hi], b[lo:hi], c[lo:hi], d[lo:hi])
				if y[0] != 42 || y[length+1] != 42 {
					t.Fatalf("%s of %d elements writes beside its output", name, length)
				}
				for i := range length {
					if math.Float32bits(y[i+1]) != math.Float32bits(all[lo+i]) {
						t.Fatalf("%s: element %d is %v in a slice of %d from %d, expected %v", name, lo+i, y[i+1], length, lo, all[lo+i])
					}
				}
			}
		}
	}
}

func TestElementwiseAgainstFloat64(t *testing.T) {
	const n = 500
	a, b, c := gaussian(1, n), gaussian(2, n), gaussian(3, n)
	y := make([]float32, n)
	for name, want := range map[string]func(a, b, c float64) float64{
		"Add": func(a, b, _ float64) float64 { return a + b }, "Mul": func(a, b, _ float64) float64 { return a * b },
		"Scale":          func(a, _, _ float64) float64 { return a * 0.3 },
		"Norm":           func(a, b, c float64) float64 { return (a-0.1)*2*b + c },
		"NormGradAdd":    func(a, b, c float64) float64 { return c + 2*(a*c-0.3-(b-0.1)*2*0.4) },
		"NormGrad":       func(a, b, c float64) float64 { return 2 * (a*c - 0.3 - (b-0.1)*2*0.4) },
		"AddNormProduct": func(a, b, c float64) float64 { return c + a*(b-0.1)*2 },
		"SoftmaxGrad":    func(a, b, _ float64) float64 { return a * (b - 0.2) },
	} {
		elementwise[name](y, a, b, c, nil)
		for i := range y {
			w := want(float64(a[i]), float64(b[i]), float64(c[i]))
			if math.Abs(float64(y[i])-w) > 3e-6*(1+math.Abs(w)) {
				t.Fatalf("%s: element %d is %v, expected %v", name, i, y[i], w)
			}
		}
	}
}

func TestAdamWAgainstFloat64(t *testing.T) {
	const n = 300
	param, m, v, grad := gaussian(1, n), gaussian(2, n), gaussian(3, n), gaussian(4, n)
	Mul(v, v, v)
	h := AdamWStep{LearningRate: 1e-2, Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-6, Decay: 0.1, Correction1: 0.19, Correction2: 0.0975, Multiplier: 0.5}
	p2, m2, v2 := append([]float32(nil), param...), append([]float32(nil), m...), append([]float32(nil), v...)
	AdamW(p2, m2, v2, grad, &h)
	for i := range param {
		g := 0.5 * float64(grad[i])
		wm, wv := 0.9*float64(m[i])+0.1*g, 0.95*float64(v[i])+0.05*g*g
		wp := float64(param[i])*(1-1e-3) - 1e-2*(wm/0.19)/(math.Sqrt(wv/0.0975)+1e-6)
		for _, x := range [][2]float64{{float64(m2[i]), wm}, {float64(v2[i]), wv}, {float64(p2[i]), wp}} {
			if math.Abs(x[0]-x[1]) > 1e-6*(1+math.Abs(x[1])) {
				t.Fatalf("element %d: %v, expected %v", i, x[0], x[1])
			}
		}
	}
}

func BenchmarkVec(b *testing.B) {
	const n = 4096
	a, x, c, d, y := gaussian(1, n), gaussian(2, n), gaussian(3, n), gaussian(4, n), make([]float32, n)
	report := func(name string, f func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
	}
	for _, name := range []string{"Add", "Exp", "GELUTanh", "GELUTanhGrad", "GELUErf", "GELUErfGrad", "Norm", "NormGrad", "AddNormProduct", "SoftmaxGrad"} {
		report(name, func() { elementwise[name](y, a, x, c, d) })
	}
	sink := 0.0
	report("Max", func() { sink += float64(Max(a)) })
	report("Dot", func() { sink += float64(Dot(a, x)) })
	report("Sum", func() { sink += Sum(a) })
	report("SumSquares", func() { sink += SumSquares(a, 0) })
	report("SumSquares64", func() { sink += SumSquares64(a) })
	report("ExpSum", func() { copy(y, a); sink += float64(ExpSum(y, 1)) })
	report("AdamW", func() { AdamW(c, d, y, a, &AdamWStep{1e-5, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 0.5}) })
	if math.IsNaN(sink) {
		fmt.Println(sink)
	}
}
