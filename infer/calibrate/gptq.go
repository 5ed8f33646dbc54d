package calibrate

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
)

// Options of Quantize. The zero value takes the defaults.
type Options struct {
	Damping float64 // added to the covariance's diagonal, as a share of its mean: 0.01
}

// Result is a quantised weight [Out, In] in the terms of quant.FromCodes.
type Result struct {
	Codes  []int8
	Scales []float32
	// Shift [Out] is what the layer's bias must be increased by to keep the outputs' means.
	Shift []float32
}

// Quantize finds codes for w [out, x.In] so that the layer's outputs for the inputs x describes change little: GPTQ (Frantar
// et al. 2023) with the group's scales chosen by the error they cause when its turn comes, groups in the order of falling
// input variance, and the outputs' means kept by the bias, so that the covariance of inputs takes the place of their second
// moments. w is not changed. Same input, same bits.
//
// The errors e = w − code·scale of an output cause the squared error e·H·eᵀ = |U·eᵀ|², with H = Uᵀ·U the damped covariance.
// Row i of U·eᵀ holds e[i] and the errors of later columns only: columns are rounded from the last to the first, each to
// what cancels the part that the later ones caused.
func Quantize(p *par.Pool, f quant.Format, w []float32, out int, x *Inputs, o Options) (*Result, error) {
	in, group := x.In, f.Group()
	if len(w) != out*in {
		return nil, fmt.Errorf("calibrate: %d weights, expected %d outputs of %d inputs", len(w), out, in)
	}
	order := columnOrder(x, group)
	u, err := factor(x, order, cmp.Or(o.Damping, 0.01))
	if err != nil {
		return nil, err
	}
	r := &Result{Codes: make([]int8, out*in), Scales: make([]float32, out*f.Groups(in)), Shift: make([]float32, out)}
	e := make([]float32, out*in) // in the order's terms
	caused := make([]float32, out*group)
	for hi := in; hi > 0; {
		g := order[hi-1] / group
		lo := hi
		for lo > 0 && order[lo-1]/group == g {
			lo--
		}
		n := hi - lo
		clear(caused)
		if hi < in {
			// What the rounded columns contribute to these rows of U·eᵀ.
			gemm.Mul(p, gemm.Dense(caused[:out*n], out, n), 1, gemm.Mat{Data: e[hi:], Rows: out, Cols: in - hi, Stride: in},
				gemm.Mat{Data: u[lo*in+hi:], Rows: n, Cols: in - hi, Stride: in}.Transposed(), gemm.Options{})
		}
		diagonal := newBlock(f, u, in, lo, n)
		p.Run(out, func(row int) {
			s := &rounding{block: diagonal, w: make([]float32, n), caused: caused[row*n : (row+1)*n], codes: make([]int8, n), e: e[row*in+lo : row*in+hi]}
			for i, c := range order[lo:hi] {
				s.w[i] = w[row*in+c]
			}
			r.Scales[row*f.Groups(in)+g] = s.best()
			for i, c := range order[lo:hi] {
				r.Codes[row*in+c] = s.codes[i]
			}
		})
		hi = lo
	}
	p.Run(out, func(row int) {
		var sum float64
		for i, c := range order {
			sum += float64(x.Mean[c]) * float64(e[row*in+i])
		}
		r.Shift[row] = float32(sum)
	})
	return r, nil
}

// columnOrder returns the columns in the order of U: whole groups, those whose inputs vary most last, so that they are rounded
// first and others make up for them; likewise within a group.
func columnOrder(x *Inputs, group int) []int {
	variance := func(c int) float32 { return x.Covariance[c*x.In+c] }
	groups := make([][]int, (x.In+group-1)/group)
	total := make([]float32, len(groups))
	for c := range x.In {
		groups[c/group] = append(groups[c/group], c)
		total[c/group] += variance(c)
	}
	by := func(v func(int) float32) func(a, b int) int {
		return func(a, b int) int { return cmp.Or(cmp.Compare(v(a), v(b)), cmp.Compare(b, a)) }
	}
	index := make([]int, len(groups))
	for i := range index {
		index[i] = i
	}
	slices.SortFunc(index, by(func(i int) float32 { return total[i] }))
	var order []int
	for _, g := range index {
		slices.SortFunc(groups[g], by(variance))
		order = append(order, groups[g]...)
	}
	return order
}

