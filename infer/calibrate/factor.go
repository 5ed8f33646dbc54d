package calibrate

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
)

const (
	panelRows = 128 // of U that are found together
	stripCols = 512 // of a panel that are one piece of work
)

// factor returns U [In, In], upper triangular, of Uᵀ·U = the covariance, in the given order of columns, with damping as a share of
// the mean variance added to its diagonal.
//
// It is the Cholesky factorisation by panels of rows (left-looking: Golub and Van Loan 2013, 4.2.9). What the rows above contribute
// to a panel, nearly all of the work, is a product in float32, as precise as the covariance itself; the panel is solved in float64.
func factor(p *par.Pool, x *Inputs, order []int, damping float64) ([]float32, error) {
	n := x.In
	var trace float64
	for i := range n {
		trace += float64(x.Covariance[i*n+i])
	}
	damp := damping * trace / float64(n)
	if !(damp > 0) || math.IsInf(damp, 0) {
		if damp != 0 {
			return nil, fmt.Errorf("calibrate: the mean variance of the inputs is %v, expected a finite number", trace/float64(n))
		}
		damp = 1 // constant inputs: nothing to weigh
	}
	u := make([]float32, n*n)
	above := make([]float32, panelRows*n)
	panel := make([]float64, panelRows*n)
	for lo := 0; lo < n; lo += panelRows {
		rows, cols := min(panelRows, n-lo), n-lo
		clear(above)
		if lo > 0 {
			gemm.Mul(p, gemm.Dense(above[:rows*cols], rows, cols), 1, gemm.Mat{Data: u[lo:], Rows: lo, Cols: rows, Stride: n}.Transposed(),
				gemm.Mat{Data: u[lo:], Rows: lo, Cols: cols, Stride: n}, gemm.Options{})
		}
		p.Run(rows, func(i int) {
			a := order[lo+i] * n
			for j := i; j < cols; j++ {
				panel[i*cols+j] = float64(x.Covariance[a+order[lo+j]]) - float64(above[i*cols+j])
			}
			panel[i*cols+i] += damp
		})
		d, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Upper, N: rows, Stride: cols, Data: panel})
		if !ok {
			return nil, fmt.Errorf("calibrate: the covariance of %d inputs over %d rows is not positive definite with damping %v", n, x.Rows, damping)
		}
		p.Run((cols-rows+stripCols-1)/stripCols, func(strip int) {
			first := rows + strip*stripCols
			blas64.Trsm(blas.Left, blas.Trans, 1, d, blas64.General{Rows: rows, Cols: min(stripCols, cols-first), Stride: cols, Data: panel[first:]})
		})
		p.Run(rows, func(i int) {
			for j := i; j < cols; j++ {
				u[(lo+i)*n+lo+j] = float32(panel[i*cols+j])
			}
		})
	}
	return u, nil
}
