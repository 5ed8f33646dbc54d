package infer

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"autodev/compute/cpu/par"
	"autodev/model/dtype"
)

// TestLowRank: s·B·(A·x) is added, nearly as float64 has it, with the same bits for a row whatever rows are beside it and whatever the threads, for matrices
// that are cut in all ways.
func TestLowRank(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	numbers := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	two := par.New(2)
	defer two.Close()
	type size struct{ in, out, rank int }
	for s, want := range map[size][2]int{ // parts and slices
		{8192, 100, 16}: {2, 2},
		{2048, 33, 16}:  {2, 1},
		{9216, 40, 4}:   {8, 1},
		{4096, 40, 40}:  {1, 2},
		{4097, 7, 3}:    {1, 1},
		{6144, 7, 11}:   {2, 2},
		{30, 2000, 5}:   {6, 1},
		{7, 5, 1}:       {7, 1},
	} {
		if parts, slices := cutLowRank(s.in, s.rank); want != [2]int{parts, slices} {
			t.Errorf("%+v: %d parts of %d slices, expected %v", s, parts, slices, want)
		}
		a, b := numbers(s.rank*s.in), numbers(s.out*s.rank)
		const n = 35
		x, before := numbers(n*s.in), numbers(n*s.out)
		for _, short := range []bool{false, true} {
			f := newLowRank(two, a, b, s.in, s.out, s.rank, 0.25, short)
			all := slices.Clone(before)
			f.add(nil, all, x, n)
			var off, size float64
			round := func(v float32) float64 {
				if short {
					v = dtype.FromBF16(dtype.ToBF16(v))
				}
				return float64(v)
			}
			for i := range n {
				u := make([]float64, s.rank)
				for k := range u {
					for j, v := range x[i*s.in:][:s.in] {
						u[k] += round(v) * round(a[k*s.in+j])
					}
				}
				for o := range s.out {
					add := 0.0
					for k, v := range u {
						add += 0.25 * round(float32(v)) * round(b[o*s.rank+k])
					}
					got := float64(all[i*s.out+o]) - float64(before[i*s.out+o])
					off, size = off+math.Pow(got-add, 2), size+add*add
				}
			}
			// In bfloat16 the sums of A·x are rounded, some to another neighbour than here.
			if e := math.Sqrt(off / size); !(e < map[bool]float64{false: 2e-6, true: 1e-3}[short]) {
				t.Errorf("%+v, bf16 %v: %.2g away", s, short, e)
			}
			for _, pool := range []*par.Pool{nil, two} {
				for first := 0; first < n; {
					m := min(n-first, 1+r.IntN(4)*r.IntN(6))
					y := slices.Clone(before[first*s.out:][:m*s.out])
					f.add(pool, y, x[first*s.in:], m)
					if !sameBits(y, all[first*s.out:][:m*s.out]) {
						t.Errorf("%+v, bf16 %v: %d rows from %d on have other bits", s, short, m, first)
					}
					first += m
				}
			}
		}
	}
}
