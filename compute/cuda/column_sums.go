package cuda

import "autodev/compute/cudaplan"

// biasGrad prepares db [width] float32 += the column sums of dy [rows,width], as s. work has cudaplan.Parts(rows)·width float32.
func biasGrad(q *Queue, db, dy, work Ptr, rows, width int, s Store) (Sequence, error) {
	if err := positive("bias gradient", rows, width); err != nil {
		return nil, err
	}
	name, each := "column_sums_", s.vector()
	if width%each != 0 {
		name, each = "column_sums_any_", 1
	}
	const warps = 8
	tiles := (width + 32*each - 1) / (32 * each)
	parts := max(1, min(cudaplan.Parts(rows), (rows+warps-1)/warps, 8*q.d.properties.Multiprocessors/tiles))
	sums, err := q.Prepare(name+s.String(), Grid{Blocks: Dim{tiles, parts}, Threads: Dim{32 * warps}}, work, dy, rows, width)
	if err != nil {
		return nil, err
	}
	last, err := addParts(q, []Ptr{db}, []Ptr{work}, parts, width)
	if err != nil {
		return nil, err
	}
	return Sequence{sums, last}, nil
}

// addParts prepares y[i] [width] += the column sums of parts[i] [n,width], all float32, for one or two i.
func addParts(q *Queue, y, parts []Ptr, n, width int) (*Launch, error) {
	last := len(y) - 1
	return q.Prepare("column_sums_add_f32", Grid{Blocks: Dim{(width + 31) / 32, len(y)}, Threads: Dim{256}}, y[0], y[last], parts[0], parts[last], n, width)
}
