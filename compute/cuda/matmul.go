package cuda

import (
	"fmt"

	"autodev/compute/cuda/cublaslt"
)

// Matmul is a matrix product with its operands.
type Matmul struct{ matmul *cublaslt.Matmul }

// PrepareMatmul returns the product of the operands, ready to be enqueued.
func (q *Queue) PrepareMatmul(p cublaslt.Product, o cublaslt.Operands) (*Matmul, error) {
	if n := q.d.options.Algorithms; n > 1 && !q.d.blas.Known(p) {
		if err := q.fastest(p, n); err != nil {
			return nil, err
		}
	}
	m, err := q.d.blas.Bind(p, o)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	return &Matmul{m}, nil
}

// Enqueue gives the product to the device. Products share a workspace: they must all go to one queue, not to a forked one as well.
func (m *Matmul) Enqueue(q *Queue) error {
	q.afterKernel = false
	if err := m.matmul.Run(q.stream); err != nil {
		// The library hides the driver's error: whether the device is lost is seen by asking it.
		if lost := q.d.api.SyncStream(q.stream); sticky(lost) != nil {
			err = q.d.note(lost)
		}
		return fmt.Errorf("cuda: %w", err)
	}
	return nil
}
