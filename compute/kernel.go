package compute

import "fmt"

// Kernel names an operation of the vocabulary. The comment of each gives its operands in order: inputs → outputs.
// n tokens, E embedding width, V vocabulary rows, P positions.
type Kernel uint8

const (
	// Embed: table [V,E], positions table [P,E], ids [n] i32, positions [n] i32 → y [n,E].
	Embed Kernel = iota + 1
	// EmbedGrad: dy [n,E], ids [n] i32 → dtable [V,E] +=. Each table row's contributions are summed in token order first
	// and added to the table once. (Also the gradient of the positions table, with positions as ids.)
	EmbedGrad
	// LayerNorm: x [n,E], gain [E], bias [E] → y [n,E]. Attr: Epsilon.
	LayerNorm
	// LayerNormGrad: dy [n,E], x [n,E], gain [E], base [n,E] or none → dx [n,E] = base + gradient, dgain [E] += or absent,
	// dbias [E] += or absent: what LayerNormGainGrad and BiasGrad add. Attr: Epsilon. The statistics are computed again. dx may
	// be dy's or base's memory.
	LayerNormGrad
	// LayerNormGainGrad: dy [n,E], x [n,E] → dgain [E] +=. Attr: Epsilon.
	LayerNormGainGrad
	// Linear: x [n,in], w [out,in], bias [out] or none, base [n,out] or none → y [n,out] = base + Alpha·x·wᵀ + bias.
	// y may be the same memory as base.
	Linear
	// LinearGradX: dy [n,out], w [out,in], base [n,in] or none → dx [n,in] = base + Alpha·dy·w. dx may be the same memory as base.
	LinearGradX
	// LinearGradW: dy [n,out], x [n,in] → dw [out,in] += Alpha·dyᵀ·x.
	LinearGradW
	// BiasGrad: dy [n,out] → db [out] += column sums. (Also the gradient of a LayerNorm's bias.)
	BiasGrad
	// Attention: qkv [n,(H+2·KV)·D], docStart [n] i32 → y [n,H·D], lse [n,H] or absent. Causal soft-max attention inside each sequence of Seq
	// tokens (n = batch·Seq): token t sees tokens docStart[t]..t of its sequence (docStart counts from the sequence's start).
	// Columns of qkv: H query heads, KV key heads, KV value heads, D each; query head h uses key head h/(H/KV).
	// With Attr.Drop > 0 probabilities are dropped; then a third input gives the key: key [2] i32. Attr: Heads, KVHeads,
	// HeadDim, Seq, Scale, Drop, Salt. The score matrix is never stored whole. lse is, for each token and head, the natural logarithm of the
	// soft-max's sum: log Σ exp(Scale·score).
	Attention
	// AttentionGrad: dy [n,H·D], qkv, docStart, key or none, y and lse or neither → dqkv [n,(H+2·KV)·D]. Attr as Attention, whose outputs y and
	// lse are: devices that read them want both (Target.KeepsAttention). Scores are computed again.
	AttentionGrad
	// Activation: x [n,I] → y [n,I]. Attr: Act. y may be x's memory.
	Activation
	// ActivationGrad: dy [n,I], x [n,I] → dx [n,I]. Attr: Act. dx may be dy's or x's memory.
	ActivationGrad
	// Add: a, b of one shape → y = a + b. y may be the memory of either.
	Add
	// Dropout: x [n,E], key [2] i32 → y: element i kept with probability 1−Drop and scaled by 1/(1−Drop), else 0. The mask is
	// a function of (key, Salt, i) alone (DropWords), so the gradient is the same kernel on dy. y may be x's memory.
	Dropout
	// CrossEntropy: x [n,E], w [V,E], targets [n] i32 (negative: not scored), scale [1] → loss [1] = scale·Σ nll,
	// dx [n,E] = ∂loss/∂x, dw [V,E] += ∂loss/∂w (absent when w is frozen). Logits x·wᵀ exist only a chunk of tokens at a time;
	// rows of w from Attr.Vocab on are masked out. Must be the root of differentiation.
	CrossEntropy
	// TokenNLL: x [n,E], w [V,E], targets [n] i32 → nll [n] (0 where the target is negative). Attr: Vocab.
	TokenNLL
	// SumSquares: x [any] → out [1] f64 = Σ x². For gradient norms: one call over the whole gradient space.
	SumSquares
	// AdamW: grad [m], hyper [8] f32 → param [m], m [m], v [m], all read and updated in place (Loshchilov, Hutter 2019), copy [m]
	// or absent: param rounded to the type in which other kernels read it (Storage).
	// hyper: learning rate, β1, β2, ε, weight decay, 1−β1^t, 1−β2^t, gradient multiplier (clipping).
	// With g the gradient times the multiplier: m = β1·m + (1−β1)·g; v = β2·v + (1−β2)·g²;
	// param = param − lr·decay·param − lr·(m/(1−β1^t)) / (√(v/(1−β2^t)) + ε).
	AdamW
	// Zero: → x [m] = 0. For gradients that do not outlive a step, before the first kernel that adds to them.
	Zero
	kernelEnd
)

