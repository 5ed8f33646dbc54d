package model

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/internal/sharedtest"
	"autodev/model/dtype"
)

// tiny is a small model for tests.
func tiny() Config {
	return Config{Architecture: GPTBigCode, VocabSize: 11, Vocab: 11, Positions: 8, Embed: 8, Layers: 2, Heads: 2, KVHeads: 1, Inner: 20, Activation: compute.GELUTanh,
		Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.02, BOS: 0, EOS: []int{0}}
}

const santacoder = `{"model_type":"gpt2","architectures":["GPT2LMHeadCustomModel"],"auto_map":{"AutoConfig":"x"},"attention_head_type":"multiquery",
"n_layer":24,"n_embd":2048,"n_head":16,"n_inner":8192,"n_positions":2048,"vocab_size":49280,"activation_function":"gelu_fast","layer_norm_epsilon":1e-5,
"attn_pdrop":0.1,"embd_pdrop":0.1,"resid_pdrop":0.1,"initializer_range":0.02,"bos_token_id":49152,"eos_token_id":49152,"torch_dtype":"float32",
"reorder_and_upcast_attn":false,"scale_attn_by_inverse_layer_idx":false,"scale_attn_weights":true,"use_cache":false}`

func starcoder(layers, embed, heads, vocab int) Config {
	return Config{Architecture: GPTBigCode, VocabSize: vocab, Vocab: vocab, Positions: 8192, Embed: embed, Layers: layers, Heads: heads, KVHeads: 1, Inner: 4 * embed, Tied: true}
}

