package calibrate

import (
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
)

// Inputs says how the inputs of a linear layer are distributed.
type Inputs struct {
	In         int
	Rows       int       // that were seen
	Mean       []float32 // [In]; what Covariance is around
	Covariance []float32 // [In, In]
}

// Observe returns the distribution of x [n, in], n at least 1, around its mean, or around 0 for a layer whose bias cannot be
// changed. It overwrites x.
func Observe(p *par.Pool, x []float32, n, in int, centred bool) *Inputs {
	s := &Inputs{In: in, Rows: n, Mean: make([]float32, in), Covariance: make([]float32, in*in)}
	if centred {
		s.centre(p, x)
	}
	// The upper triangle, by strips of rows; the lower one has the same bits.
	const rows = 512
	for lo := 0; lo < in; lo += rows {
		part := func(cols int) gemm.Mat { return gemm.Mat{Data: x[lo:], Rows: n, Cols: cols, Stride: in} }
		hi := min(in, lo+rows)
		gemm.Mul(p, gemm.Mat{Data: s.Covariance[lo*in+lo:], Rows: hi - lo, Cols: in - lo, Stride: in}, 1/float32(n),
			part(hi-lo).Transposed(), part(in-lo), gemm.Options{})
	}
	p.Run(in, func(i int) {
		for j := range i {
			s.Covariance[i*in+j] = s.Covariance[j*in+i]
		}
	})
	return s
}

// centre finds the mean of the rows of x and subtracts it from them.
func (s *Inputs) centre(p *par.Pool, x []float32) {
	n, in := s.Rows, s.In
	const columns = 64
	p.Run((in+columns-1)/columns, func(i int) {
		lo, hi := i*columns, min(in, (i+1)*columns)
		var sum [columns]float64
		for r := range n {
			for c, v := range x[r*in+lo : r*in+hi] {
				sum[c] += float64(v)
			}
		}
		for c := range hi - lo {
			s.Mean[lo+c] = float32(sum[c] / float64(n))
		}
	})
	p.Run(n, func(r int) {
		row := x[r*in : (r+1)*in]
		for c, m := range s.Mean {
			row[c] -= m
		}
	})
}
