package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"

	"autodev/compute"
	"autodev/internal/jsonfields"
	"autodev/internal/sizedfile"
	"autodev/model/dtype"
)

// Architecture names a family by transformers' model_type.
type Architecture string

const (
	// GPTBigCode is SantaCoder's and StarCoder's family: one key and value head (multi-query) or one per head.
	GPTBigCode Architecture = "gpt_bigcode"
	// GPT2 has one key and value head per head. It computes what GPTBigCode without multi-query does.
	GPT2 Architecture = "gpt2"
)

// Config describes a model: the dimensions, and what changes its mathematics.
type Config struct {
	Architecture Architecture
	VocabSize    int // rows of the embedding table, padding included
	Vocab        int // rows that are tokens: the logits of rows Vocab..VocabSize-1 are masked (see WithVocab)
	Positions    int // longest sequence
	Embed        int // width of the residual stream
	Layers       int
	Heads        int // query heads
	KVHeads      int // 1 (multi-query) or Heads
	Inner        int // width of the MLP
	Activation   compute.Act
	Epsilon      float64 // of every LayerNorm
	Tied         bool    // the head is the embedding table
	// ScaleAttention divides scores by √HeadDim.
	ScaleAttention bool
	// Dropout probabilities the model was made with: after the embeddings, on attention probabilities, after each
	// projection onto the residual stream.
	EmbeddingDropout, AttentionDropout, ResidualDropout float64
	// InitStd is the standard deviation of initial weights.
	InitStd float64
	BOS     int   // −1 for none
	EOS     []int // tokens that end a text
	// Extra holds the fields of config.json that are not the model's mathematics, so that a folder written from one that was
	// read keeps them.
	Extra map[string]json.RawMessage

	// layout is how the tensors of the folder that was read are arranged.
	layout layout
}

// HeadDim returns the width of one head.
func (c Config) HeadDim() int { return c.Embed / c.Heads }

// AttentionScale returns the factor of attention scores before the soft-max.
func (c Config) AttentionScale() float64 {
	if !c.ScaleAttention {
		return 1
	}
	return 1 / math.Sqrt(float64(c.HeadDim()))
}

// HeadWeight returns the name of the parameter whose rows are the vocabulary of the head.
func (c Config) HeadWeight() string {
	if c.Tied {
		return wteName
	}
	return headName
}

// KVBytesPerToken returns the bytes a key-value cache needs per token with elements of the given size.
func (c Config) KVBytesPerToken(elementSize int) int64 {
	return int64(c.Layers) * 2 * int64(c.KVHeads*c.HeadDim()) * int64(elementSize)
}

// WithVocab returns c for a tokenizer of the given number of tokens (its largest id plus one): rows of the embedding table
// beyond it are padding that was never trained and must not take probability. More tokens than rows are an error.
func (c Config) WithVocab(tokens int) (Config, error) {
	if tokens < 1 || tokens > c.VocabSize {
		return c, fmt.Errorf("tokenizer of %d tokens, but the model's vocab_size is %d: expected 1 to %d tokens (is it another model's tokenizer?)", tokens, c.VocabSize, c.VocabSize)
	}
	c.Vocab = tokens
	return c, nil
}

// Limits of dimensions: far above any model of these families, low enough that no product overflows.
const (
	maxVocab  = 1 << 24
	maxEmbed  = 1 << 17
	maxLayers = 1 << 12
	maxInner  = 1 << 20
	maxParams = 1 << 40
)