// MaxOperands is the most inputs, and the most outputs, that a kernel has.
const MaxOperands = 6

var kernelNames = [...]string{
	Embed: "Embed", EmbedGrad: "EmbedGrad", LayerNorm: "LayerNorm", LayerNormGrad: "LayerNormGrad",
	LayerNormGainGrad: "LayerNormGainGrad", Linear: "Linear", LinearGradX: "LinearGradX", LinearGradW: "LinearGradW",
	BiasGrad: "BiasGrad", Attention: "Attention", AttentionGrad: "AttentionGrad", Activation: "Activation",
	ActivationGrad: "ActivationGrad", Add: "Add", Dropout: "Dropout", CrossEntropy: "CrossEntropy", TokenNLL: "TokenNLL",
	SumSquares: "SumSquares", AdamW: "AdamW", Zero: "Zero",
}

func (k Kernel) String() string {
	if k > 0 && k < kernelEnd {
		return kernelNames[k]
	}
	return fmt.Sprintf("Kernel(%d)", uint8(k))
}

// Kernels lists the vocabulary.
func Kernels() []Kernel {
	ks := make([]Kernel, 0, kernelEnd-1)
	for k := Kernel(1); k < kernelEnd; k++ {
		ks = append(ks, k)
	}
	return ks
}

// Act is an activation function.
type Act uint8

const (
	// GELUTanh is 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Hendrycks, Gimpel 2016).
	GELUTanh Act = iota + 1
	// GELUErf is 0.5·x·(1 + erf(x/√2)).
	GELUErf
	// ReLU is max(0, x).
	ReLU
)

func (a Act) String() string {
	switch a {
	case GELUTanh:
		return "gelu_tanh"
	case GELUErf:
		return "gelu_erf"
	case ReLU:
		return "relu"
	}
	return fmt.Sprintf("Act(%d)", uint8(a))
}

// Attr holds a call's constants; each kernel reads only those its comment names.
type Attr struct {
	Epsilon                      float64
	Alpha                        float64 // Linear family; 1 unless a LoRA scale
	Act                          Act
	Heads, KVHeads, HeadDim, Seq int
	Scale                        float64 // attention: multiplies scores, 1/√HeadDim
	Drop                         float64 // probability of dropping
	Salt                         uint32  // distinguishes the call sites of dropout
	Vocab                        int     // scored rows of the head's weight

	// BF16 rounds the operands of the kernel's matrix products (Linear, LinearGradX, LinearGradW, CrossEntropy, TokenNLL,
	// Attention, AttentionGrad) to bfloat16, nearest even; products are exact then, and everything else is as without.
	BF16 bool
}
