package infer

// Prompts are evaluated in chunks, so that scratch memory is bounded and weights are read from memory seldom. Chunks do not change
// a result. The context is looked at before every kernel.
const (
	// A chunk takes at most one chunkShare-th of the weights' memory, unless it is leastChunk: longer ones would be faster, but less
	// and less, and kernels get longer between two looks at the context.
	chunkShare = 24
	leastChunk = 192
	mostChunk  = 512
)

// chunkTokens returns the longest chunk in tokens.
func (p *program) chunkTokens() int {
	return int(min(max(p.bytes()/chunkShare/int64(p.tokenBytes()), leastChunk), mostChunk))
}

// tokenBytes returns the scratch memory of one token of a chunk: its registers, and what the widest product reads.
func (p *program) tokenBytes() int {
	n, widest := 0, 0
	for _, width := range p.widths {
		n += 4 * width
	}
	for i := range p.steps {
		if st := &p.steps[i]; st.op == opLinear {
			widest = max(widest, st.weight.in*st.weight.now().operandBytes())
		}
	}
	return max(1, n+widest)
}

// operandBytes returns the memory of an activation as a product with f reads it, and where the next one will.
func (f *form) operandBytes() int {
	switch {
	case f.quant != nil:
		return 2
	case f.packed != nil && f.packed.BF16() != nil:
		return 2
	}
	return 4
}

// firstChunk returns the length of the first of n tokens' chunks: there are as few as most allows, and their lengths differ by one
// at most, so that no short one reads all weights for a few tokens.
func firstChunk(n, most int) int {
	chunks := (n + most - 1) / most
	return (n + chunks - 1) / chunks
}
