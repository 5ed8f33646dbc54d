package model

import "fmt"

// Forward writes GPTBigCode and GPT-2 in terms of the vocabulary: learned positions, pre-norm blocks of attention and MLP on
// a residual stream, tied or untied head (Li et al. 2023, StarCoder; Radford et al. 2019).
func Forward[T any](c Config, b Builder[T]) {
	spec := AttentionSpec{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim(), Scale: c.AttentionScale(), Drop: c.AttentionDropout}
	x := b.Dropout(b.Embed("transformer.wte.weight", "transformer.wpe.weight"), c.EmbeddingDropout)
	for i := range c.Layers {
		b.Block(i)
		h := fmt.Sprintf("transformer.h.%d.", i)
		a := b.Linear(b.LayerNorm(x, h+"ln_1", c.Epsilon), h+"attn.c_attn")
		a = b.Linear(b.Attention(a, i, spec), h+"attn.c_proj")
		x = b.Add(x, b.Dropout(a, c.ResidualDropout))
		m := b.Activate(b.Linear(b.LayerNorm(x, h+"ln_2", c.Epsilon), h+"mlp.c_fc"), c.Activation)
		x = b.Add(x, b.Dropout(b.Linear(m, h+"mlp.c_proj"), c.ResidualDropout))
	}
	b.Block(-1)
	b.Head(b.LayerNorm(x, "transformer.ln_f", c.Epsilon), c.HeadWeight())
}
