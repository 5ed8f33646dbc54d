package model

import (
	"strings"

	"autodev/model/dtype"
)

// Info sums up a model folder.
type Info struct {
	Folder       string           `json:"folder"`
	Architecture Architecture     `json:"architecture"`
	Layout       string           `json:"layout"` // how the files arrange the tensors
	VocabSize    int              `json:"vocab_size"`
	Positions    int              `json:"positions"`
	Embed        int              `json:"embed"`
	Layers       int              `json:"layers"`
	Heads        int              `json:"heads"`
	KVHeads      int              `json:"kv_heads"`
	HeadDim      int              `json:"head_dim"`
	Inner        int              `json:"inner"`
	Activation   string           `json:"activation"`
	Epsilon      float64          `json:"layer_norm_epsilon"`
	Tied         bool             `json:"tied_head"`
	Parameters   ParameterCounts  `json:"parameters"`
	Files        []FileInfo       `json:"files"`
	DTypes       []dtype.DType    `json:"dtypes"`
	WeightBytes  map[string]int64 `json:"weight_bytes"`             // in memory, by element type
	KVBytes      map[string]int64 `json:"kv_cache_bytes_per_token"` // by element type
}

// ParameterCounts divides the parameters among a model's parts.
type ParameterCounts struct {
	Total      int64 `json:"total"`
	Tokens     int64 `json:"token_embeddings"`
	Positions  int64 `json:"position_embeddings"`
	Attention  int64 `json:"attention"`
	MLP        int64 `json:"mlp"`
	LayerNorms int64 `json:"layer_norms"`
	Head       int64 `json:"head"` // 0 when tied
}

// FileInfo describes a weight file.
type FileInfo struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"`
	Tensors int    `json:"tensors"`
}

// Info sums up the folder.
func (f *Folder) Info() Info {
	i := f.Config.Info()
	i.Folder, i.Files, i.DTypes = f.Dir, f.Files, f.DTypes
	return i
}

// Info sums up a model of the configuration c.
func (c Config) Info() Info {
	i := Info{
		Architecture: c.Architecture, Layout: c.layout.String(), VocabSize: c.VocabSize, Positions: c.Positions, Embed: c.Embed, Layers: c.Layers,
		Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim(), Inner: c.Inner, Activation: c.Activation.String(), Epsilon: c.Epsilon, Tied: c.Tied,
		Parameters: c.CountParameters(), WeightBytes: map[string]int64{}, KVBytes: map[string]int64{},
	}
	for name, size := range map[string]int{"f32": 4, "bf16": 2} {
		i.WeightBytes[name] = c.NumParams() * int64(size)
		i.KVBytes[name] = c.KVBytesPerToken(size)
	}
	return i
}

// CountParameters counts the parameters of each part.
func (c Config) CountParameters() ParameterCounts {
	var n ParameterCounts
	for p := range c.params() {
		size := int64(p.Len())
		n.Total += size
		switch {
		case p.Name == wteName:
			n.Tokens += size
		case p.Name == wpeName:
			n.Positions += size
		case p.Name == headName:
			n.Head += size
		case p.Kind == Norm:
			n.LayerNorms += size
		case strings.Contains(p.Name, ".attn."):
			n.Attention += size
		default:
			n.MLP += size
		}
	}
	return n
}

func (l layout) String() string {
	switch l {
	case layoutBigCode:
		return "gpt_bigcode"
	case layoutGPT2:
		return "gpt2 (Conv1D)"
	case layoutSantaCoder:
		return "santacoder (Conv1D, separate q_attn and kv_attn)"
	}
	return "canonical"
}
