package ref

// Linear sets y [n,out] to base + alpha·x·wᵀ + bias for x [n,in] and w [out,in]; bias [out] and base [n,out] may be nil.
func Linear[T Float](y, x, w, bias, base []T, n, in, out int, alpha float64) {
	for i := range n {
		for o := range out {
			sum := 0.0
			for k := range in {
				sum += float64(x[i*in+k]) * float64(w[o*in+k])
			}
			sum *= alpha
			if base != nil {
				sum += float64(base[i*out+o])
			}
			if bias != nil {
				sum += float64(bias[o])
			}
			y[i*out+o] = T(sum)
		}
	}
}

// LinearGradX sets dx [n,in] to base + alpha·dy·w for dy [n,out] and w [out,in]; base may be nil.
func LinearGradX[T Float](dx, dy, w, base []T, n, in, out int, alpha float64) {
	for i := range n {
		for k := range in {
			sum := 0.0
			for o := range out {
				sum += float64(dy[i*out+o]) * float64(w[o*in+k])
			}
			sum *= alpha
			if base != nil {
				sum += float64(base[i*in+k])
			}
			dx[i*in+k] = T(sum)
		}
	}
}

// LinearGradW adds alpha·dyᵀ·x to dw [out,in] for dy [n,out] and x [n,in].
func LinearGradW[T Float](dw, dy, x []T, n, in, out int, alpha float64) {
	for o := range out {
		for k := range in {
			sum := 0.0
			for i := range n {
				sum += float64(dy[i*out+o]) * float64(x[i*in+k])
			}
			dw[o*in+k] += T(alpha * sum)
		}
	}
}

// BiasGrad adds the sum of the rows of dy to db.
func BiasGrad[T Float](db, dy []T) {
	for j := range db {
		sum := 0.0
		for at := j; at < len(dy); at += len(db) {
			sum += float64(dy[at])
		}
		db[j] += T(sum)
	}
}
