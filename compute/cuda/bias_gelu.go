package cuda

import "fmt"

// biasGELU prepares y [rows,width] = gelu_tanh(x + bias), x and y as s (y may be x), bias [width] float32 or 0.
func biasGELU(q *Queue, y, x, bias Ptr, rows, width int, s Store) (*Launch, error) {
	if rows < 1 || width < 1 {
		return nil, fmt.Errorf("cuda: bias and GELU of %d rows of %d", rows, width)
	}
	n := int64(rows) * int64(width)
	blocks := blocksFor(n, 256, 16*q.d.properties.Multiprocessors)
	return q.Prepare("bias_gelu_"+s.String(), Grid{Blocks: Dim{blocks}, Threads: Dim{256}}, y, x, bias, n, width)
}