// Validate reports the first field that no model can have, by its name in config.json.
func (c Config) Validate() error {
	if c.Architecture != GPTBigCode && c.Architecture != GPT2 {
		return fmt.Errorf("model_type: %q, expected gpt_bigcode or gpt2", c.Architecture)
	}
	for _, d := range []struct {
		field    string
		n, limit int
	}{{"vocab_size", c.VocabSize, maxVocab}, {"n_positions", c.Positions, maxVocab}, {"n_embd", c.Embed, maxEmbed}, {"n_layer", c.Layers, maxLayers}, {"n_head", c.Heads, maxEmbed}, {"n_inner", c.Inner, maxInner}} {
		if d.n < 1 || d.n > d.limit {
			return fmt.Errorf("%s: %d, expected 1 to %d", d.field, d.n, d.limit)
		}
	}
	switch {
	case c.Embed%c.Heads != 0:
		return fmt.Errorf("n_head: %d, expected a divisor of n_embd %d", c.Heads, c.Embed)
	case c.KVHeads != 1 && c.KVHeads != c.Heads:
		return fmt.Errorf("num_key_value_heads: %d, expected 1 or n_head %d", c.KVHeads, c.Heads)
	case c.Architecture == GPT2 && c.KVHeads != c.Heads:
		return fmt.Errorf("num_key_value_heads: %d, expected n_head %d for gpt2", c.KVHeads, c.Heads)
	case c.Vocab < 1 || c.Vocab > c.VocabSize:
		return fmt.Errorf("vocabulary of %d tokens, expected 1 to vocab_size %d", c.Vocab, c.VocabSize)
	case !(c.Epsilon > 0 && c.Epsilon < 1):
		return fmt.Errorf("layer_norm_epsilon: %v, expected more than 0 and less than 1", c.Epsilon)
	case !(c.InitStd > 0 && c.InitStd <= 1):
		return fmt.Errorf("initializer_range: %v, expected more than 0 and at most 1", c.InitStd)
	case activationName(c.Architecture, c.Activation) == "":
		return fmt.Errorf("activation_function: %v, expected one that is known", c.Activation)
	}
	for _, p := range []struct {
		field string
		p     float64
	}{{"embd_pdrop", c.EmbeddingDropout}, {"attn_pdrop", c.AttentionDropout}, {"resid_pdrop", c.ResidualDropout}} {
		if !(p.p >= 0 && p.p < 1) {
			return fmt.Errorf("%s: %v, expected at least 0 and less than 1", p.field, p.p)
		}
	}
	if n := c.NumParams(); n > maxParams {
		return fmt.Errorf("n_layer, n_embd, n_inner, vocab_size: %d parameters, expected at most %d", n, int64(maxParams))
	}
	return nil
}

// parseActivation reads activation_function. The spellings of one function differ in how transformers computes it, not in what.
func parseActivation(s string) (compute.Act, bool) {
	switch s {
	case "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate":
		return compute.GELUTanh, true
	case "gelu", "gelu_python":
		return compute.GELUErf, true
	case "relu":
		return compute.ReLU, true
	}
	return 0, false
}

// activationName returns the usual spelling of the family.
func activationName(a Architecture, act compute.Act) string {
	switch act {
	case compute.GELUTanh:
		if a == GPT2 {
			return "gelu_new"
		}
		return "gelu_pytorch_tanh"
	case compute.GELUErf:
		return "gelu"
	case compute.ReLU:
		return "relu"
	}
	return ""
}

// ConfigFile is the name of the configuration in a model folder.
const ConfigFile = "config.json"

// maxConfigBytes bounds config.json and the index of a sharded checkpoint.
const maxConfigBytes = 16 << 20

// ReadConfig reads config.json from fsys, the folder of a model; dir stands for the folder in errors.
func ReadConfig(fsys fs.FS, dir string) (Config, error) {
	b, err := sizedfile.ReadFS(fsys, ConfigFile, path.Join(dir, ConfigFile), maxConfigBytes)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(b, path.Join(dir, ConfigFile))
}

