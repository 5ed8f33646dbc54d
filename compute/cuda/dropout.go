package cuda

import (
	"fmt"

	"autodev/compute"
)

// dropout prepares y [n] = x without the elements that compute.DropWords drops for key [2] int32 and salt, the others times
// 1/(1 − drop); x and y as s, y may be x.
func dropout(q *Queue, y, x, key Ptr, n int64, salt uint32, drop float64, s Store) (*Launch, error) {
	if !(drop >= 0 && drop < 1) {
		return nil, fmt.Errorf("cuda: dropout of %v, expected at least 0 and below 1", drop)
	}
	return q.overArray("dropout_"+s.String(), n, s.vector(), y, x, key, n, salt, compute.DropThreshold(drop), float32(1/(1-drop)))
}
