package cuda

// layerNorm prepares y [rows,width] = LayerNorm(x)·gain + bias, all as s; y may be x.
func layerNorm(q *Queue, y, x, gain, bias Ptr, rows, width int, epsilon float32, s Store) (*Launch, error) {
	if err := positive("layernorm", rows, width); err != nil {
		return nil, err
	}
	const warps, most = 8, 8 // of a block; vectors of a lane
	vectors := width / s.vector()
	if width%s.vector() != 0 || vectors > 32*warps*most {
		return q.Prepare("layernorm_"+s.String(), Grid{Blocks: Dim{rows}, Threads: Dim{32 * warps}}, y, x, gain, bias, width, epsilon)
	}
	each := 1 // warps of a row
	for 32*each*most < vectors {
		each *= 2
	}
	grid := Grid{Blocks: Dim{(rows*each + warps - 1) / warps}, Threads: Dim{32 * warps}}
	return q.Prepare("layernorm_rows_"+s.String(), grid, y, x, gain, bias, rows, width, each, epsilon)
}
