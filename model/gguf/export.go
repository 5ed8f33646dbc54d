package gguf

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"autodev/compute"
	"autodev/internal/atomicfile"
	"autodev/model"
	"autodev/tokenizer"
)

// Options says how a model is written.
type Options struct {
	// Type of the matrices: F32, F16, BF16, Q8_0 or Q4_0.
	Type Type
	Name string // general.name; none when empty
}

// Written says what Export wrote.
type Written struct {
	Tensors []Info   // offsets and sizes as in the file
	Bytes   int64    // of the file
	Notes   []string // what differs from what was asked for, or from this project's own inference, in llama.cpp
}

// fileTypes holds the numbers of general.file_type (enum llama_ftype).
var fileTypes = map[Type]uint32{F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, BF16: 32}

// quantizationVersion is ggml's GGML_QNT_VERSION, the layout of the blocks.
const quantizationVersion = 2

// Save is Export to a file that appears whole or not at all.
func Save(ctx context.Context, path string, c model.Config, src model.Source, t *tokenizer.Tokenizer, o Options) (out Written, err error) {
	f, err := atomicfile.Create(path)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	b := bufio.NewWriterSize(f, 1<<20)
	if out, err = Export(ctx, b, c, src, t, o); err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	if err != nil {
		return out, fmt.Errorf("write %s: %w", path, err)
	}
	return out, nil
}

// Export writes model and tokenizer as a file that llama.cpp runs: architecture "starcoder" for GPTBigCode, multi-query or not,
// and "gpt2" for GPT-2. The same arguments give the same bytes.
//
// Matrices, [out, in] with the rows of attn_qkv as all queries, keys, values, get Options.Type, or F16 where their rows are no
// whole blocks. With Q4_0 the token table, which is also the head when that is tied, gets Q8_0: llama.cpp's own llama-quantize
// keeps it finer, too, because every logit hangs on it. Norms, biases and positions stay F32, as in files of llama.cpp's own
// converter. Parameters are read from src when their turn comes, so that a model need not fit into memory. Rows of the table beyond the tokenizer's tokens are left out; they must not take probability.
func Export(ctx context.Context, to io.Writer, c model.Config, src model.Source, t *tokenizer.Tokenizer, o Options) (Written, error) {
	var out Written
	if _, ok := fileTypes[o.Type]; !ok {
		return out, fmt.Errorf("element type %v, expected F32, F16, BF16, Q8_0 or Q4_0", o.Type)
	}
	c, err := c.WithVocab(t.VocabSize())
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return out, err
	}
	m, notes, err := describe(c, t, o)
	if err != nil {
		return out, err
	}
	out.Notes = notes
	var tensors []Tensor
	for _, p := range c.Params() {
		name, err := tensorName(p)
		if err != nil {
			return out, err
		}
		shape := slices.Clone(p.Shape)
		if name == "token_embd.weight" || name == "output.weight" {
			shape[0] = c.Vocab
		}
		kind := elementType(p, o.Type)
		if !kind.fits(shape[len(shape)-1]) {
			out.Notes = append(out.Notes, fmt.Sprintf("tensor %s: F16, because its rows of %d are no whole blocks of %v", name, shape[1], kind))
			kind = F16
		}
		tensors = append(tensors, Tensor{Name: name, Type: kind, Shape: shape, Data: func(w io.Writer) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			x, err := src.Read(p.Name)
			if err != nil {
				return err
			}
			if !slices.Equal(x.Shape, p.Shape) || len(x.Data) != p.Len() {
				return fmt.Errorf("shape %v, expected %v", x.Shape, p.Shape)
			}
			n := p.Len() / p.Shape[0] * shape[0]
			return encodeTo(w, x.Data[:n], kind)
		}})
	}
	n := &counter{w: to}
	if err := Write(n, m, tensors); err != nil {
		return out, err
	}
	out.Bytes = n.n
	for _, x := range tensors {
		size, err := x.Type.size(x.Shape)
		if err != nil {
			return out, err
		}
		out.Tensors = append(out.Tensors, Info{Name: x.Name, Type: x.Type, Shape: x.Shape, Size: size})
	}
	at := n.n
	for i := len(out.Tensors) - 1; i >= 0; i-- {
		at -= pad(out.Tensors[i].Size)
		out.Tensors[i].Offset = at
	}
	return out, nil
}

