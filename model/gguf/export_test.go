package gguf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/internal/sharedtest"
	"autodev/model"
	"autodev/model/dtype"
	"autodev/tokenizer"
)

// bytesTokenizer returns a vocabulary of the 256 bytes and a few merges, with SantaCoder's special tokens in front.
func bytesTokenizer(tb testing.TB) *tokenizer.Tokenizer {
	tb.Helper()
	t, err := tokenizer.Train(context.Background(), tokenizer.TrainConfig{
		VocabSize: 5 + 256 + 20, Specials: []string{"<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"}, DigitsIndividually: true,
	}, func(yield func(string, error) bool) {
		yield(strings.Repeat("def name(self, value):\n    return self.value + value\n", 4), nil)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// small returns a model of the given family for bytesTokenizer, with 7 rows more than it has tokens.
func small(a model.Architecture, kvHeads int) model.Config {
	return model.Config{Architecture: a, VocabSize: 288, Vocab: 288, Positions: 24, Embed: 64, Layers: 2, Heads: 4, KVHeads: kvHeads, Inner: 96,
		Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.02, BOS: 0, EOS: []int{0}}
}

// export writes and reads a model.
func export(tb testing.TB, c model.Config, src model.Source, t *tokenizer.Tokenizer, kind Type) (*File, Written, []byte) {
	tb.Helper()
	var b bytes.Buffer
	w, err := Export(context.Background(), &b, c, src, t, Options{Type: kind, Name: "small"})
	if err != nil {
		tb.Fatal(err)
	}
	f, err := open(b.Bytes())
	if err != nil {
		tb.Fatal(err)
	}
	return f, w, b.Bytes()
}

func TestExportMetadata(t *testing.T) {
	tok := bytesTokenizer(t)
	c := small(model.GPTBigCode, 1)
	f, _, _ := export(t, c, model.Init(c, 1), tok, Q8_0)
	for key, want := range map[string]any{
		"general.architecture": "starcoder", "general.type": "model", "general.name": "small", "general.size_label": "66K", "general.file_type": uint32(7),
		"general.quantization_version": uint32(2), "starcoder.vocab_size": uint32(281), "starcoder.context_length": uint32(24),
		"starcoder.embedding_length": uint32(64), "starcoder.block_count": uint32(2), "starcoder.feed_forward_length": uint32(96),
		"starcoder.attention.head_count": uint32(4), "starcoder.attention.head_count_kv": uint32(1), "starcoder.attention.layer_norm_epsilon": float32(1e-5),
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "starcoder", "tokenizer.ggml.bos_token_id": uint32(0), "tokenizer.ggml.eos_token_id": uint32(0),
		"tokenizer.ggml.eot_token_id": uint32(0), "tokenizer.ggml.fim_pre_token_id": uint32(1), "tokenizer.ggml.fim_mid_token_id": uint32(2),
		"tokenizer.ggml.fim_suf_token_id": uint32(3), "tokenizer.ggml.fim_pad_token_id": uint32(4), "tokenizer.ggml.add_bos_token": false,
		"tokenizer.ggml.add_eos_token": false,
	} {
		if got, _ := f.Metadata.Get(key); got != want {
			t.Errorf("%s: found %v, expected %v", key, got, want)
		}
	}
	for _, key := range []string{"tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id", "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id"} {
		if v, ok := f.Metadata.Get(key); ok {
			t.Errorf("%s: found %v, expected none", key, v)
		}
	}
	v, _ := f.Metadata.Get("tokenizer.ggml.tokens")
	tokens, _ := v.([]string)
	v, _ = f.Metadata.Get("tokenizer.ggml.token_type")
	kinds, _ := v.([]int32)
	v, _ = f.Metadata.Get("tokenizer.ggml.merges")
	merges, _ := v.([]string)
	if len(tokens) != 281 || len(kinds) != 281 || len(merges) != 20 {
		t.Fatalf("%d tokens, %d types, %d merges; expected 281, 281 and 20", len(tokens), len(kinds), len(merges))
	}
	for id, text := range tokens {
		want, _ := tok.Token(int32(id))
		kind := int32(tokenNormal)
		if id < 5 {
			kind = tokenControl
		}
		if text != want || kinds[id] != kind {
			t.Errorf("token %d: %q of type %d, expected %q of type %d", id, text, kinds[id], want, kind)
		}
	}
	for i, m := range merges {
		left, right, ok := strings.Cut(m, " ")
		if id, found := tok.ID(left + right); !ok || !found || int(id) != 261+i {
			t.Errorf("merge %d: %q gives token %d, expected %d", i, m, id, 261+i)
		}
	}
}

// TestExportTensors: every parameter is in the file, under llama.cpp's name, in its type, without the padding of the vocabulary.
func TestExportTensors(t *testing.T) {
	tok := bytesTokenizer(t)
	names := map[string]string{
		"transformer.wte.weight": "token_embd.weight", "transformer.wpe.weight": "position_embd.weight", "transformer.ln_f.weight": "output_norm.weight",
		"transformer.ln_f.bias": "output_norm.bias", "lm_head.weight": "output.weight",
	}
	for ours, theirs := range map[string]string{"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"} {
		for block := range 2 {
			for _, part := range []string{"weight", "bias"} {
				names[fmt.Sprintf("transformer.h.%d.%s.%s", block, ours, part)] = fmt.Sprintf("blk.%d.%s.%s", block, theirs, part)
			}
		}
	}
	untied := small(model.GPTBigCode, 4)
	untied.Tied = false
	for _, c := range []model.Config{small(model.GPTBigCode, 1), untied, small(model.GPT2, 4)} {
		w := model.Init(c, 7)
		for p := range w.All() { // biases and norms that are not all alike
			if len(p.Shape) == 1 {
				for i := range p.Data {
					p.Data[i] += float32(i%13) / 64
				}
			}
		}
		for _, kind := range []Type{F32, F16, BF16, Q8_0, Q4_0} {
			f, written, file := export(t, c, w, tok, kind)
			if written.Bytes != int64(len(file)) || !reflect.DeepEqual(written.Tensors, f.Tensors) || len(f.Tensors) != w.Len() {
				t.Fatalf("%v: told of %d bytes and %+v, the file of %d bytes has %+v", kind, written.Bytes, written.Tensors, len(file), f.Tensors)
			}
			if len(written.Notes) > 0 {
				t.Errorf("%v: notes %q, expected none", kind, written.Notes)
			}
			for p := range w.All() {
				info, ok := f.Lookup(names[p.Name])
				if !ok {
					t.Fatalf("%v: no tensor %s for %s", kind, names[p.Name], p.Name)
				}
				want, wantShape, wantType := p.Data, slices.Clone(p.Shape), kind
				switch info.Name {
				case "token_embd.weight", "output.weight":
					wantShape[0] = 281
					want = want[:281*64]
					if kind == Q4_0 {
						wantType = Q8_0
					}
				case "position_embd.weight":
					wantType = F32
				}
				if len(p.Shape) == 1 {
					wantType = F32
				}
				if info.Type != wantType || !slices.Equal(info.Shape, wantShape) {
					t.Errorf("%v: %s is %v %v, expected %v %v", kind, info.Name, info.Type, info.Shape, wantType, wantShape)
				}
				var b bytes.Buffer
				if err := encodeTo(&b, want, wantType); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b.Bytes(), f.raw(t, info)) {
					t.Errorf("%v: %s holds other values than %s", kind, info.Name, p.Name)
				}
			}
			if _, _, again := export(t, c, w, tok, kind); !bytes.Equal(file, again) {
				t.Errorf("%v: written twice, the bytes differ", kind)
			}
		}
	}
}

// TestExportFallsBackToF16 where rows are no whole blocks, and says so.
func TestExportFallsBackToF16(t *testing.T) {
	c := small(model.GPTBigCode, 1)
	c.Embed, c.Inner = 48, 64
	f, written, _ := export(t, c, model.Init(c, 1), bytesTokenizer(t), Q4_0)
	for name, want := range map[string]Type{"token_embd.weight": F16, "blk.0.attn_qkv.weight": F16, "blk.1.ffn_down.weight": Q4_0, "position_embd.weight": F32} {
		if info, _ := f.Lookup(name); info.Type != want {
			t.Errorf("%s: %v, expected %v", name, info.Type, want)
		}
	}
	if want := "tensor blk.0.attn_qkv.weight: F16, because its rows of 48 are no whole blocks of Q4_0"; len(written.Notes) != 7 || !slices.Contains(written.Notes, want) {
		t.Errorf("notes %q, expected 7, among them %q", written.Notes, want)
	}
}

// source is a model whose reads can fail.
type source struct {
	model.Source
	read func(name string, t *model.Tensor) (*model.Tensor, error)
}

func (s source) Read(name string) (*model.Tensor, error) {
	t, err := s.Source.Read(name)
	if err != nil {
		return nil, err
	}
	return s.read(name, t)
}

func TestExportErrors(t *testing.T) {
	tok := bytesTokenizer(t)
	bad := errors.New("the disk is gone")
	for _, c := range []struct {
		name   string
		change func(*model.Config)
		read   func(name string, t *model.Tensor) (*model.Tensor, error)
		kind   Type
		want   string
	}{
		{"activation", func(c *model.Config) { c.Activation = compute.ReLU }, nil, F16, "activation_function: relu, expected gelu: llama.cpp's starcoder graph computes GELU only"},
		{"scale", func(c *model.Config) { c.ScaleAttention = false }, nil, F16, "scale_attn_weights: false, expected true"},
		{"vocabulary", func(c *model.Config) { c.VocabSize, c.Vocab = 100, 100 }, nil, F16, "tokenizer of 281 tokens, but the model's vocab_size is 100"},
		{"type", func(*model.Config) {}, nil, 14, "element type Q6_K, expected F32, F16, BF16, Q8_0 or Q4_0"},
		{"read", func(*model.Config) {}, func(name string, t *model.Tensor) (*model.Tensor, error) {
			if strings.HasPrefix(name, "transformer.h.1.mlp.c_fc.w") {
				return nil, bad
			}
			return t, nil
		}, F16, "tensor blk.1.ffn_up.weight: the disk is gone"},
		{"shape", func(*model.Config) {}, func(name string, t *model.Tensor) (*model.Tensor, error) {
			return &model.Tensor{Name: name, Shape: []int{1}, Data: []float32{1}}, nil
		}, F16, "tensor token_embd.weight: shape [1], expected [288 64]"},
		{"range", func(*model.Config) {}, func(name string, t *model.Tensor) (*model.Tensor, error) {
			if name == "transformer.wte.weight" {
				x := *t
				x.Data = slices.Clone(t.Data)
				x.Data[99] = math.MaxFloat32
				return &x, nil
			}
			return t, nil
		}, F16, "tensor token_embd.weight: element 99: 3.4028235e+38 is beyond F16"},
	} {
		config := small(model.GPTBigCode, 1)
		c.change(&config)
		src := model.Source(model.Init(config, 1))
		if c.read != nil {
			src = source{src, c.read}
		}
		path := filepath.Join(t.TempDir(), "m.gguf")
		_, err := Save(t.Context(), path, config, src, tok, Options{Type: c.kind})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: found %v, expected %q", c.name, err, c.want)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 0 {
			t.Errorf("%s: left %v", c.name, entries)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	config := small(model.GPTBigCode, 1)
	if _, err := Save(ctx, filepath.Join(t.TempDir(), "m.gguf"), config, model.Init(config, 1), tok, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("found %v, expected %v", err, context.Canceled)
	}
}

func TestNotes(t *testing.T) {
	c := small(model.GPTBigCode, 1)
	c.Activation = compute.GELUErf
	_, written, _ := export(t, c, model.Init(c, 1), bytesTokenizer(t), F16)
	if len(written.Notes) != 1 || !strings.Contains(written.Notes[0], "tanh formula") {
		t.Errorf("notes %q, expected one about the tanh formula", written.Notes)
	}
	tok, err := tokenizer.Parse([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":2},"merges":[]},"normalizer":{"type":"NFC"},
		"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
		"added_tokens":[{"id":3,"content":"<tag>","special":false}]}`), "tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	m, notes, err := Vocabulary(tok, 5, 50256, -1)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := m.Get("tokenizer.ggml.bos_token_id"); ok || len(notes) != 4 || notes[2] != "bos_token_id: 50256 is left out, because the last token is 4" {
		t.Errorf("bos_token_id %v, notes %q", v, notes)
	}
	notes = slices.Delete(notes, 2, 3)
	if len(notes) != 3 || !strings.Contains(notes[0], "NFC") || !strings.Contains(notes[1], `"<tag>"`) || !strings.Contains(notes[2], "token 11") {
		t.Errorf("notes %q, expected NFC, <tag> and the missing end of text", notes)
	}
	words, _ := m.Get("tokenizer.ggml.tokens")
	kinds, _ := m.Get("tokenizer.ggml.token_type")
	if !reflect.DeepEqual(words, []string{"a", "[PAD1]", "b", "<tag>", "[PAD4]"}) || !reflect.DeepEqual(kinds, []int32{1, 5, 1, 4, 5}) {
		t.Errorf("tokens %q of types %v", words, kinds)
	}
}

func TestPreTokenizerOfRealVocabularies(t *testing.T) {
	for name, want := range map[string]string{"santacoder": "starcoder", "starcoder": "starcoder", "starcoder2": "starcoder", "gpt2": "gpt-2", "qwen3": "qwen2"} {
		tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/"+name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := preTokenizer(tok.Rules()); err != nil || got != want {
			t.Errorf("%s: found %q, %v; expected %q", name, got, err, want)
		}
	}
	if _, err := preTokenizer(tokenizer.Rules{Pattern: "gpt2", Digits: "contiguous"}); err == nil || !strings.Contains(err.Error(), "llama.cpp has no pre-tokeniser") {
		t.Errorf("found %v, expected an error", err)
	}
}

// TestPythonReadsWhatWeWrite needs Python with llama.cpp's package gguf: AUTODEV_PYTHON names the interpreter.
func TestPythonReadsWhatWeWrite(t *testing.T) {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_PYTHON names no Python with gguf, which is the judge here")
	}
	if out, err := exec.Command(python, "-c", "import gguf").CombinedOutput(); err != nil {
		t.Skipf("%s has no package gguf: %s", python, out)
	}
	dir := t.TempDir()
	var names []string
	tok := bytesTokenizer(t)
	for _, c := range []model.Config{small(model.GPTBigCode, 1), small(model.GPT2, 4)} {
		for _, kind := range []Type{F32, F16, BF16, Q8_0, Q4_0} {
			name := filepath.Join(dir, string(c.Architecture)+kind.String()+".gguf")
			if _, err := Save(t.Context(), name, c, model.Random(c, 3), tok, Options{Type: kind, Name: "small"}); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	// One matrix in all types, so that the judge can quantise it itself.
	c := small(model.GPTBigCode, 1)
	c.VocabSize = 1 << 13
	x, err := model.Random(c, 5).Read("transformer.wte.weight")
	if err != nil {
		t.Fatal(err)
	}
	var tensors []Tensor
	for _, kind := range []Type{F32, F16, BF16, Q8_0, Q4_0} {
		tensors = append(tensors, Float32("x."+kind.String(), kind, x.Shape, x.Data))
	}
	var b bytes.Buffer
	if err := Write(&b, Metadata{{"general.architecture", "starcoder"}}, tensors); err != nil {
		t.Fatal(err)
	}
	names = append(names, filepath.Join(dir, "types.gguf"))
	if err := os.WriteFile(names[len(names)-1], b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, append([]string{"testdata/check.py"}, names...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	var judged struct {
		Files []struct {
			Fields  map[string]any
			Tensors []struct {
				Name, Type, SHA256 string
				Shape              []int
				Offset, Size       int64
			}
			Differ []string
		}
		Sizes map[string][3]int
	}
	if err := json.Unmarshal(out, &judged); err != nil || len(judged.Files) != len(names) {
		t.Fatalf("%v: %s", err, out)
	}
	for i, name := range names {
		j := judged.Files[i]
		f, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		ours := map[string]any{}
		for _, kv := range f.Metadata {
			ours[kv.Key] = kv.Value
		}
		b, err := json.Marshal(ours)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		for key, want := range fields {
			got := j.Fields[key]
			if x, ok := want.(float64); ok { // JSON of a float32 is shorter than Python's of the same number
				y, _ := got.(float64)
				if float32(x) == float32(y) {
					continue
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s: Python reads %.200v, expected %.200v", filepath.Base(name), key, got, want)
			}
		}
		if len(j.Fields) != len(fields) || len(j.Tensors) != len(f.Tensors) || len(j.Differ) > 0 {
			t.Errorf("%s: Python reads %d fields, %d tensors, and quantises %v otherwise; expected %d, %d and none", filepath.Base(name), len(j.Fields), len(j.Tensors), j.Differ, len(fields), len(f.Tensors))
		}
		for k, u := range j.Tensors {
			v := f.Tensors[k]
			values := make([]float32, v.Len())
			if err := f.ReadFloat32(v.Name, values); err != nil {
				t.Fatal(err)
			}
			raw := make([]byte, 4*len(values))
			if _, err := dtype.Encode(raw, values, dtype.F32); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(raw)
			if u.Name != v.Name || u.Type != v.Type.String() || !slices.Equal(u.Shape, v.Shape) || u.Offset != v.Offset || u.Size != v.Size || u.SHA256 != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: Python reads %+v, expected %+v with values %x", filepath.Base(name), u, v, sum)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range judged.Sizes {
		// Q8_1, which no file has, grew smaller in ggml than in older versions of the package.
		if got := types[Type(want[0])]; name != "Q8_1" && got != (typeInfo{name, want[1], want[2]}) {
			t.Errorf("type %d: found %+v, expected %s with %d bytes for %d elements", want[0], got, name, want[2], want[1])
		}
	}
}
