package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"autodev/compute"
	"autodev/internal/sharedtest"
	"autodev/model/dtype"
	"autodev/model/safetensors"
)

func mustLoad(t testing.TB, dir string) *Checkpoint {
	t.Helper()
	c, err := Load(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sameWeights compares bit by bit.
func sameWeights(t testing.TB, got, want *Weights) {
	t.Helper()
	if got.Len() != want.Len() {
		t.Fatalf("%d tensors, expected %d", got.Len(), want.Len())
	}
	for w := range want.All() {
		g := got.Get(w.Name)
		if g == nil || !slices.Equal(g.Shape, w.Shape) {
			t.Fatalf("%s: %v, expected shape %v", w.Name, g, w.Shape)
		}
		for i := range w.Data {
			if math.Float32bits(g.Data[i]) != math.Float32bits(w.Data[i]) {
				t.Fatalf("%s element %d: %v, expected %v", w.Name, i, g.Data[i], w.Data[i])
			}
		}
	}
}

func TestGoldenVariantsAreOneModel(t *testing.T) {
	want := mustLoad(t, sharedtest.Path(t, "golden/tiny-gptbigcode-mqa"))
	variants := sharedtest.Path(t, "golden/tiny-gptbigcode-mqa-variants")
	for _, name := range []string{"sharded", "santacoder-gpt2-layout"} {
		t.Run(name, func(t *testing.T) {
			got := mustLoad(t, filepath.Join(variants, name))
			sameWeights(t, got.Weights, want.Weights)
			c := got.Config
			if c.Architecture != GPTBigCode || c.KVHeads != 1 || c.Activation != compute.GELUTanh || c.HeadDim() != 12 || !c.Tied || c.AttentionScale() != 1/math.Sqrt(12) {
				t.Errorf("config %+v", c)
			}
		})
	}
	t.Run("bin", func(t *testing.T) {
		dir := t.TempDir()
		for from, to := range map[string]string{filepath.Join(variants, "bin", TorchFile): TorchFile, filepath.Join(variants, "sharded", ConfigFile): ConfigFile} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, to), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		sameWeights(t, mustLoad(t, dir).Weights, want.Weights)
	})
	t.Run("f16", func(t *testing.T) {
		got := mustLoad(t, filepath.Join(variants, "f16"))
		rounded := want.Weights.Clone()
		for x := range rounded.All() {
			for i, f := range x.Data {
				x.Data[i] = dtype.FromF16(dtype.ToF16(f))
			}
		}
		sameWeights(t, got.Weights, rounded)
		if s := got.Weights.Get(wteName).Source; s != dtype.F16 {
			t.Errorf("source type %s, expected F16", s)
		}
	})
}

func TestConfigOfTheBin(t *testing.T) {
	c := mustLoad(t, "testdata/bigcode-padded-bin").Config
	if c.AttentionDropout != .2 || c.EmbeddingDropout != .3 || c.ResidualDropout != .4 || c.Inner != 40 || c.BOS != 0 || !slices.Equal(c.EOS, []int{0}) || c.Vocab != 41 {
		t.Errorf("config %+v", c)
	}
	if c, err := c.WithVocab(37); err != nil || c.Vocab != 37 || c.VocabSize != 41 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := c.WithVocab(42); err == nil || err.Error() != "tokenizer of 42 tokens, but the model's vocab_size is 41: expected 1 to 41 tokens (is it another model's tokenizer?)" {
		t.Errorf("error %v", err)
	}
}

// rewriteTensors changes the tensors of a model.safetensors and writes it again.
func rewriteTensors(t testing.TB, file string, change func([]safetensors.Tensor) []safetensors.Tensor) {
	t.Helper()
	f, err := safetensors.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	var ts []safetensors.Tensor
	for _, i := range f.Tensors() {
		b, err := f.Bytes(i.Name)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, safetensors.Bytes(i.Name, i.DType, i.Shape, b))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := safetensors.Write(&out, change(ts), f.Metadata()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func edit(t testing.TB, file string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestNamesWithoutPrefix(t *testing.T) {
	dir := copyFixture(t, "gpt2-relu-unscaled-untied")
	want := mustLoad(t, dir)
	rewriteTensors(t, filepath.Join(dir, SafetensorsFile), func(ts []safetensors.Tensor) []safetensors.Tensor {
		for i := range ts {
			ts[i].Name = strings.TrimPrefix(ts[i].Name, "transformer.")
		}
		return ts
	})
	sameWeights(t, mustLoad(t, dir).Weights, want.Weights)
}

// A tied pair may be saved under the head's name only.
func TestTiedTableUnderTheHeadsName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	c := tiny()
	want := Init(c, 3)
	if err := Save(context.Background(), dir, c, want, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	rewriteTensors(t, filepath.Join(dir, SafetensorsFile), func(ts []safetensors.Tensor) []safetensors.Tensor {
		for i := range ts {
			if ts[i].Name == wteName {
				ts[i].Name = headName
			}
		}
		return ts
	})
	sameWeights(t, mustLoad(t, dir).Weights, want)
}

func TestBadFolders(t *testing.T) {
	find := func(ts []safetensors.Tensor, name string) int {
		return slices.IndexFunc(ts, func(x safetensors.Tensor) bool { return x.Name == name })
	}
	weights := func(change func([]safetensors.Tensor) []safetensors.Tensor) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { rewriteTensors(t, filepath.Join(dir, SafetensorsFile), change) }
	}
	config := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, ConfigFile), func(b []byte) []byte {
				out := bytes.Replace(b, []byte(from), []byte(to), 1)
				if bytes.Equal(out, b) {
					t.Fatalf("no %s in config.json", from)
				}
				return out
			})
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	index := func(weightMap map[string]string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := json.Marshal(map[string]any{"weight_map": weightMap})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, SafetensorsIndex), b, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, SafetensorsFile), filepath.Join(dir, "model-00001-of-00001.safetensors")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name, fixture string
		damage        func(t *testing.T, dir string)
		want          string // DIR stands for the folder
	}{
		{"no config", fixtures[0], remove(ConfigFile), "DIR/config.json: no such file or directory"},
		{"no weights", fixtures[0], remove(SafetensorsFile), "DIR: no weights, expected model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json"},
		{"unknown architecture", fixtures[0], config(`"gpt_bigcode"`, `"llama"`), `DIR/config.json: model_type: "llama", expected gpt_bigcode or gpt2`},
		{"unknown activation", fixtures[0], config(`"gelu"`, `"quick_gelu"`), `DIR/config.json: activation_function: "quick_gelu", expected gelu_new, gelu_fast, gelu_pytorch_tanh, gelu or relu`},
		{"heads", fixtures[0], config(`"n_head": 4`, `"n_head": 5`), "DIR/config.json: n_head: 5, expected a divisor of n_embd 16"},
		{"more layers", fixtures[0], config(`"n_layer": 2`, `"n_layer": 3`), "DIR/model.safetensors: tensor transformer.h.2.ln_1.weight: missing, expected shape [16]"},
		{"fewer layers", fixtures[0], config(`"n_layer": 2`, `"n_layer": 1`), "DIR/model.safetensors: tensor transformer.h.1.attn.c_attn.bias: shape [48], expected no such tensor in a gpt_bigcode model of 1 layers"},
		{"vocabulary", fixtures[0], config(`"vocab_size": 41`, `"vocab_size": 16777216`), "DIR/model.safetensors: tensor transformer.wte.weight: shape [41 16], expected [16777216 16]"},
		{"tied although the head differs in shape", fixtures[2], config(`"vocab_size": 41`, `"vocab_size": 42`), "DIR/pytorch_model.bin: tensor lm_head.weight: shape [41 16], expected [42 16]"},
		{"multi-query that is none", fixtures[0], config(`"multi_query": false`, `"multi_query": true`), "DIR/config.json: num_key_value_heads: 4, expected 1"},
		{"missing tensor", fixtures[0], weights(func(ts []safetensors.Tensor) []safetensors.Tensor {
			i := find(ts, "transformer.h.1.mlp.c_fc.bias")
			return slices.Delete(ts, i, i+1)
		}), "DIR/model.safetensors: tensor transformer.h.1.mlp.c_fc.bias: missing, expected shape [40]"},
		{"missing head", fixtures[0], weights(func(ts []safetensors.Tensor) []safetensors.Tensor {
			i := find(ts, headName)
			return slices.Delete(ts, i, i+1)
		}), "DIR/model.safetensors: tensor lm_head.weight: missing, expected shape [41 16]"},
		{"transposed tensor", fixtures[1], weights(func(ts []safetensors.Tensor) []safetensors.Tensor {
			ts[find(ts, "transformer.h.0.mlp.c_fc.weight")].Shape = []int{40, 16}
			return ts
		}), "DIR/model.safetensors: tensor transformer.h.0.mlp.c_fc.weight: shape [40 16], expected [16 40]"},
		{"integer tensor", fixtures[0], weights(func(ts []safetensors.Tensor) []safetensors.Tensor {
			ts[find(ts, "transformer.ln_f.bias")].DType = dtype.I32
			return ts
		}), "DIR/model.safetensors: tensor transformer.ln_f.bias: element type I32, expected one of F64 F32 F16 BF16"},
		{"foreign tensor", fixtures[0], weights(func(ts []safetensors.Tensor) []safetensors.Tensor {
			return append(ts, safetensors.Float32("v_head.weight", []int{1}, []float32{1}, dtype.F32))
		}), "DIR/model.safetensors: tensor v_head.weight: shape [1], expected no such tensor in a gpt_bigcode model of 2 layers"},
		{"twice", fixtures[0], weights(func(ts []safetensors.Tensor) []safetensors.Tensor {
			return append(ts, safetensors.Float32("ln_f.bias", []int{16}, make([]float32, 16), dtype.F32))
		}), "DIR/model.safetensors: tensor transformer.ln_f.bias: also in DIR/model.safetensors as ln_f.bias, expected once"},
		{"truncated", fixtures[0], func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, SafetensorsFile), func(b []byte) []byte { return b[:len(b)-1] })
		}, "DIR/model.safetensors: truncated: 29455 bytes, but tensor transformer.wte.weight ends at 29456"},
		{"truncated bin", fixtures[2], func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, TorchFile), func(b []byte) []byte { return b[:len(b)/2] })
		}, "DIR/pytorch_model.bin: truncated, or no file of torch.save: zip: not a valid zip file"},
		{"empty index", fixtures[0], index(nil), "DIR/model.safetensors.index.json: weight_map: missing or empty, expected the file of each tensor"},
		{"missing shard", fixtures[0], index(map[string]string{wteName: "model-00002-of-00002.safetensors"}), "DIR/model-00002-of-00002.safetensors: no such file or directory"},
		{"shard outside", fixtures[0], index(map[string]string{wteName: "../x.safetensors"}), `DIR/model.safetensors.index.json: weight_map: file "../x.safetensors", expected the name of a .safetensors file in this folder`},
		{"tensor not in its shard", fixtures[0], index(map[string]string{"transformer.h.7.ln_1.bias": "model-00001-of-00001.safetensors"}), "DIR/model-00001-of-00001.safetensors: tensor transformer.h.7.ln_1.bias: missing, expected as model.safetensors.index.json says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyFixture(t, c.fixture)
			c.damage(t, dir)
			_, err := Load(context.Background(), dir)
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != c.want {
				t.Errorf("error\n  %s\nexpected\n  %s", got, c.want)
			}
		})
	}
	t.Run("no folder", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "none")
		_, err := Load(context.Background(), dir)
		if !errors.Is(err, fs.ErrNotExist) || err.Error() != "model "+dir+": no such file or directory" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		_, err := Load(context.Background(), "testdata/make.py")
		if err == nil || err.Error() != "model testdata/make.py: a file, expected a folder with config.json" {
			t.Errorf("error %v", err)
		}
	})
}

