package calibrate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
)

// TestFactor: Uᵀ·U is the damped covariance in the order asked for, over several panels, with inputs of which one is a thousand times
// the others, and of few rows, where damping alone makes it definite; and the number of threads changes nothing.
func TestFactor(t *testing.T) {
	const in, damping = 2*panelRows + 37, 0.01
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{5, 900} {
		rows := correlated(r, n, in)
		for i := 100; i < len(rows); i += in {
			rows[i] *= 1000
		}
		x := Observe(nil, rows, n, in, true)
		order := r.Perm(in)
		u, err := factor(nil, x, order, damping)
		if err != nil {
			t.Fatalf("%d rows: %v", n, err)
		}
		var trace float64
		for i := range in {
			trace += float64(x.Covariance[i*in+i])
		}
		for i, a := range order {
			for j, b := range order {
				if j < i {
					if u[i*in+j] != 0 {
						t.Fatalf("%d rows: U[%d, %d] = %v below the diagonal", n, i, j, u[i*in+j])
					}
					continue
				}
				var got float64
				for k := range i + 1 {
					got += float64(u[k*in+i]) * float64(u[k*in+j])
				}
				want := float64(x.Covariance[a*in+b])
				if i == j {
					want += damping * trace / in
				}
				// Far below what damping adds, for columns of usual size.
				most := 1e-6 * math.Sqrt(float64(x.Covariance[a*in+a])*float64(x.Covariance[b*in+b]))
				if d := math.Abs(got - want); d > most+1e-5*damping*trace {
					t.Fatalf("%d rows: (Uᵀ·U)[%d, %d] = %v, expected %v", n, i, j, got, want)
				}
			}
		}
		p := par.New(3)
		again, err := factor(p, x, order, damping)
		p.Close()
		if err != nil || !slices.Equal(u, again) {
			t.Errorf("%d rows, 3 threads: other bits (%v)", n, err)
		}
	}
}

// TestObserve: the covariance is what it is by definition, over several strips, and symmetric to the bit.
func TestObserve(t *testing.T) {
	const n, in = 40, 700
	r := rand.New(rand.NewPCG(5, 6))
	x := correlated(r, n, in)
	s := Observe(nil, slices.Clone(x), n, in, true)
	for i := 0; i < in; i += 3 {
		for j := range in {
			if a, b := s.Covariance[i*in+j], s.Covariance[j*in+i]; a != b {
				t.Fatalf("covariance of %d and %d: %v and %v", i, j, a, b)
			}
			var want, size float64
			for k := range n {
				p := float64(x[k*in+i]-s.Mean[i]) * float64(x[k*in+j]-s.Mean[j])
				want += p / n
				size += math.Abs(p) / n
			}
			if d := math.Abs(float64(s.Covariance[i*in+j]) - want); d > 1e-5*size {
				t.Fatalf("covariance of %d and %d: %v, expected %v", i, j, s.Covariance[i*in+j], want)
			}
		}
	}
}

// TestLosses: the lanes find what rounding with each scale alone leaves.
func TestLosses(t *testing.T) {
	const n = 64
	r := rand.New(rand.NewPCG(8, 9))
	u := make([]float32, n*n)
	for i := range n {
		for j := i; j < n; j++ {
			u[i*n+j] = float32(r.NormFloat64())
		}
		u[i*n+i] = 1 + float32(r.Float64())
	}
	g := &rounding{block: newBlock(quant.Int4, u, n, 0, n), w: weights(r, n), caused: weights(r, n), codes: make([]int8, n), e: make([]float32, n)}
	scales := [lanes]float32{0.25, 0.125, 0, 1}
	for l, got := range g.losses(scales) {
		g.round(scales[l])
		var want float64
		for i := range n {
			s := float64(g.caused[i])
			for j := i; j < n; j++ {
				s += float64(u[i*n+j]) * float64(g.e[j])
			}
			want += s * s
		}
		if math.Abs(got-want) > 1e-4*want {
			t.Errorf("scale %v: loss %v, expected %v", scales[l], got, want)
		}
	}
}
