package model

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"autodev/internal/sharedtest"
	"autodev/model/dtype"

	"pgregory.net/rapid"
)

// contents reads all files of a folder.
func contents(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[p], err = os.ReadFile(filepath.Join(dir, p))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSaveLoadIsExact(t *testing.T) {
	for _, name := range fixtures {
		for _, o := range []SaveOptions{{}, {MaxShardBytes: 3000}, {DType: dtype.BF16}, {DType: dtype.F16, MaxShardBytes: 1}, {Layout: GPTBigCode}, {Layout: GPT2}} {
			ck := mustLoad(t, filepath.Join("testdata", name))
			dir := filepath.Join(t.TempDir(), "out")
			err := Save(context.Background(), dir, ck.Config, ck.Weights, o)
			if o.Layout == GPT2 && ck.Config.KVHeads == 1 {
				want := "layout gpt2: a model of 4 heads with 1 key and value head: gpt2 has no multi-query attention, expected gpt_bigcode"
				if err == nil || !strings.HasSuffix(err.Error(), want) {
					t.Errorf("error %v, expected %s", err, want)
				}
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a folder was left (%v)", err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s %+v: %v", name, o, err)
			}
			got := mustLoad(t, dir)
			want := ck.Weights.Clone()
			for x := range want.All() {
				for i, f := range x.Data {
					switch o.DType {
					case dtype.F16:
						x.Data[i] = dtype.FromF16(dtype.ToF16(f))
					case dtype.BF16:
						x.Data[i] = dtype.FromBF16(dtype.ToBF16(f))
					}
				}
			}
			sameWeights(t, got.Weights, want)
			if o.Layout != "" && got.Config.Architecture != o.Layout {
				t.Errorf("%s: layout %s, expected %s", name, got.Config.Architecture, o.Layout)
			}
			if _, ok := contents(t, dir)[SafetensorsIndex]; ok != (o.MaxShardBytes > 0) {
				t.Errorf("%s %+v: index %v", name, o, ok)
			}
		}
	}
}

// The written file has the very bytes that transformers wrote.
func TestSaveEqualsTransformersBytes(t *testing.T) {
	for _, dir := range []string{filepath.Join("testdata", fixtures[0]), filepath.Join("testdata", fixtures[1]), sharedtest.Path(t, "golden/tiny-gptbigcode-mqa"), sharedtest.Path(t, "golden/tiny-gpt2")} {
		ck := mustLoad(t, dir)
		out := filepath.Join(t.TempDir(), "out")
		if err := Save(context.Background(), out, ck.Config, ck.Weights, SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(contents(t, out)[SafetensorsFile], contents(t, dir)[SafetensorsFile]) {
			t.Errorf("%s: the weight file differs from the one transformers wrote", dir)
		}
	}
}

func TestSaveIsDeterministic(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := tiny()
		c.Layers = rapid.IntRange(1, 3).Draw(r, "layers")
		c.Heads = rapid.SampledFrom([]int{1, 2, 4}).Draw(r, "heads")
		if rapid.Bool().Draw(r, "mha") {
			c.KVHeads = c.Heads
		}
		c.Tied = rapid.Bool().Draw(r, "tied")
		c.Vocab = rapid.IntRange(1, c.VocabSize).Draw(r, "vocab")
		w := Init(c, rapid.Uint64().Draw(r, "seed"))
		o := SaveOptions{MaxShardBytes: rapid.Int64Range(0, 2000).Draw(r, "shard")}
		a, b := t.TempDir(), t.TempDir()
		for _, dir := range []string{a, b} {
			if err := SaveInto(context.Background(), dir, c, w, o); err != nil {
				r.Fatal(err)
			}
		}
		if !maps.EqualFunc(contents(t, a), contents(t, b), bytes.Equal) {
			r.Fatal("two folders of one model differ")
		}
		sameWeights(t, mustLoad(t, a).Weights, w)
	})
}

func TestSavedConfig(t *testing.T) {
	ck := mustLoad(t, "testdata/bigcode-padded-bin")
	dir := filepath.Join(t.TempDir(), "out")
	assets := fstest.MapFS{"tokenizer.json": {Data: []byte("{}")}, "README.md": {Data: []byte("no")}}
	if err := Save(context.Background(), dir, ck.Config, ck.Weights, SaveOptions{Assets: assets}); err != nil {
		t.Fatal(err)
	}
	files := contents(t, dir)
	if got, want := slices.Sorted(maps.Keys(files)), []string{ConfigFile, generationFile, SafetensorsFile, "tokenizer.json"}; !slices.Equal(got, want) {
		t.Errorf("files %v, expected %v", got, want)
	}
	var m map[string]any
	if err := json.Unmarshal(files[ConfigFile], &m); err != nil {
		t.Fatal(err)
	}
	if m["use_cache"] != true || m["attn_pdrop"] != .2 || m["vocab_size"] != 41. || m["a_field_of_a_later_version"].(map[string]any)["kept"] != true {
		t.Errorf("config %s", files[ConfigFile])
	}
	if want := "{\n  \"_from_model_config\": true,\n  \"bos_token_id\": 0,\n  \"eos_token_id\": 0\n}\n"; string(files[generationFile]) != want {
		t.Errorf("generation config %s, expected %s", files[generationFile], want)
	}
	// A generation_config.json that is there is kept, and so is a chat template.
	assets[generationFile] = &fstest.MapFile{Data: []byte(`{"a":1}`)}
	assets[chatTemplateFile] = &fstest.MapFile{Data: []byte("{{ messages }}")}
	if err := Save(context.Background(), dir, ck.Config, ck.Weights, SaveOptions{Assets: assets}); err != nil {
		t.Fatal(err)
	}
	if got := string(contents(t, dir)[generationFile]); got != `{"a":1}` {
		t.Errorf("generation config %s", got)
	}
	if got := string(contents(t, dir)[chatTemplateFile]); got != "{{ messages }}" {
		t.Errorf("chat template %q", got)
	}
}

