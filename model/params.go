package model

import (
	"fmt"
	"iter"
	"math"
)

const (
	wteName  = "transformer.wte.weight"
	wpeName  = "transformer.wpe.weight"
	headName = "lm_head.weight"
)

// Kind says what a parameter is.
type Kind uint8

const (
	// Matrix is the weight of a linear module, [out, in].
	Matrix Kind = iota + 1
	// Bias is the bias of a linear module, [out].
	Bias
	// Norm is the gain or the bias of a LayerNorm, [width].
	Norm
	// Embedding is a table of rows per token or position, [rows, width].
	Embedding
)

// Decays reports whether weight decay applies by default: to matrices and tables, not to biases and norms.
func (k Kind) Decays() bool { return k == Matrix || k == Embedding }

// ParamSpec describes one parameter in canonical layout.
type ParamSpec struct {
	Name  string
	Shape []int
	Kind  Kind
	Block int // transformer block, −1 outside of them
	// Initial values: normal with standard deviation Std, or all Fill when Std is 0.
	Std  float64
	Fill float32
}

// Len returns the number of elements.
func (p ParamSpec) Len() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Params returns the model's parameters in canonical order and layout: the names of transformers' GPTBigCode, every linear
// weight [out, in], and the rows of c_attn ordered as all query heads, then all key heads, then all value heads, whatever
// the family and the files say.
//
// Initial values are those of GPT-2 (Radford et al. 2019): normal with InitStd, projections onto the residual stream
// divided by √(2·Layers).
func (c Config) Params() []ParamSpec {
	var ps []ParamSpec
	for p := range c.params() {
		ps = append(ps, p)
	}
	return ps
}

// ParamsByName returns the parameters of Params by their names.
func (c Config) ParamsByName() map[string]ParamSpec {
	specs := map[string]ParamSpec{}
	for p := range c.params() {
		specs[p.Name] = p
	}
	return specs
}

// NumParams returns the number of parameters; a tied head counts once.
func (c Config) NumParams() int64 {
	e, i := int64(c.Embed), int64(c.Inner)
	kv := int64(c.KVHeads * c.HeadDim())
	block := 4*e + (e+2*kv)*(e+1) + e*(e+1) + i*(e+1) + e*(i+1)
	n := int64(c.VocabSize)*e + int64(c.Positions)*e + int64(c.Layers)*block + 2*e
	if !c.Tied {
		n += int64(c.VocabSize) * e
	}
	return n
}

func (c Config) params() iter.Seq[ParamSpec] {
	return func(yield func(ParamSpec) bool) {
		e, qkv := c.Embed, c.Embed+2*c.KVHeads*c.HeadDim()
		residual := c.InitStd / math.Sqrt(2*float64(c.Layers))
		block := -1
		ok := true
		put := func(name string, k Kind, std float64, fill float32, shape ...int) {
			ok = ok && yield(ParamSpec{Name: name, Shape: shape, Kind: k, Block: block, Std: std, Fill: fill})
		}
		norm := func(name string) {
			put(name+".weight", Norm, 0, 1, e)
			put(name+".bias", Norm, 0, 0, e)
		}
		linear := func(name string, std float64, out, in int) {
			put(name+".weight", Matrix, std, 0, out, in)
			put(name+".bias", Bias, 0, 0, out)
		}
		put(wteName, Embedding, c.InitStd, 0, c.VocabSize, e)
		put(wpeName, Embedding, c.InitStd, 0, c.Positions, e)
		for block = 0; ok && block < c.Layers; block++ {
			h := fmt.Sprintf("transformer.h.%d.", block)
			norm(h + "ln_1")
			linear(h+"attn.c_attn", c.InitStd, qkv, e)
			linear(h+"attn.c_proj", residual, e, e)
			norm(h + "ln_2")
			linear(h+"mlp.c_fc", c.InitStd, c.Inner, e)
			linear(h+"mlp.c_proj", residual, e, c.Inner)
		}
		block = -1
		norm("transformer.ln_f")
		if !c.Tied {
			put(headName, Matrix, c.InitStd, 0, c.VocabSize, e)
		}
	}
}
