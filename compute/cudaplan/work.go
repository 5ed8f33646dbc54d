package cudaplan

import "autodev/compute"

// Target is CUDA as plans see it. It implements compute.Target.
type Target struct{}

var _ compute.Target = Target{}

// Name implements compute.Target.
func (Target) Name() string { return "cuda" }

// WorkBytes implements compute.Target.
func (Target) WorkBytes(c *compute.Call) int64 { return WorkBytes(c) }

// KeepsAttention implements compute.Target: gradients go over tiles of scores, of which each needs its rows' whole sums.
func (Target) KeepsAttention() bool { return true }

// FoldsSums implements compute.Target: memory is slow beside the tensor cores, and products read what they add to while they compute.
func (Target) FoldsSums() bool { return true }

// Beside is the memory in bytes that a process takes on a card beside its plans: the driver's context, the kernels' code and the
// workspace of products.
const Beside = 600<<20 + Products

const (
	// Products is cuBLASLt's workspace, of the size that NVIDIA recommends from Hopper on. A device has one.
	Products = 32 << 20
	// LogitRows is the tokens whose logits exist at a time in CrossEntropy and TokenNLL. The head's float32 gradient is read and
	// written once for each such piece: with fewer tokens that takes longer than the products.
	LogitRows = 2048
	// MaxParts is the pieces of rows that column sums are made of, before they are added in order: two blocks for each of an H100's
	// multiprocessors.
	MaxParts = 264
	// MaxHeadSplits is the groups of query heads whose gradients of one key head are computed apart, before they are added in order.
	MaxHeadSplits = 8
	// SumParts is the pieces of a sum over a whole space.
	SumParts = 1024

	partRows  = 8  // the fewest rows worth a piece
	rowBytes  = 16 // rows of logits begin at multiples of it
	f32, i32  = 4, 4
	f64       = 8
	sortWords = 2 // tokens in the order of their ids: ids and tokens
)

// Parts returns the pieces that column sums over n rows are made of.
func Parts(n int) int { return min(MaxParts, max(1, (n+partRows-1)/partRows)) }

// HeadSplits returns the groups of query heads that share a key head and are differentiated apart.
func HeadSplits(a compute.Attr) int { return min(MaxHeadSplits, a.Heads/a.KVHeads) }

// LogitStride returns the elements between rows of logits of the given type.
func LogitStride(vocab int, d compute.DType) int {
	n := rowBytes / d.Size()
	return (vocab + n - 1) / n * n
}

// WorkBytes returns the scratch of a call on CUDA in bytes: what its kernels use between themselves, and no value of the model. A
// call that does not fit its kernel needs none: compiling it reports that.
func WorkBytes(c *compute.Call) int64 {
	if c.Check() != nil {
		return 0
	}
	rows := func(b compute.Buffer) int { return b.Shape[0] }
	columns := func(b compute.Buffer) int { return b.Shape[len(b.Shape)-1] }
	bytes := func(size int, dims ...int) int64 {
		n := int64(size)
		for _, d := range dims {
			n *= int64(d)
		}
		return n
	}
	switch c.Kernel {
	case compute.EmbedGrad:
		return bytes(i32, sortWords, rows(c.In[0]))
	case compute.LayerNormGrad:
		sums := 0
		for _, b := range c.Out[1:] {
			if b.Space != compute.None {
				sums++
			}
		}
		return bytes(f32, sums, Parts(rows(c.In[0])), columns(c.In[0]))
	case compute.LayerNormGainGrad, compute.BiasGrad:
		return bytes(f32, Parts(rows(c.In[0])), columns(c.In[0]))
	case compute.AttentionGrad:
		// Per token and query head the product of gradient and output; where query heads share keys, the parts of the gradients of keys and
		// values.
		a, n := c.Attr, rows(c.In[0])
		work := bytes(f32, n, a.Heads)
		if splits := HeadSplits(a); splits > 1 {
			work += bytes(f32, splits, n, 2*a.KVHeads*a.HeadDim)
		}
		return work
	case compute.CrossEntropy, compute.TokenNLL:
		n := rows(c.In[0])
		d := c.In[0].DType
		return bytes(d.Size(), min(n, LogitRows), LogitStride(c.Attr.Vocab, d)) + bytes(f32, n)
	case compute.SumSquares:
		return bytes(f64, SumParts)
	}
	return 0
}