func TestSaveErrors(t *testing.T) {
	c := tiny()
	w := Init(c, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	parent := t.TempDir()
	foreign := filepath.Join(parent, "foreign")
	if err := os.MkdirAll(filepath.Join(foreign, "thesis"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, ConfigFile), []byte(`{"port": 8080}`), 0o644); err != nil {
		t.Fatal(err)
	}
	big := w.Clone()
	big.Data("transformer.h.1.mlp.c_fc.weight")[7] = 70000
	less := Init(c, 1)
	delete(less.byName, "transformer.ln_f.bias")
	wrong := c
	wrong.Embed = 10
	for _, x := range []struct {
		name string
		dir  string
		ctx  context.Context
		c    Config
		w    *Weights
		o    SaveOptions
		want string
	}{
		{"foreign folder", foreign, context.Background(), c, w, SaveOptions{}, "save DIR/foreign: the folder is there, expected none or a model's that may be replaced: DIR/foreign/config.json: no such file or directory"},
		{"folder of another program", other, context.Background(), c, w, SaveOptions{}, "expected none or a model's that may be replaced: " + filepath.ToSlash(other) + "/config.json: model_type: missing, expected gpt_bigcode or gpt2"},
		{"cancelled", "a", ctx, c, w, SaveOptions{}, "context canceled"},
		{"overflow", "a", context.Background(), c, big, SaveOptions{DType: dtype.F16}, "tensor transformer.h.1.mlp.c_fc.weight: elements from 0: element 7: 70000 is beyond F16, expected at most 65504"},
		{"missing tensor", "a", context.Background(), c, less, SaveOptions{}, "tensor transformer.ln_f.bias: missing"},
		{"other config", "a", context.Background(), wrong, w, SaveOptions{}, "tensor transformer.wte.weight: shape [11 8], expected [11 10]"},
		{"element type", "a", context.Background(), c, w, SaveOptions{DType: dtype.I8}, "element type I8, expected F32, F16 or BF16"},
		{"layout", "a", context.Background(), c, w, SaveOptions{Layout: "llama"}, `layout "llama", expected gpt_bigcode or gpt2`},
		{"shards", "a", context.Background(), c, w, SaveOptions{MaxShardBytes: -1}, "shards of -1 bytes, expected at least 1"},
		{"assets", "a", context.Background(), c, w, SaveOptions{Assets: brokenFS{}}, "copy tokenizer.json: disk on fire"},
	} {
		dir := x.dir
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(parent, dir)
		}
		err := Save(x.ctx, dir, x.c, x.w, x.o)
		if err == nil || !strings.HasSuffix(strings.ReplaceAll(err.Error(), parent, "DIR"), x.want) {
			t.Errorf("%s: error\n  %v\nexpected it to end\n  %s", x.name, err, x.want)
		}
	}
	if got := slices.Collect(maps.Keys(contents(t, parent))); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	if _, err := os.Stat(filepath.Join(foreign, "thesis")); err != nil {
		t.Errorf("the foreign folder was changed: %v", err)
	}
}

type brokenFS struct{}

func (brokenFS) Open(string) (fs.File, error) { return nil, errors.New("disk on fire") }

func TestInitIsKeyedByNameAndElement(t *testing.T) {
	c := tiny()
	a, same, other := Init(c, 1), Init(c, 1), Init(c, 2)
	sameWeights(t, a, same)
	if slices.Equal(a.Data(wteName), other.Data(wteName)) {
		t.Error("two seeds give the same table")
	}
	// More layers leave the others' values alone but for the residual scale, and a prefix is a prefix.
	deep := c
	deep.Layers, deep.VocabSize = 3, 15
	d := Init(deep, 1)
	if n := len(a.Data(wteName)); !slices.Equal(d.Data(wteName)[:n], a.Data(wteName)) {
		t.Error("the table's first rows depend on its size")
	}
	if !slices.Equal(d.Data("transformer.h.1.mlp.c_fc.weight"), a.Data("transformer.h.1.mlp.c_fc.weight")) {
		t.Error("a matrix depends on the number of layers")
	}
	if slices.Equal(a.Data("transformer.h.0.mlp.c_fc.weight"), a.Data("transformer.h.1.mlp.c_fc.weight")) {
		t.Error("two layers have the same matrix")
	}
}

