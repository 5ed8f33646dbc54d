package ref

import "math"

// SumSquares returns Σ x².
func SumSquares[T Float](x []T) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// Hyper are AdamW's numbers in the order of the kernel's hyper operand.
type Hyper[T Float] struct {
	LearningRate, Beta1, Beta2, Epsilon, Decay T
	Correction1, Correction2                   T // 1 − β1^t, 1 − β2^t
	Multiplier                                 T // of the gradient
}

// AdamW updates param and its moments m and v by one step (Loshchilov, Hutter 2019).
func AdamW[T Float](param, m, v, grad []T, h Hyper[T]) {
	for i := range param {
		g := float64(grad[i]) * float64(h.Multiplier)
		first := float64(h.Beta1)*float64(m[i]) + (1-float64(h.Beta1))*g
		second := float64(h.Beta2)*float64(v[i]) + (1-float64(h.Beta2))*g*g
		step := first / float64(h.Correction1) / (math.Sqrt(second/float64(h.Correction2)) + float64(h.Epsilon))
		p := float64(param[i])
		m[i], v[i] = T(first), T(second)
		param[i] = T(p - float64(h.LearningRate)*float64(h.Decay)*p - float64(h.LearningRate)*step)
	}
}
