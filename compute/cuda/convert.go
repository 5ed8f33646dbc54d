package cuda

import (
	"fmt"
	"math"
)

// roundTo prepares y [n] as s = x [n] float32, rounded to nearest even.
func roundTo(q *Queue, y, x Ptr, n int64, s Store) (*Launch, error) {
	return q.overArray("round_"+s.String(), n, 8, y, x, n)
}

// widen prepares y [n] float32 = x [n] as s.
func widen(q *Queue, y, x Ptr, n int64, s Store) (*Launch, error) {
	return q.overArray("widen_"+s.String(), n, 8, y, x, n)
}

// zero prepares x [n] float32 = 0.
func zero(q *Queue, x Ptr, n int64) (*Launch, error) { return q.overArray("zero_f32", n, 4, x, n) }

// checkRange prepares wrong [1] int32 = the least i for which x[i] of x [n] int32 is not in [least, limit), if there is one that is
// less than wrong, which should be math.MaxInt32 before.
func checkRange(q *Queue, wrong, x Ptr, n int64, least, limit int32) (*Launch, error) {
	if n > math.MaxInt32 {
		return nil, fmt.Errorf("cuda: range check of %d elements, expected at most %d", n, math.MaxInt32)
	}
	return q.overArray("check_range_i32", n, 1, wrong, x, int32(n), least, limit)
}
