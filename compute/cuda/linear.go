package cuda

import (
	"autodev/compute/cuda/cublaslt"
)

// linear is a product of the Linear family on n tokens, with in and out features. X and DY are [n,in] and [n,out], W [out,in], as the
// call's Store.
type linear struct {
	n, in, out int
	alpha      float32
	store      Store
}

// forward prepares y [n,out] = base + alpha·x·wᵀ + bias. base [n,out], which may be y, and bias [out] may be 0.
func (l linear) forward(q *Queue, y, x, w, bias, base Ptr) (*Matmul, error) {
	p := cublaslt.Product{M: l.n, N: l.out, K: l.in, TransB: true, In: l.store.blas(), Out: l.store.blas()}
	if bias != 0 {
		p.Epilogue = cublaslt.Bias
	}
	o := cublaslt.Operands{A: x, B: w, C: base, D: y, Bias: bias, Alpha: l.alpha, Beta: present(base)}
	return q.PrepareMatmul(p, o)
}

// gradX prepares dx [n,in] = base + alpha·dy·w. base, which may be dx, may be 0.
func (l linear) gradX(q *Queue, dx, dy, w, base Ptr) (*Matmul, error) {
	p := cublaslt.Product{M: l.n, N: l.in, K: l.out, In: l.store.blas(), Out: l.store.blas()}
	return q.PrepareMatmul(p, cublaslt.Operands{A: dy, B: w, C: base, D: dx, Alpha: l.alpha, Beta: present(base)})
}

// gradW prepares dw [out,in] float32 += alpha·dyᵀ·x, or, with fresh, = alpha·dyᵀ·x.
func (l linear) gradW(q *Queue, dw, dy, x Ptr, fresh bool) (*Matmul, error) {
	p := cublaslt.Product{M: l.out, N: l.in, K: l.n, TransA: true, In: l.store.blas(), Out: cublaslt.F32}
	beta := float32(1)
	if fresh {
		beta = 0
	}
	return q.PrepareMatmul(p, cublaslt.Operands{A: dy, B: x, C: dw, D: dw, Alpha: l.alpha, Beta: beta})
}

// present is beta: 1 where there is something to add to.
func present(p Ptr) float32 {
	if p == 0 {
		return 0
	}
	return 1
}

// forwardGELU prepares y [n,out] = gelu_tanh(z) and, unless its address is 0, z [n,out] = base + alpha·x·wᵀ + bias. bias and base, which may
// be y, may be 0.
func (l linear) forwardGELU(q *Queue, y, z, x, w, bias, base Ptr) (*Matmul, error) {
	p := cublaslt.Product{M: l.n, N: l.out, K: l.in, TransB: true, In: l.store.blas(), Out: l.store.blas()}
	switch {
	case bias != 0 && z != 0:
		p.Epilogue = cublaslt.BiasGELUAux
	case bias != 0:
		p.Epilogue = cublaslt.BiasGELU
	case z != 0:
		p.Epilogue = cublaslt.GELUAux
	default:
		p.Epilogue = cublaslt.GELU
	}
	return q.PrepareMatmul(p, cublaslt.Operands{A: x, B: w, C: base, D: y, Bias: bias, Aux: z, Alpha: l.alpha, Beta: present(base)})
}

// gradXGELU prepares dz [n,in] = (base + alpha·dy·w) · gelu_tanh′(z), z [n,in]. base, which may be dz, may be 0.
func (l linear) gradXGELU(q *Queue, dz, dy, w, base, z Ptr) (*Matmul, error) {
	p := cublaslt.Product{M: l.n, N: l.in, K: l.out, In: l.store.blas(), Out: l.store.blas(), Epilogue: cublaslt.DGELU}
	return q.PrepareMatmul(p, cublaslt.Operands{A: dy, B: w, C: base, D: dz, Aux: z, Alpha: l.alpha, Beta: present(base)})
}
