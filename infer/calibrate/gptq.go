package calibrate

import (
	"cmp"
	"fmt"
	"math"
	"slices"

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
	u, err := factor(p, x, order, cmp.Or(o.Damping, 0.01))
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
	for lo := 0; lo < len(scaleFactors); lo += lanes {
		var scales [lanes]float32
		for l := range scales {
			scales[l] = quant.RoundScale(scaleFactors[min(lo+l, len(scaleFactors)-1)] * guess)
		}
		for l, loss := range r.losses(scales) {
			if loss < least {
				least, scale = loss, scales[l]
			}
		}
	}
	r.round(scale)
	return scale
}

// lanes is how many scales are tried at a time: every sum is a chain of additions, of which a processor has several under way.
const lanes = 4

// losses returns the squared errors of the group's rows of U·eᵀ that round would leave with each of the scales.
func (r *rounding) losses(scales [lanes]float32) (loss [lanes]float64) {
	e := make([][lanes]float32, r.n)
	var code, inverse [lanes]float32
	for l, s := range scales {
		inverse[l] = reciprocal(s)
	}
	for i := r.n - 1; i >= 0; i-- {
		s0, s1, s2, s3 := r.caused[i], r.caused[i], r.caused[i], r.caused[i]
		row := r.u[i*r.n : (i+1)*r.n]
		later := e[i+1:]
		for j, u := range row[i+1:][:len(later)] {
			v := &later[j]
			s0 += u * v[0]
			s1 += u * v[1]
			s2 += u * v[2]
			s3 += u * v[3]
		}
		for l, s := range [lanes]float32{s0, s1, s2, s3} {
			code[l] = r.code(i, s, inverse[l])
			e[i][l] = r.w[i] - code[l]*scales[l]
			d := float64(s + row[i]*e[i][l])
			loss[l] += d * d
		}
	}
	return loss
}

// round fills codes and e for a scale.
func (r *rounding) round(scale float32) {
	inverse := reciprocal(scale)
	for i := r.n - 1; i >= 0; i-- {
		s := r.caused[i]
		row := r.u[i*r.n : (i+1)*r.n]
		for j := i + 1; j < r.n; j++ {
			s += row[j] * r.e[j]
		}
		c := r.code(i, s, inverse)
		r.codes[i] = int8(c)
		r.e[i] = r.w[i] - c*scale
	}
}

// code returns the code of column i that best cancels s, what the columns after it caused in row i of U·eᵀ.
func (r *rounding) code(i int, s, inverse float32) float32 {
	lo, hi := r.f.Range()
	c := math.RoundToEven(float64((r.w[i] + s*r.inverse[i]) * inverse))
	c = max(float64(lo), min(float64(hi), c))
	if c != c {
		return 0
	}
	return float32(c)
}

// reciprocal returns 1/scale, and 0 for 0.
func reciprocal(scale float32) float32 {
	if scale == 0 {
		return 0
	}
	return 1 / scale
}
