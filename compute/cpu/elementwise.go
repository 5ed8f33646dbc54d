package cpu

import (
	"fmt"

	"autodev/compute"
	"autodev/compute/cpu/vec"
)

// Zero is compute.Zero.
func (k Kernels) Zero(x []float32) {
	k.spans(len(x), 16*span, func(lo, hi int) { clear(x[lo:hi]) })
}

// Add is compute.Add.
func (k Kernels) Add(y, a, b []float32) {
	if len(y) <= span {
		vec.Add(y, a[:len(y)], b[:len(y)]) // without the function that threads need
		return
	}
	k.spans(len(y), span, func(lo, hi int) { vec.Add(y[lo:hi], a[lo:hi], b[lo:hi]) })
}

// Activation is compute.Activation.
func (k Kernels) Activation(y, x []float32, act compute.Act) {
	f := activation(act)
	if len(y) <= span {
		f(y, x[:len(y)])
		return
	}
	k.spans(len(y), span, func(lo, hi int) { f(y[lo:hi], x[lo:hi]) })
}

func activation(act compute.Act) func(y, x []float32) {
	switch act {
	case compute.GELUTanh:
		return vec.GELUTanh
	case compute.GELUErf:
		return vec.GELUErf
	case compute.ReLU:
		return vec.ReLU
	}
	panic(fmt.Sprintf("cpu: unknown activation %v", act))
}

// ActivationGrad is compute.ActivationGrad.
func (k Kernels) ActivationGrad(dx, dy, x []float32, act compute.Act) {
	f := activationGrad(act)
	k.spans(len(dx), span, func(lo, hi int) { f(dx[lo:hi], dy[lo:hi], x[lo:hi]) })
}

func activationGrad(act compute.Act) func(dx, dy, x []float32) {
	switch act {
	case compute.GELUTanh:
		return vec.GELUTanhGrad
	case compute.GELUErf:
		return vec.GELUErfGrad
	case compute.ReLU:
		return vec.ReLUGrad
	}
	panic(fmt.Sprintf("cpu: unknown activation %v", act))
}

// Dropout is compute.Dropout.
func (k Kernels) Dropout(y, x []float32, key [2]int32, salt uint32, drop float64) {
	k.spans(len(y), span, func(lo, hi int) {
		var keep [256]float32
		for ; lo < hi; lo += len(keep) {
			m := keep[:min(len(keep), hi-lo)]
			keepMask(m, key, salt, drop, uint64(lo))
			vec.Mul(y[lo:lo+len(m)], x[lo:lo+len(m)], m)
		}
	})
}

// keepMask sets keep to the factors that dropout gives the elements first, first+1, …: 0 or 1/(1 − drop).
func keepMask(keep []float32, key [2]int32, salt uint32, drop float64, first uint64) {
	words := [2]uint32{uint32(key[0]), uint32(key[1])}
	threshold, factor := compute.DropThreshold(drop), float32(1/(1-drop))
	// The first and the last block may be needed in part.
	for len(keep) > 0 {
		skip := int(first % 4)
		if whole := len(keep) / 4 * 4; skip == 0 && whole > 0 {
			vec.KeepMask(keep[:whole], words, salt, first/4, threshold, factor)
			keep, first = keep[whole:], first+uint64(whole)
			continue
		}
		var block [4]float32
		vec.KeepMask(block[:], words, salt, first/4, threshold, factor)
		n := copy(keep, block[skip:])
		keep, first = keep[n:], first+uint64(n)
	}
}
