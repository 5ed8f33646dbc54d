package cuda

import "math"

// Draw says how a token is drawn from a row of logits. Temperature must be positive; any with TopK 1 is the token with the largest logit, the
// lowest of equal ones.
type Draw struct {
	Temperature float64
	TopK        int     // among the most probable ones; 0: all
	TopP        float64 // among the fewest whose probabilities reach it; 0 and 1: all
	MinP        float64 // leaves out those less than that many times as probable as the most probable one
	Place       float64 // in [0,1): which of what is left
}

// DrawWords is the length of a Draw in device memory.
const DrawWords = 6

// Put writes a Draw as the kernel reads it (kernels/sample.cu) to the first DrawWords of to.
func (d Draw) Put(to []int32) {
	place := uint64(d.Place*(1<<53)) << 11
	topP := uint32(0)
	if d.TopP > 0 && d.TopP < 1 {
		topP = uint32(max(1, min(math.Ceil(d.TopP*(1<<32)), math.MaxUint32)))
	}
	copy(to, []int32{
		int32(math.Float32bits(float32(min(math.Log2E/d.Temperature, 1e38)))), int32(math.Float32bits(float32(d.MinP))), int32(min(d.TopK, math.MaxInt32)), int32(topP),
		int32(uint32(place)), int32(place >> 32),
	})
}

// What Sample and Greedy write in place of a token.
const (
	NoToken   = -1 // no logit is a number above −∞
	NotChosen = -2 // more than some thousand tokens may be left by TopK or TopP: the choice is the host's
)

// Sample prepares choices [n] int32: of each row of logits [n,stride] float32 a token below vocab, drawn as draws [n,DrawWords] say, NoToken or NotChosen. Tokens with
// a masked [vocab] byte other than 0 are left out, NaNs too.
func (k Inference) Sample(choices, logits, masked, draws Ptr, n, vocab, stride int) (Sequence, error) {
	return sequence(sample(k.q, choices, logits, masked, draws, n, vocab, stride))
}

func sample(q *Queue, choices, logits, masked, draws Ptr, n, vocab, stride int) (*Launch, error) {
	if err := positive("drawing tokens", n, vocab, stride-vocab+1); err != nil {
		return nil, err
	}
	return q.Prepare("sample_f32", Grid{Blocks: Dim{n}, Threads: Dim{1024}}, choices, logits, masked, draws, vocab, stride)
}
