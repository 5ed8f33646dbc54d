package ref

import (
	"math"

	"autodev/compute"
)

// Activation sets y to act(x).
func Activation[T Float](y, x []T, act compute.Act) {
	for i := range x {
		value, _ := activate(float64(x[i]), act)
		y[i] = T(value)
	}
}

// ActivationGrad sets dx to dy·act′(x).
func ActivationGrad[T Float](dx, dy, x []T, act compute.Act) {
	for i := range x {
		_, slope := activate(float64(x[i]), act)
		dx[i] = T(float64(dy[i]) * slope)
	}
}

// activate returns the activation function and its derivative at x. The derivative of ReLU at 0 is 0.
func activate(x float64, act compute.Act) (value, slope float64) {
	switch act {
	case compute.GELUTanh:
		c := math.Sqrt(2 / math.Pi)
		t := math.Tanh(c * (x + 0.044715*x*x*x))
		return 0.5 * x * (1 + t), 0.5*(1+t) + 0.5*x*(1-t*t)*c*(1+3*0.044715*x*x)
	case compute.GELUErf:
		cdf := 0.5 * math.Erfc(-x/math.Sqrt2)
		return x * cdf, cdf + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	default:
		if x > 0 {
			slope = 1
		}
		return math.Max(x, 0), slope
	}
}

// Add sets y to a + b.
func Add[T Float](y, a, b []T) {
	for i := range a {
		y[i] = a[i] + b[i]
	}
}
