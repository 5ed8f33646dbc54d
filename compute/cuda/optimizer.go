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

// clip prepares, from the sum [1] float64 of the squares of gradients that are 1/unscale times too large: norm [1] float32, their norm;
// hyper[7], the multiplier that clips to limit (0: does not) and unscales; skip [1] int32, whether a gradient was infinite or NaN.
func clip(q *Queue, hyper, norm, skip, sum Ptr, limit, unscale float32) (*Launch, error) {
	return q.Prepare("clip_f32", Grid{Blocks: Dim{1}, Threads: Dim{32}}, hyper, norm, skip, sum, limit, unscale)
}

// adamW prepares a step of param, m, v [n] float32 from grad [n] float32 and hyper [8] float32, and copy [n] = param as s unless copy
// is 0. Where skip [1] int32 is given and not 0 on the device, the step is left out.
func adamW(q *Queue, param, m, v, copied, grad, hyper, skip Ptr, n int64, s Store) (*Launch, error) {
	return q.overArray("adamw_"+s.String(), n, 4, param, m, v, copied, grad, hyper, skip, n)
}
