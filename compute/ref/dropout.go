package ref

import "autodev/compute"

// kept returns the factor that dropout gives element i: 0 with probability drop, else 1/(1 − drop).
func kept(key [2]int32, salt uint32, drop float64, i uint64) float64 {
	if drop > 0 && compute.DropWords(key, salt, i/4)[i%4] < compute.DropThreshold(drop) {
		return 0
	}
	return 1 / (1 - drop)
}

// Dropout sets each element of y to x's times 1/(1 − drop), or to 0 with probability drop (Srivastava et al. 2014), as a
// function of key, salt and the element's index.
func Dropout[T Float](y, x []T, key [2]int32, salt uint32, drop float64) {
	for i := range x {
		if f := kept(key, salt, drop, uint64(i)); f == 0 {
			y[i] = 0
		} else {
			y[i] = T(float64(x[i]) * f)
		}
	}
}