// factor returns U, upper triangular, of Uᵀ·U = the covariance, in the given order of columns, with damping.
func factor(x *Inputs, order []int, damping float64) ([]float32, error) {
	n := x.In
	h := make([]float64, n*n)
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
	for i, a := range order {
		for j := i; j < n; j++ {
			h[i*n+j] = float64(x.Covariance[a*n+order[j]])
		}
		h[i*n+i] += damp
	}
	if _, ok := lapack64.Potrf(blas64.Symmetric{Uplo: blas.Upper, N: n, Stride: n, Data: h}); !ok {
		return nil, fmt.Errorf("calibrate: the covariance of %d inputs over %d rows is not positive definite with damping %v", n, x.Rows, damping)
	}
	u := make([]float32, n*n)
	for i := range n {
		for j := i; j < n; j++ {
			u[i*n+j] = float32(h[i*n+j])
		}
	}
	return u, nil
}

// block is the part of U on the diagonal that belongs to a group of n columns.
type block struct {
	f       quant.Format
	n       int
	u       []float32 // [n, n]
	inverse []float32 // of its diagonal
	weight  []float32 // what a rounding error of a column costs
}

func newBlock(f quant.Format, u []float32, in, lo, n int) *block {
	b := &block{f: f, n: n, u: make([]float32, n*n), inverse: make([]float32, n), weight: make([]float32, n)}
	for i := range n {
		copy(b.u[i*n:(i+1)*n], u[(lo+i)*in+lo:])
		d := b.u[i*n+i]
		b.inverse[i], b.weight[i] = 1/d, d*d
	}
	return b
}

// rounding is a group of one output.
type rounding struct {
	*block
	w      []float32 // weights
	caused []float32 // rows of U·eᵀ without the group's own columns
	codes  []int8
	e      []float32
}

// scaleFactors are what the first guess of a scale is tried at.
var scaleFactors = [...]float32{1, 0.8, 0.84, 0.88, 0.92, 0.95, 0.975, 1.025, 1.05, 1.08, 1.12}

// best rounds the group with the scale that leaves the least error, and returns the scale.
func (r *rounding) best() float32 {
	// Where the weights would best move to if they did not have to be rounded.
	moved := make([]float32, r.n)
	for i := r.n - 1; i >= 0; i-- {
		s := r.caused[i]
		for j := i + 1; j < r.n; j++ {
			s += r.u[i*r.n+j] * moved[j]
		}
		moved[i] = -s * r.inverse[i]
	}
	target := make([]float32, r.n)
	for i, w := range r.w {
		target[i] = w - moved[i]
	}
	guess := r.f.Scale(target, r.weight)
	var scale float32
	least := math.Inf(1)
	for _, k := range scaleFactors {
		s := quant.RoundScale(k * guess)
		if s == scale {
			continue
		}
		if loss := r.round(s); loss < least {
			least, scale = loss, s
		}
	}
	r.round(scale)
	return scale
}

// round fills codes and e for a scale and returns the squared error of the group's rows of U·eᵀ.
func (r *rounding) round(scale float32) float64 {
	lo, hi := r.f.Range()
	inverse := float32(0)
	if scale != 0 {
		inverse = 1 / scale
	}
	var loss float64
	for i := r.n - 1; i >= 0; i-- {
		s := r.caused[i]
		row := r.u[i*r.n : (i+1)*r.n]
		for j := i + 1; j < r.n; j++ {
			s += row[j] * r.e[j]
		}
		c := math.RoundToEven(float64((r.w[i] + s*r.inverse[i]) * inverse))
		c = max(float64(lo), min(float64(hi), c))
		if c != c {
			c = 0
		}
		r.codes[i] = int8(c)
		r.e[i] = r.w[i] - float32(c)*scale
		d := float64(s + row[i]*r.e[i])
		loss += d * d
	}
	return loss
}