// The counts are those of the model cards and of transformers.
func TestNumParams(t *testing.T) {
	c, err := ParseConfig([]byte(santacoder), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	gpt2 := Config{Architecture: GPT2, VocabSize: 50257, Positions: 1024, Embed: 768, Layers: 12, Heads: 12, KVHeads: 12, Inner: 3072, Tied: true}
	for name, x := range map[string]struct {
		c    Config
		want int64
	}{
		"santacoder": {c, 1_124_886_528}, "tiny_starcoder_py": {starcoder(20, 768, 12, 49152), 164_144_128}, "starcoderbase-1b": {starcoder(24, 2048, 16, 49152), 1_137_207_296},
		"starcoderbase-3b": {starcoder(36, 2816, 22, 49152), 3_043_311_104}, "starcoderbase-7b": {starcoder(42, 4096, 32, 49152), 7_327_263_232},
		"starcoder": {starcoder(40, 6144, 48, 49152), 15_517_456_384}, "gpt2": {gpt2, 124_439_808},
	} {
		var sum int64
		for _, p := range x.c.Params() {
			sum += int64(p.Len())
		}
		if x.c.NumParams() != x.want || sum != x.want {
			t.Errorf("%s: %d, by table %d, expected %d", name, x.c.NumParams(), sum, x.want)
		}
	}
	if n := c.KVBytesPerToken(2); n != 12_288 {
		t.Errorf("%d bytes of cache per token, expected 12288", n)
	}
}

func TestSantaCoderConfig(t *testing.T) {
	c, err := ParseConfig([]byte(santacoder), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	if c.Architecture != GPTBigCode || c.KVHeads != 1 || c.layout != layoutSantaCoder || c.HeadDim() != 128 || c.BOS != 49152 || !slices.Equal(c.EOS, []int{49152}) || c.AttentionScale() != 1/math.Sqrt(128) {
		t.Errorf("config %+v", c)
	}
	// Written, it is today's GPTBigCode.
	b, err := c.configJSON(dtype.BF16, nil)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]any{"model_type": "gpt_bigcode", "multi_query": true, "activation_function": "gelu_pytorch_tanh", "use_cache": true, "torch_dtype": "bfloat16", "reorder_and_upcast_attn": false} {
		if m[k] != want {
			t.Errorf("%s: %v, expected %v", k, m[k], want)
		}
	}
	for _, k := range []string{"auto_map", "attention_head_type"} {
		if v, ok := m[k]; ok {
			t.Errorf("%s: %v is still there", k, v)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	for _, text := range []string{santacoder,
		`{"model_type":"gpt2","vocab_size":10,"n_positions":8,"n_embd":4,"n_layer":1,"n_head":2,"eos_token_id":[1,2],"unknown":{"a":[1,null]}}`,
		`{"model_type":"gpt_bigcode","vocab_size":10,"max_position_embeddings":8,"hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,"n_inner":null,"multi_query":false,"tie_word_embeddings":false,"bos_token_id":null,"activation_function":"relu","scale_attn_weights":false}`,
	} {
		c, err := ParseConfig([]byte(text), "a")
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.configJSON(dtype.F32, nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(b, "b")
		if err != nil {
			t.Fatal(err)
		}
		b2, err := again.configJSON(dtype.F32, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, b2) || again.NumParams() != c.NumParams() || again.Activation != c.Activation || again.Tied != c.Tied || again.ScaleAttention != c.ScaleAttention || !slices.Equal(again.EOS, c.EOS) || again.BOS != c.BOS {
			t.Errorf("%s\nbecame\n%s\nthen\n%s", text, b, b2)
		}
		if strings.Contains(text, "unknown") && string(again.Extra["unknown"]) == "" {
			t.Errorf("the unknown field was lost: %s", b)
		}
	}
}

func TestBadConfigs(t *testing.T) {
	const dims = `"vocab_size":10,"n_positions":8,"n_embd":4,"n_layer":1,"n_head":2`
	for _, c := range []struct{ text, want string }{
		{``, "offset 0: unexpected end of JSON input"},
		{`{"model_type":"gpt2",}`, "offset 22: invalid character '}' looking for beginning of object key string"},
		{`[]`, "json: cannot unmarshal array into Go value of type map[string]json.RawMessage"},
		{`null`, "found null, expected a JSON object"},
		{`{}`, "model_type: missing, expected gpt_bigcode or gpt2"},
		{`{"model_type":7}`, "model_type: missing, expected gpt_bigcode or gpt2"},
		{`{"model_type":"gpt2"}`, "vocab_size: missing, expected an integer"},
		{`{"model_type":"gpt2","vocab_size":"10"}`, `vocab_size: found "10", expected a value of type int`},
		{`{"model_type":"gpt2","vocab_size":10.5}`, `vocab_size: found 10.5, expected a value of type int`},
		{`{"model_type":"gpt2",` + strings.Replace(dims, "10", "-1", 1) + `}`, "vocab_size: -1, expected 1 to 16777216"},
		{`{"model_type":"gpt2",` + strings.Replace(dims, `"n_layer":1`, `"n_layer":99999999`, 1) + `}`, "n_layer: 99999999, expected 1 to 4096"},
		{`{"model_type":"gpt2",` + strings.Replace(dims, `"n_embd":4`, `"n_embd":0`, 1) + `}`, "n_embd: 0, expected 1 to 131072"},
		{`{"model_type":"gpt2","vocab_size":10,"n_positions":8,"n_embd":131072,"n_layer":4096,"n_head":1}`, "n_layer, n_embd, n_inner, vocab_size: 844431912075264 parameters, expected at most 1099511627776"},
		{`{"model_type":"gpt2","n_inner":0,` + dims + `}`, "n_inner: 0, expected 1 to 1048576"},
		{`{"model_type":"gpt2","layer_norm_epsilon":0,` + dims + `}`, "layer_norm_epsilon: 0, expected more than 0 and less than 1"},
		{`{"model_type":"gpt2","attn_pdrop":1,` + dims + `}`, "attn_pdrop: 1, expected at least 0 and less than 1"},
		{`{"model_type":"gpt2","tie_word_embeddings":"yes",` + dims + `}`, `tie_word_embeddings: found "yes", expected a value of type bool`},
		{`{"model_type":"gpt2","add_cross_attention":true,` + dims + `}`, "add_cross_attention: true, expected false: only a decoder without an encoder is supported"},
		{`{"model_type":"gpt2","scale_attn_by_inverse_layer_idx":true,` + dims + `}`, "scale_attn_by_inverse_layer_idx: true, expected false: only attention scaled alike in every layer is supported"},
		{`{"model_type":"gpt2","quantization_config":{"bits":4},` + dims + `}`, `quantization_config: {"bits":4}, expected none: quantised weights are not supported`},
		{`{"model_type":"gpt2","pruned_heads":{"0":[1]},` + dims + `}`, "pruned_heads: 1 layers, expected none: pruned heads are not supported"},
		{`{"model_type":"gpt2","activation_function":"silu",` + dims + `}`, `activation_function: "silu", expected gelu_new, gelu_fast, gelu_pytorch_tanh, gelu or relu`},
		{`{"model_type":"gpt2","architectures":["GPT2LMHeadCustomModel"],` + dims + `}`, `attention_head_type: "", expected multiquery or multihead`},
		{`{"model_type":"gpt_bigcode","attention_head_type":"multihead",` + dims + `}`, `attention_head_type: "multihead", expected none for gpt_bigcode`},
		{`{"model_type":"gpt_bigcode","num_key_value_heads":2,` + dims + `}`, "num_key_value_heads: 2, expected 1"},
		{`{"model_type":"gpt2","eos_token_id":[1,"a"],` + dims + `}`, `eos_token_id: found [1,"a"], expected a value of type []int`},
		{`{"model_type":"gpt2","bos_token_id":-5,` + dims + `}`, "bos_token_id, eos_token_id: -5, expected a token id"},
	} {
		_, err := ParseConfig([]byte(c.text), "config.json")
		if err == nil || err.Error() != "config.json: "+c.want {
			t.Errorf("%s\n  error %v\n  expected config.json: %s", c.text, err, c.want)
		}
	}
}

func TestParamTable(t *testing.T) {
	c := tiny()
	c.Tied = false
	ps := c.Params()
	if ps[0].Name != wteName || ps[len(ps)-1].Name != headName || len(ps) != 2+2*12+2+1 {
		t.Fatalf("%d parameters from %s to %s", len(ps), ps[0].Name, ps[len(ps)-1].Name)
	}
	for _, p := range ps {
		decays := strings.HasSuffix(p.Name, ".weight") && !strings.Contains(p.Name, "ln_")
		std := 0.0
		switch {
		case strings.HasSuffix(p.Name, "c_proj.weight"):
			std = 0.01 // 0.02/√(2·2)
		case decays:
			std = 0.02
		}
		block := -1
		if strings.HasPrefix(p.Name, "transformer.h.") {
			block = int(p.Name[len("transformer.h.")] - '0')
		}
		if p.Kind.Decays() != decays || p.Std != std || p.Block != block || (p.Fill == 1) != (strings.Contains(p.Name, "ln_") && strings.HasSuffix(p.Name, ".weight")) {
			t.Errorf("%+v", p)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(santacoder))
	f.Add([]byte(`{"model_type":"gpt_bigcode","vocab_size":10,"n_positions":8,"n_embd":4,"n_layer":1,"n_head":2,"multi_query":false,"eos_token_id":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b, "x")
		if err != nil {
			return
		}
		out, err := c.configJSON(dtype.F32, nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(out, "y")
		if err != nil || again.NumParams() != c.NumParams() {
			t.Fatalf("%s\nwritten as\n%s\nis refused: %v", b, out, err)
		}
	})
}

func TestReadConfigOfGolden(t *testing.T) {
	ck := mustLoad(t, sharedtest.Path(t, "golden/tiny-gpt2"))
	if c := ck.Config; c.Architecture != GPT2 || c.KVHeads != 4 || c.Heads != 4 || c.Embed != 48 || c.Positions != 64 || c.VocabSize != 160 || c.AttentionDropout != 0 {
		t.Errorf("config %+v", c)
	}
	if err := ck.Weights.Check(ck.Config); err != nil {
		t.Error(err)
	}
}
