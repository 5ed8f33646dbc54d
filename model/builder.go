package model

import "autodev/compute"

// Builder is the kernel vocabulary an architecture's Forward is written in; T is the builder's handle of an activation
// [n, width]. train/graph implements it with nodes of a Gorgonia graph, infer with kernels that run at once. Token ids,
// positions, document bounds and targets belong to the builder, not to the model. A builder remembers its first error and
// ignores what follows; its owner asks for it at the end.
//
// Parameters are named as in Config.Params. A module name is a parameter's name without ".weight": LoRA attaches to modules
// inside Linear, and no model knows of it.
type Builder[T any] interface {
	// Block says that what follows belongs to block i (a transformer layer), the unit of gradient checkpointing; −1 ends it.
	Block(i int)
	// Embed returns table rows of the tokens' ids plus position rows of their positions.
	Embed(table, positions string) T
	// LayerNorm normalises x with the parameters module.weight and module.bias.
	LayerNorm(x T, module string, epsilon float64) T
	// Linear returns x·Wᵀ + b of the module (b when the parameter table has module.bias), and its adapters' share.
	Linear(x T, module string) T
	// Attention returns causal attention over packed queries, keys and values (compute.Attention); layer numbers the cache.
	Attention(qkv T, layer int, spec AttentionSpec) T
	// Activate applies an activation function.
	Activate(x T, act compute.Act) T
	// Add returns x + y.
	Add(x, y T) T
	// Dropout drops elements of x in training when the run asks for the model's own dropout.
	Dropout(x T, p float64) T
	// Head ends the model: the loss in training, logits in inference, with weight's rows as vocabulary.
	Head(x T, weight string)
}

// AttentionSpec is what attention needs to know beside its input.
type AttentionSpec struct {
	Heads, KVHeads, HeadDim int
	Scale                   float64
	Drop                    float64 // the model's own attention dropout
}
