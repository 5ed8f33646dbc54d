//go:build !amd64 || noasm

package vec

// levels returns what this machine can run, best first.
func levels() []level { return []level{generic} }

func (level) add(y, a, b []float32)           { addGeneric(y, a, b) }
func (level) mul(y, a, b []float32)           { mulGeneric(y, a, b) }
func (level) scale(y, x []float32, s float32) { scaleGeneric(y, x, s) }
func (level) exp(y, x []float32)              { expGeneric(y, x) }
func (level) norm(y, x, gain, bias []float32, mean, rstd float32) {
	normGeneric(y, x, gain, bias, mean, rstd)
}
func (level) normGrad(dx, dy, x, gain []float32, mean, rstd, a, b float32) {
	normGradGeneric(dx, dy, x, gain, mean, rstd, a, b)
}
func (level) normGradAdd(dx, base, dy, x, gain []float32, mean, rstd, a, b float32) {
	normGradAddGeneric(dx, base, dy, x, gain, mean, rstd, a, b)
}
func (level) addNormProduct(acc, dy, x []float32, mean, rstd float32) {
	addNormProductGeneric(acc, dy, x, mean, rstd)
}
func (level) softmaxGrad(ds, p, dp []float32, mean float32)   { softmaxGradGeneric(ds, p, dp, mean) }
func (level) geluTanh(y, x []float32)                         { geluTanhGeneric(y, x) }
func (level) geluTanhGrad(dx, dy, x []float32)                { geluTanhGradGeneric(dx, dy, x) }
func (level) geluErf(y, x []float32)                          { geluErfGeneric(y, x) }
func (level) geluErfGrad(dx, dy, x []float32)                 { geluErfGradGeneric(dx, dy, x) }
func (level) relu(y, x []float32)                             { reluGeneric(y, x) }
func (level) reluGrad(dx, dy, x []float32)                    { reluGradGeneric(dx, dy, x) }
func (level) adamW(param, m, v, grad []float32, h *AdamWStep) { adamWGeneric(param, m, v, grad, h) }
func (level) max(x []float32) float32                         { return maxGeneric(x) }
func (level) expSum(x []float32, shift float32) float32       { return expSumGeneric(x, shift) }
func (level) dot(a, b []float32) float32                      { return dotGeneric(a, b) }
func (level) sum(x []float32) float64                         { return sumGeneric(x) }
func (level) sumSquares(x []float32, c float32) float64       { return sumSquaresGeneric(x, c) }
func (level) sumSquares64(x []float32) float64                { return sumSquares64Generic(x) }
func (level) normGradSums(dy, x, gain []float32, mean, rstd float32) (sum, dot float64) {
	return normGradSumsGeneric(dy, x, gain, mean, rstd)
}
