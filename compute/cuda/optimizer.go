package cuda

import "autodev/compute/cudaplan"

// sumSquares prepares sum [1] float64 = Σ x², x [n] float32. work has cudaplan.SumParts float64.
func sumSquares(q *Queue, sum, x, work Ptr, n int64) (Sequence, error) {
	if err := positive("sum of squares", int(n)); err != nil {
		return nil, err
	}
	blocks := blocksFor((n+3)/4, 256, cudaplan.SumParts)
	parts, err := q.Prepare("sum_squares_f32", Grid{Blocks: Dim{blocks}, Threads: Dim{256}}, work, x, n)
	if err != nil {
		return nil, err
	}
	last, err := q.Prepare("sum_squares_add_f32", Grid{Blocks: Dim{1}, Threads: Dim{256}}, sum, work, blocks)
	if err != nil {
		return nil, err
	}
	return Sequence{parts, last}, nil
}

// adamW prepares a step of param, m, v [n] float32 from grad [n] float32 and hyper [8] float32, and copy [n] = param as s unless copy
// is 0.
func adamW(q *Queue, param, m, v, copied, grad, hyper Ptr, n int64, s Store) (*Launch, error) {
	return q.overArray("adamw_"+s.String(), n, 4, param, m, v, copied, grad, hyper, n)
}