// elementType returns the type a parameter is kept in when matrices get t.
func elementType(p model.ParamSpec, t Type) Type {
	switch {
	case len(p.Shape) == 1 || strings.HasSuffix(p.Name, ".wpe.weight"):
		return F32
	case t == Q4_0 && p.Block < 0:
		return Q8_0
	}
	return t
}

// moduleNames maps the modules of a model to llama.cpp's names.
var moduleNames = map[string]string{
	"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "lm_head": "output",
	"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}

// tensorName returns llama.cpp's name of a parameter.
func tensorName(p model.ParamSpec) (string, error) {
	module := p.Name[:strings.LastIndexByte(p.Name, '.')]
	suffix := p.Name[len(module):]
	prefix := ""
	if p.Block >= 0 {
		prefix = fmt.Sprintf("blk.%d.", p.Block)
		module = strings.TrimPrefix(module, fmt.Sprintf("transformer.h.%d.", p.Block))
	}
	name, ok := moduleNames[module]
	if !ok {
		return "", fmt.Errorf("parameter %s: llama.cpp has no tensor for it", p.Name)
	}
	return prefix + name + suffix, nil
}

// describe returns the file's metadata.
func describe(c model.Config, t *tokenizer.Tokenizer, o Options) (m Metadata, notes []string, err error) {
	arch := map[model.Architecture]string{model.GPTBigCode: "starcoder", model.GPT2: "gpt2"}[c.Architecture]
	switch {
	case c.Activation == compute.GELUErf:
		notes = append(notes, `activation_function "gelu": llama.cpp computes GELU by its tanh formula, which differs by up to 0.0005`)
	case c.Activation != compute.GELUTanh:
		return nil, nil, fmt.Errorf("activation_function: %v, expected gelu: llama.cpp's %s graph computes GELU only", c.Activation, arch)
	}
	if !c.ScaleAttention {
		return nil, nil, fmt.Errorf("scale_attn_weights: false, expected true: llama.cpp's %s graph divides scores by the square root of the head's width", arch)
	}
	eos := -1
	if len(c.EOS) > 0 {
		eos = c.EOS[0]
	}
	vocabulary, more, err := Vocabulary(t, c.Vocab, c.BOS, eos)
	if err != nil {
		return nil, nil, err
	}
	m = Metadata{{"general.architecture", arch}, {"general.type", "model"}}
	if o.Name != "" {
		m = append(m, KV{"general.name", o.Name})
	}
	m = append(m,
		KV{"general.size_label", sizeLabel(c.NumParams())},
		KV{"general.file_type", fileTypes[o.Type]},
		KV{"general.quantization_version", uint32(quantizationVersion)},
		KV{arch + ".vocab_size", uint32(c.Vocab)},
		KV{arch + ".context_length", uint32(c.Positions)},
		KV{arch + ".embedding_length", uint32(c.Embed)},
		KV{arch + ".block_count", uint32(c.Layers)},
		KV{arch + ".feed_forward_length", uint32(c.Inner)},
		KV{arch + ".attention.head_count", uint32(c.Heads)},
		KV{arch + ".attention.head_count_kv", uint32(c.KVHeads)},
		KV{arch + ".attention.layer_norm_epsilon", float32(c.Epsilon)},
	)
	return append(m, vocabulary...), append(notes, more...), nil
}

// sizeLabel writes a number of parameters with two digits, as names of GGUF files do ("1.1B", "6.5M").
func sizeLabel(n int64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "K"}} {
		if x := float64(n) / u.size; x >= 1 || u.size == 1e3 {
			if x < 9.5 {
				return fmt.Sprintf("%.1f%s", x, u.name)
			}
			return fmt.Sprintf("%.0f%s", x, u.name)
		}
	}
	return ""
}