// ParseConfig reads the content of a config.json; name stands for it in errors. Fields that change what the model computes
// are honoured or refused; others are kept in Extra.
func ParseConfig(b []byte, name string) (Config, error) {
	c, err := parseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func parseConfig(b []byte) (Config, error) {
	f := fields{jsonfields.Object{Raw: map[string]json.RawMessage{}}}
	if err := json.Unmarshal(b, &f.Raw); err != nil {
		return Config{}, jsonError(err)
	}
	if f.Raw == nil {
		return Config{}, errors.New("found null, expected a JSON object")
	}
	kind := jsonfields.Get(&f.Object, "model_type", "")
	class := jsonfields.Get(&f.Object, "architectures", []string(nil))
	var c Config
	switch kind {
	case "gpt_bigcode":
		c.Architecture, c.layout = GPTBigCode, layoutBigCode
	case "gpt2":
		c.Architecture, c.layout = GPT2, layoutGPT2
	case "":
		return Config{}, errors.New("model_type: missing, expected gpt_bigcode or gpt2")
	default:
		return Config{}, fmt.Errorf("model_type: %q, expected gpt_bigcode or gpt2", kind)
	}
	c.VocabSize = f.dimension("vocab_size")
	c.Positions = f.dimension("n_positions", "max_position_embeddings")
	c.Embed = f.dimension("n_embd", "hidden_size")
	c.Layers = f.dimension("n_layer", "num_hidden_layers")
	c.Heads = f.dimension("n_head", "num_attention_heads")
	c.Vocab = c.VocabSize
	c.Inner = jsonfields.Get(&f.Object, "n_inner", 0)
	if f.Absent("n_inner") {
		c.Inner = 4 * c.Embed
	}
	c.Epsilon = jsonfields.Get(&f.Object, "layer_norm_epsilon", 1e-5)
	c.InitStd = jsonfields.Get(&f.Object, "initializer_range", 0.02)
	c.EmbeddingDropout = jsonfields.Get(&f.Object, "embd_pdrop", 0.1)
	c.AttentionDropout = jsonfields.Get(&f.Object, "attn_pdrop", 0.1)
	c.ResidualDropout = jsonfields.Get(&f.Object, "resid_pdrop", 0.1)
	c.Tied = jsonfields.Get(&f.Object, "tie_word_embeddings", true)
	c.ScaleAttention = jsonfields.Get(&f.Object, "scale_attn_weights", true)
	c.BOS = jsonfields.Get(&f.Object, "bos_token_id", -1)
	c.EOS = f.ids("eos_token_id")
	act := jsonfields.Get(&f.Object, "activation_function", activationName(c.Architecture, compute.GELUTanh))
	var known bool
	if c.Activation, known = parseActivation(act); !known && f.Err == nil {
		f.Err = fmt.Errorf("activation_function: %q, expected gelu_new, gelu_fast, gelu_pytorch_tanh, gelu or relu", act)
	}
	heads := jsonfields.Get(&f.Object, "attention_head_type", "")
	switch {
	case c.Architecture == GPTBigCode:
		c.KVHeads = 1
		if !jsonfields.Get(&f.Object, "multi_query", true) {
			c.KVHeads = c.Heads
		}
		if heads != "" && f.Err == nil {
			f.Err = fmt.Errorf("attention_head_type: %q, expected none for gpt_bigcode", heads)
		}
	case heads == "multiquery":
		// SantaCoder as first published: GPT-2's code with one key and value head, in today's terms a GPTBigCode.
		c.Architecture, c.KVHeads, c.layout = GPTBigCode, 1, layoutSantaCoder
	case heads == "multihead", heads == "" && !slices.Contains(class, "GPT2LMHeadCustomModel"):
		c.KVHeads = c.Heads
	case f.Err == nil:
		f.Err = fmt.Errorf("attention_head_type: %q, expected multiquery or multihead", heads)
	}
	kv := jsonfields.Get(&f.Object, "num_key_value_heads", c.KVHeads)
	for _, r := range []struct{ field, why string }{
		{"add_cross_attention", "a decoder without an encoder"},
		{"is_encoder_decoder", "a decoder without an encoder"},
		{"scale_attn_by_inverse_layer_idx", "attention scaled alike in every layer"},
	} {
		if jsonfields.Get(&f.Object, r.field, false) && f.Err == nil {
			f.Err = fmt.Errorf("%s: true, expected false: only %s is supported", r.field, r.why)
		}
	}
	if q, ok := f.Raw["quantization_config"]; ok && !f.Absent("quantization_config") && f.Err == nil {
		if bytes.Contains(q, []byte(`"autodev"`)) {
			return Config{}, errors.New("quantization_config: found weights packed for inference, expected none: use the model folder they were made from")
		}
		f.Err = fmt.Errorf("quantization_config: %.60s, expected none: quantised weights are not supported", q)
	}
	if p := jsonfields.Get(&f.Object, "pruned_heads", map[string]any(nil)); len(p) > 0 && f.Err == nil {
		f.Err = fmt.Errorf("pruned_heads: %d layers, expected none: pruned heads are not supported", len(p))
	}
	if f.Err != nil {
		return Config{}, f.Err
	}
	for _, id := range append([]int{c.BOS}, c.EOS...) {
		if id < -1 || id >= maxVocab {
			return Config{}, fmt.Errorf("bos_token_id, eos_token_id: %d, expected a token id", id)
		}
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	if kv != c.KVHeads {
		return Config{}, fmt.Errorf("num_key_value_heads: %d, expected %d", kv, c.KVHeads)
	}
	c.Extra = f.Raw
	for _, k := range ownFields {
		delete(c.Extra, k)
	}
	return c, nil
}

// ownFields are the fields a written config.json takes from Config, or must not have any more.
var ownFields = []string{
	"model_type", "architectures", "auto_map", "attention_head_type", "multi_query", "num_key_value_heads", "vocab_size", "n_positions",
	"max_position_embeddings", "n_embd", "hidden_size", "n_layer", "num_hidden_layers", "n_head", "num_attention_heads", "n_inner",
	"activation_function", "layer_norm_epsilon", "initializer_range", "embd_pdrop", "attn_pdrop", "resid_pdrop", "tie_word_embeddings",
	"scale_attn_weights", "bos_token_id", "eos_token_id", "add_cross_attention", "is_encoder_decoder", "scale_attn_by_inverse_layer_idx",
	"quantization_config", "pruned_heads", "use_cache", "torch_dtype", "dtype", "n_ctx",
}

// configJSON returns the config.json of c for weights of element type d, with the fields of extra.
func (c Config) configJSON(d dtype.DType, extra map[string]any) ([]byte, error) {
	m := map[string]any{
		"model_type":          c.Architecture,
		"vocab_size":          c.VocabSize,
		"n_positions":         c.Positions,
		"n_embd":              c.Embed,
		"n_layer":             c.Layers,
		"n_head":              c.Heads,
		"n_inner":             c.Inner,
		"activation_function": activationName(c.Architecture, c.Activation),
		"layer_norm_epsilon":  c.Epsilon,
		"initializer_range":   c.InitStd,
		"embd_pdrop":          c.EmbeddingDropout,
		"attn_pdrop":          c.AttentionDropout,
		"resid_pdrop":         c.ResidualDropout,
		"tie_word_embeddings": c.Tied,
		"scale_attn_weights":  c.ScaleAttention,
		"torch_dtype":         d.Torch(),
		// Training with gradient checkpointing leaves false here, which makes decoding quadratic in transformers.
		"use_cache":    true,
		"bos_token_id": nil,
		"eos_token_id": nil,
	}
	maps.Copy(m, c.tokenIDs())
	switch c.Architecture {
	case GPTBigCode:
		m["architectures"] = []string{"GPTBigCodeForCausalLM"}
		m["multi_query"] = c.KVHeads == 1
	case GPT2:
		m["architectures"] = []string{"GPT2LMHeadModel"}
	}
	for k, v := range c.Extra {
		if _, ok := m[k]; !ok && !slices.Contains(ownFields, k) {
			m[k] = v
		}
	}
	maps.Copy(m, extra)
	return marshal(m)
}

// tokenIDs returns the ids that config.json and generation_config.json both hold.
func (c Config) tokenIDs() map[string]any {
	m := map[string]any{}
	if c.BOS >= 0 {
		m["bos_token_id"] = c.BOS
	}
	switch len(c.EOS) {
	case 0:
	case 1:
		m["eos_token_id"] = c.EOS[0]
	default:
		m["eos_token_id"] = c.EOS
	}
	return m
}

// marshal writes v as transformers does: keys sorted, two spaces, a final newline.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// fields is config.json being read.
type fields struct{ jsonfields.Object }

// dimension reads a required integer under the first of its names that is there.
func (f *fields) dimension(names ...string) int {
	for _, name := range names {
		if !f.Absent(name) {
			return jsonfields.Get(&f.Object, name, 0)
		}
	}
	if f.Err == nil {
		f.Err = fmt.Errorf("%s: missing, expected an integer", names[0])
	}
	return 0
}

// ids reads one token id or a list of them.
func (f *fields) ids(name string) []int {
	if f.Absent(name) {
		return nil
	}
	if v := bytes.TrimSpace(f.Raw[name]); v[0] == '[' {
		return jsonfields.Get(&f.Object, name, []int(nil))
	}
	return []int{jsonfields.Get(&f.Object, name, 0)}
}

// jsonError puts the offset into a syntax error.
func jsonError(err error) error {
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return fmt.Errorf("offset %d: %w", s.Offset, err)
	}
	return err
}
