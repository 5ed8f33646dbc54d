package cuda

import "fmt"

// layerNorm prepares y [rows,width] = LayerNorm(x)·gain + bias, x and y as s, gain and bias [width] float32.
func layerNorm(q *Queue, y, x, gain, bias Ptr, rows, width int, epsilon float32, s Store) (*Launch, error) {
	if rows < 1 || width < 1 {
		return nil, fmt.Errorf("cuda: layernorm of %d rows of %d", rows, width)
	}
	return q.Prepare("layernorm_"+s.String(), Grid{Blocks: Dim{rows}, Threads: Dim{256}}, y, x, gain, bias, width, epsilon)
}
