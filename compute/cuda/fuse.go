package cuda

import (
	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
)

// prepareFused returns the product b with the activation a as its epilogue; ok is false where cuBLASLt has none.
func (b *bound) prepareFused(q *Queue, a *bound) (ops Sequence, ok bool, err error) {
	var m *Matmul
	if b.Kernel == compute.Linear {
		l := linear{n: b.rows(0), in: b.columns(0), out: b.rows(1), alpha: float32(b.Attr.Alpha), store: b.store}
		aux := b.out[0]
		if aux == a.out[0] {
			aux = 0 // the product itself is not wanted
		}
		m, err = l.forwardGELU(q, a.out[0], aux, b.in[0], b.in[1], b.in[2], b.in[3])
	} else {
		l := linear{n: b.rows(0), in: b.columns(1), out: b.columns(0), alpha: float32(b.Attr.Alpha), store: b.store}
		m, err = l.gradXGELU(q, a.out[0], b.in[0], b.in[1], b.in[2], a.in[1])
	}
	if cublaslt.Unsupported(err) {
		return nil, false, nil
	}
	return Sequence{m}, true, err
}
