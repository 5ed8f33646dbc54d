package cuda

// greedy prepares choices [n] int32 = the token with the largest of the first vocab of each row's logits [n,stride] float32, the lowest of several, −1 where
// none is above −∞. Tokens whose masked [vocab] byte is not 0 and NaNs are not chosen.
func greedy(q *Queue, choices, logits, masked Ptr, n, vocab, stride int) (*Launch, error) {
	if err := positive("greedy choice", n, vocab, stride-vocab+1); err != nil {
		return nil, err
	}
	return q.Prepare("greedy_f32", Grid{Blocks: Dim{n}, Threads: Dim{1024}}, choices, logits, masked, vocab, stride)
}

// Greedy prepares choices [n] int32: of each row of logits [n,stride] float32 the token below vocab with the largest, the lowest of equal ones. Tokens with
// a masked [vocab] byte other than 0 are left out, NaNs too; where nothing is above −∞ it is token 0.
func (k Inference) Greedy(choices, logits, masked Ptr, n, vocab, stride int) (Sequence, error) {
	return sequence(greedy(k.q, choices, logits, masked, n, vocab, stride))
}