// Many tensors of a small torch file may lie on one storage: the file must not decide how much memory is used.
func TestSmallFileOfAHugeModel(t *testing.T) {
	c := tiny()
	c.Layers = 1000
	dir := filepath.Join(t.TempDir(), "m")
	if err := Save(context.Background(), dir, tiny(), Init(tiny(), 0), SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shared := f.tensors["transformer.h.0.mlp.c_fc.weight"]
	c.layout = f.Config.layout
	f.Config, f.plan = c, nil
	for p := range c.params() {
		s := shared
		s.shape = p.Shape
		f.tensors[p.Name] = s
	}
	if err := f.match(); err == nil || !strings.Contains(err.Error(), "parameters in") {
		t.Errorf("error %v", err)
	}
}

func TestCancelledLoad(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Load(ctx, "testdata/bigcode-mha-erf-untied"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestLoadFS(t *testing.T) {
	files := fstest.MapFS{}
	for _, name := range []string{ConfigFile, SafetensorsFile} {
		b, err := os.ReadFile(filepath.Join("testdata", fixtures[0], name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: b}
	}
	for name, fsys := range map[string]fs.FS{"with ReadAt": files, "without": plainFS{files}} {
		got, err := LoadFS(context.Background(), fsys, "embedded")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sameWeights(t, got.Weights, mustLoad(t, filepath.Join("testdata", fixtures[0])).Weights)
	}
	delete(files, SafetensorsFile)
	if _, err := LoadFS(context.Background(), files, "embedded"); err == nil || !strings.HasPrefix(err.Error(), "embedded: no weights") {
		t.Errorf("error %v", err)
	}
}

// plainFS hides everything of its files but fs.File.
type plainFS struct{ fs.FS }

func (p plainFS) Open(name string) (fs.File, error) {
	f, err := p.FS.Open(name)
	return struct{ fs.File }{f}, err
}
