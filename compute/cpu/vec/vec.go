package vec

// Lanes is the number of partial sums of a reduction.
const Lanes = 16

// block is the number of elements summed in float32 before float64 takes over.
const block = 1024

// Add sets y = a + b.
func Add(y, a, b []float32) { best.add(y, a, b) }

// Scale sets y = s·x.
func Scale(y, x []float32, s float32) { best.scale(y, x, s) }

// Max returns the largest element, NaN being smaller than all others; −Inf for an empty slice.
func Max(x []float32) float32 { return best.max(x) }

// Exp sets y = e^x within 2 ulp. Results below the smallest normal number are 0; above x = 88.722 they are +Inf.
func Exp(y, x []float32) { best.exp(y, x) }

// ExpSum replaces each x by e^(x−shift) (as Exp) and returns their sum.
func ExpSum(x []float32, shift float32) float32 { return best.expSum(x, shift) }

// Dot returns Σ a·b.
func Dot(a, b []float32) float32 { return best.dot(a, b) }

// Sum returns Σ x.
func Sum(x []float32) float64 { return best.sum(x) }

// SumSquares returns Σ (x−c)², differences and squares in float32.
func SumSquares(x []float32, c float32) float64 { return best.sumSquares(x, c) }

// SumSquares64 returns Σ x² with squares and sums in float64, so that no square overflows or vanishes.
func SumSquares64(x []float32) float64 { return best.sumSquares64(x) }

// Norm sets y = (x − mean)·rstd·gain + bias.
func Norm(y, x, gain, bias []float32, mean, rstd float32) { best.norm(y, x, gain, bias, mean, rstd) }

// NormGradSums returns Σ g and Σ g·x̂ with g = dy·gain and x̂ = (x − mean)·rstd.
func NormGradSums(dy, x, gain []float32, mean, rstd float32) (sum, dot float64) {
	return best.normGradSums(dy, x, gain, mean, rstd)
}

// NormGrad sets dx = rstd·(g − a − x̂·b) with g = dy·gain and x̂ = (x − mean)·rstd.
func NormGrad(dx, dy, x, gain []float32, mean, rstd, a, b float32) {
	best.normGrad(dx, dy, x, gain, mean, rstd, a, b)
}

// NormGradAdd sets dx = base + what NormGrad sets.
func NormGradAdd(dx, base, dy, x, gain []float32, mean, rstd, a, b float32) {
	best.normGradAdd(dx, base, dy, x, gain, mean, rstd, a, b)
}

// AddNormProduct adds dy·(x − mean)·rstd to acc.
func AddNormProduct(acc, dy, x []float32, mean, rstd float32) {
	best.addNormProduct(acc, dy, x, mean, rstd)
}

// SoftmaxGrad sets ds = p·(dp − mean).
func SoftmaxGrad(ds, p, dp []float32, mean float32) { best.softmaxGrad(ds, p, dp, mean) }

// Mul sets y = a·b.
func Mul(y, a, b []float32) { best.mul(y, a, b) }

// GELUTanh sets y = 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), within 1e-6·|x| and within 2e-6 relative for x > −4.
func GELUTanh(y, x []float32) { best.geluTanh(y, x) }

// GELUTanhGrad sets dx to dy times the derivative of GELUTanh at x, which is within 3e-6.
func GELUTanhGrad(dx, dy, x []float32) { best.geluTanhGrad(dx, dy, x) }

// GELUErf sets y = x·Φ(x), Φ being the normal distribution function, within 1e-6·|x|.
func GELUErf(y, x []float32) { best.geluErf(y, x) }

// GELUErfGrad sets dx to dy times the derivative of GELUErf at x, which is within 1e-6.
func GELUErfGrad(dx, dy, x []float32) { best.geluErfGrad(dx, dy, x) }

// ReLU sets y = max(x, 0).
func ReLU(y, x []float32) { best.relu(y, x) }

// ReLUGrad sets dx = dy where x > 0, else 0.
func ReLUGrad(dx, dy, x []float32) { best.reluGrad(dx, dy, x) }

// AdamWStep holds AdamW's numbers; the names are those of compute.AdamW's hyper operand.
type AdamWStep struct {
	LearningRate, Beta1, Beta2, Epsilon, Decay float32
	Correction1, Correction2                   float32 // 1 − β1^t, 1 − β2^t
	Multiplier                                 float32 // of the gradient
}

// AdamW updates param and its moments m and v by one step with the gradient grad.
func AdamW(param, m, v, grad []float32, h *AdamWStep) { best.adamW(param, m, v, grad, h) }
