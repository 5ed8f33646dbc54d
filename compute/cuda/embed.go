package cuda

// embed prepares y [n,width] = table[ids] + places[positions], table [rows,width], places [placeRows,width] and y as s, ids and
// positions [n] int32. An id outside of its table gives a row of NaNs: checkRange says which it was.
func embed(q *Queue, y, table, places, ids, positions Ptr, n, rows, placeRows, width int, s Store) (*Launch, error) {
	if err := positive("embed", n, rows, placeRows, width); err != nil {
		return nil, err
	}
	name, each := "embed_", s.vector()
	if width%each != 0 {
		name, each = "embed_any_", 1
	}
	return q.overArray(name+s.String(), int64(n)*int64(width), each, y, table, places, ids, positions, int64(n), rows, placeRows, width)
}

// embedGrad prepares dtable [rows,width] float32 += the rows of dy [n,width], as s, each to the row of its id, in token order. work
// has 2·n int32. Ids outside of the table are left out.
func embedGrad(q *Queue, dtable, dy, ids, work Ptr, n, rows, width int, s Store) (Sequence, error) {
	if err := positive("embed gradient", n, rows, width); err != nil {
		return nil, err
	}
	const orderThreads, gradThreads = 128, 64
	sorted, tokens := work, work+Ptr(4*n)
	order, err := q.Prepare("embed_order_i32", Grid{Blocks: Dim{(n + orderThreads - 1) / orderThreads}, Threads: Dim{orderThreads}}, sorted, tokens, ids, n)
	if err != nil {
		return nil, err
	}
	name, each := "embed_grad_", s.vector()
	if width%each != 0 {
		name, each = "embed_grad_any_", 1
	}
	columns := gradThreads * each
	grad, err := q.Prepare(name+s.String(), Grid{Blocks: Dim{n, (width + columns - 1) / columns}, Threads: Dim{gradThreads}}, dtable, dy, sorted, tokens, n, rows, width)
	if err != nil {
		return nil, err
	}
	return Sequence{order, grad}, nil
}