func TestInitMoments(t *testing.T) {
	c := tiny()
	c.VocabSize, c.Embed = 1000, 64
	w := Init(c, 0)
	for _, p := range c.Params() {
		var sum, square, fourth float64
		data := w.Data(p.Name)
		for _, f := range data {
			x := float64(f)
			sum, square, fourth = sum+x, square+x*x, fourth+x*x*x*x
		}
		n := float64(len(data))
		if p.Std == 0 {
			if sum != n*float64(p.Fill) {
				t.Errorf("%s: sum %v, expected all %v", p.Name, sum, p.Fill)
			}
			continue
		}
		if math.Abs(sum/n) > 5*p.Std/math.Sqrt(n) || math.Abs(math.Sqrt(square/n)/p.Std-1) > 5/math.Sqrt(2*n) {
			t.Errorf("%s: mean %v, deviation %v, expected 0, %v", p.Name, sum/n, math.Sqrt(square/n), p.Std)
		}
		if k := fourth * n / square / square; p.Name == wteName && math.Abs(k-3) > .1 {
			t.Errorf("%s: kurtosis %v, expected 3", p.Name, k)
		}
	}
}

// TestTransformersLoadsWhatWeWrite needs Python with torch and transformers: AUTODEV_PYTHON names the interpreter.
func TestTransformersLoadsWhatWeWrite(t *testing.T) {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_PYTHON names no Python with torch and transformers, which are the judge here")
	}
	mqa, gpt2 := sharedtest.Path(t, "golden/tiny-gptbigcode-mqa"), sharedtest.Path(t, "golden/tiny-gpt2")
	cases := []struct {
		name, dir string
		o         SaveOptions
		class     string
		tolerance float64 // 0 where transformers computes both folders by the same operations
	}{
		{"mqa", mqa, SaveOptions{}, "GPTBigCodeForCausalLM", 0},
		{"mqa in shards", mqa, SaveOptions{MaxShardBytes: 40000}, "GPTBigCodeForCausalLM", 0},
		{"mqa bf16", mqa, SaveOptions{DType: dtype.BF16}, "GPTBigCodeForCausalLM", 2e-2},
		{"mha untied", filepath.Join("testdata", fixtures[0]), SaveOptions{}, "GPTBigCodeForCausalLM", 0},
		{"mha as gpt2", filepath.Join("testdata", fixtures[0]), SaveOptions{Layout: GPT2}, "GPT2LMHeadModel", 2e-5},
		{"bin", filepath.Join("testdata", fixtures[2]), SaveOptions{}, "GPTBigCodeForCausalLM", 2e-5},
		{"gpt2", gpt2, SaveOptions{}, "GPT2LMHeadModel", 0},
		{"gpt2 as gpt_bigcode", gpt2, SaveOptions{Layout: GPTBigCode}, "GPTBigCodeForCausalLM", 2e-5},
		{"unscaled gpt2 as gpt_bigcode in shards", filepath.Join("testdata", fixtures[1]), SaveOptions{Layout: GPTBigCode, MaxShardBytes: 5000}, "GPTBigCodeForCausalLM", 2e-5},
	}
	args := []string{"testdata/compare.py"}
	parent := t.TempDir()
	for _, c := range cases {
		ck := mustLoad(t, c.dir)
		dir := filepath.Join(parent, strings.ReplaceAll(c.name, " ", "-"))
		if err := Save(context.Background(), dir, ck.Config, ck.Weights, c.o); err != nil {
			t.Fatal(err)
		}
		args = append(args, c.dir, dir)
	}
	cmd := exec.Command(python, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	var all []struct {
		Class      string
		Difference float64
		Problems   map[string]any
		UseCache   bool `json:"use_cache"`
	}
	if err := json.Unmarshal(out, &all); err != nil || len(all) != len(cases) {
		t.Fatalf("%v: %s", err, out)
	}
	for i, c := range cases {
		if got := all[i]; got.Class != c.class || !(got.Difference <= c.tolerance) || len(got.Problems) > 0 || !got.UseCache {
			t.Errorf("%s: transformers says %+v, expected class %s and a difference of at most %v", c.name, got, c.class, c.tolerance)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	c := tiny()
	c.Embed, c.Inner, c.Heads, c.VocabSize, c.Vocab, c.Layers = 512, 2048, 8, 8192, 8192, 8
	w := Init(c, 0)
	for _, d := range []dtype.DType{dtype.F32, dtype.BF16} {
		b.Run(string(d), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "m")
			if err := Save(context.Background(), dir, c, w, SaveOptions{DType: d}); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(4 * c.NumParams())
			for b.Loop() {
				mustLoad(b, dir)
			}
		})
	}
}
