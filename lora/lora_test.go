package lora

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/safetensors"
)

const golden = "testdata/peft"

// cases are the adapters of testdata/make_peft.py and their base models.
var cases = map[string]string{
	"all-linear": "gpt_bigcode", "patterns": "gpt_bigcode", "regex": "gpt_bigcode", "layers": "gpt_bigcode",
	"conv1d": "gpt2", "multi-head": "gpt_bigcode_mha", "legacy-bin": "gpt_bigcode",
}

func base(t testing.TB, name string) *model.Checkpoint {
	t.Helper()
	m, err := model.Load(t.Context(), filepath.Join(golden, name))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// expected returns PEFT's merged weights, read in the canonical layout through a model folder.
func expected(t *testing.T, name string) *model.Weights {
	t.Helper()
	if name == "legacy-bin" {
		name = "all-linear"
	}
	kind := cases[name]
	dir := t.TempDir()
	config, err := os.ReadFile(filepath.Join(golden, kind, model.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, model.ConfigFile), config, 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := safetensors.Open(filepath.Join(golden, kind, model.SafetensorsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	after, err := safetensors.Open(filepath.Join(golden, name, "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	var ts []safetensors.Tensor
	for _, info := range before.Tensors() {
		src, key := before, info.Name
		if _, ok := after.Lookup("merged." + info.Name); ok {
			src, key = after, "merged."+info.Name
		}
		data, err := src.Float32s(key)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, safetensors.Float32(info.Name, info.Shape, data, dtype.F32))
	}
	f, err := os.Create(filepath.Join(dir, model.SafetensorsFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(f, ts, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return m.Weights
}

func TestMergeEqualsPEFT(t *testing.T) {
	for name, kind := range cases {
		t.Run(name, func(t *testing.T) {
			m := base(t, kind)
			a, err := Load(filepath.Join(golden, name, "adapter"), m.Config)
			if err != nil {
				t.Fatal(err)
			}
			want := expected(t, name)
			changed := 0
			for w := range m.Weights.All() {
				if !slices.Equal(w.Data, want.Data(w.Name)) {
					changed++
				}
			}
			if changed != len(a.Modules) {
				t.Errorf("PEFT changed %d weights, the adapter has %d modules", changed, len(a.Modules))
			}
			if err := a.Merge(m.Weights); err != nil {
				t.Fatal(err)
			}
			for w := range m.Weights.All() {
				for i, v := range w.Data {
					if d := math.Abs(float64(v - want.Data(w.Name)[i])); d > 1e-6 {
						t.Fatalf("%s[%d] is %v, PEFT has %v", w.Name, i, v, want.Data(w.Name)[i])
					}
				}
			}
		})
	}
}

// What is written reads back the same, names the same tensors with the same bytes as PEFT's file, and is the same each time.
func TestSaveEqualsPEFT(t *testing.T) {
	for name, kind := range cases {
		t.Run(name, func(t *testing.T) {
			c := base(t, kind).Config
			a, err := Load(filepath.Join(golden, name, "adapter"), c)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "out")
			for range 2 {
				if err := a.Save(dir); err != nil {
					t.Fatal(err)
				}
				b, err := Load(dir, c)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(a.tensors, b.tensors) || !reflect.DeepEqual(a.Modules, b.Modules) {
					t.Fatalf("read back %+v, expected %+v", b.Modules, a.Modules)
				}
			}
			if name == "legacy-bin" {
				return
			}
			got, err := os.ReadFile(filepath.Join(dir, WeightsFile))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(golden, name, "adapter", WeightsFile))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s differs from PEFT's", WeightsFile)
			}
		})
	}
}

// PEFT loads what is written and computes the same merged weights from it.
func TestPEFTLoads(t *testing.T) {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_PYTHON names no Python with transformers and peft")
	}
	parent := t.TempDir()
	args := []string{"testdata/merge_with_peft.py"}
	for name, kind := range cases {
		a, err := Load(filepath.Join(golden, name, "adapter"), base(t, kind).Config)
		if err != nil {
			t.Fatal(err)
		}
		adapter := filepath.Join(parent, name, "adapter")
		if err := a.Save(adapter); err != nil {
			t.Fatal(err)
		}
		args = append(args, filepath.Join(golden, kind), adapter, filepath.Join(parent, name, "merged"))
	}
	// One process for all: its start takes longer than the rest.
	if out, err := exec.CommandContext(t.Context(), python, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			merged, err := model.Load(t.Context(), filepath.Join(parent, name, "merged"))
			if err != nil {
				t.Fatal(err)
			}
			want := expected(t, name)
			for w := range merged.Weights.All() {
				for i, v := range w.Data {
					if math.Abs(float64(v-want.Data(w.Name)[i])) > 1e-6 {
						t.Fatalf("%s[%d] is %v, expected %v", w.Name, i, v, want.Data(w.Name)[i])
					}
				}
			}
		})
	}
}

func TestTargets(t *testing.T) {
	c := base(t, "gpt_bigcode").Config
	names := func(targets ...string) []string {
		ms, err := Spec{Rank: 2, Alpha: 4, Targets: targets}.Modules(c)
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, m := range ms {
			s = append(s, strings.TrimPrefix(m.Name, "transformer.h."))
		}
		return s
	}
	if got, want := names("c_proj"), []string{"0.attn.c_proj", "0.mlp.c_proj", "1.attn.c_proj", "1.mlp.c_proj"}; !slices.Equal(got, want) {
		t.Errorf("c_proj: %v, expected %v", got, want)
	}
	if got, want := names("mlp.c_proj", "h.1.attn.c_attn"), []string{"0.mlp.c_proj", "1.attn.c_attn", "1.mlp.c_proj"}; !slices.Equal(got, want) {
		t.Errorf("two targets: %v, expected %v", got, want)
	}
	if got := names(AllLinear); len(got) != 8 {
		t.Errorf("all-linear: %v", got)
	}
	_, err := Spec{Rank: 2, Alpha: 4, Targets: []string{"q_proj"}}.Modules(c)
	want := `lora: target "q_proj" matches no linear module of the model, expected all-linear or some of attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, expected %s", err, want)
	}
	// attn matches no whole part of a name.
	if _, err := (Spec{Rank: 2, Alpha: 4, Targets: []string{"attn"}}).Modules(c); err == nil {
		t.Error("the target attn was accepted")
	}
}

func TestScale(t *testing.T) {
	for _, s := range []struct {
		alpha  float64
		rank   int
		rslora bool
		want   float64
	}{{128, 64, false, 2}, {8, 16, false, .5}, {32, 256, true, 2}} {
		if got := scale(s.alpha, s.rank, s.rslora); got != s.want {
			t.Errorf("alpha %v rank %d rslora %v: %v, expected %v", s.alpha, s.rank, s.rslora, got, s.want)
		}
	}
}

func TestInit(t *testing.T) {
	c := base(t, "gpt_bigcode").Config
	spec := Spec{Rank: 256, Alpha: 4, Targets: []string{AllLinear}}
	a, err := New(c, spec, 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range a.Modules {
		bound := 1 / math.Sqrt(float64(m.In))
		var sum, sq float64
		for _, v := range a.Data(m.A()) {
			if math.Abs(float64(v)) > bound {
				t.Fatalf("%s: %v is beyond %v", m.A(), v, bound)
			}
			sum += float64(v)
			sq += float64(v) * float64(v)
		}
		n := float64(len(a.Data(m.A())))
		// A uniform distribution on ±bound has variance bound²/3.
		if math.Abs(sum/n) > .05*bound || math.Abs(sq/n/(bound*bound/3)-1) > .05 {
			t.Errorf("%s: mean %v, mean square %v, expected 0 and %v", m.A(), sum/n, sq/n, bound*bound/3)
		}
		for _, v := range a.Data(m.B()) {
			if v != 0 {
				t.Fatalf("%s: %v, expected 0", m.B(), v)
			}
		}
	}
	if a.NumParams() != 2*256*(16+24+16+16+16+40+40+16) {
		t.Errorf("%d parameters", a.NumParams())
	}
	b, err := New(c, spec, 7)
	if err != nil || !reflect.DeepEqual(a.tensors, b.tensors) {
		t.Errorf("the same seed gives other weights (%v)", err)
	}
	d, err := New(c, spec, 8)
	if err != nil || reflect.DeepEqual(a.tensors, d.tensors) {
		t.Errorf("another seed gives the same weights (%v)", err)
	}
	spec.Init = Gaussian
	g, err := New(c, spec, 7)
	if err != nil {
		t.Fatal(err)
	}
	var sq float64
	for _, v := range g.Data(g.Modules[0].A()) {
		sq += float64(v) * float64(v)
	}
	if std := math.Sqrt(sq / (256 * 16)); math.Abs(std*256-1) > .05 {
		t.Errorf("gaussian: standard deviation %v, expected %v", std, 1./256)
	}
}

// rewrite copies an adapter with its configuration and tensors changed.
func rewrite(t *testing.T, config func(map[string]any), tensors func(map[string]safetensors.Tensor)) string {
	t.Helper()
	src := filepath.Join(golden, "all-linear", "adapter")
	raw, err := os.ReadFile(filepath.Join(src, ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if config != nil {
		config(m)
	}
	dir := t.TempDir()
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ConfigFile), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(src, WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ts := map[string]safetensors.Tensor{}
	for _, info := range f.Tensors() {
		data, err := f.Float32s(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		ts[info.Name] = safetensors.Float32(info.Name, info.Shape, data, dtype.F32)
	}
	if tensors != nil {
		tensors(ts)
	}
	out, err := os.Create(filepath.Join(dir, WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	var list []safetensors.Tensor
	for _, x := range ts {
		list = append(list, x)
	}
	if err := safetensors.Write(out, list, nil); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRefusals(t *testing.T) {
	c := base(t, "gpt_bigcode").Config
	set := func(key string, v any) func(map[string]any) { return func(m map[string]any) { m[key] = v } }
	const q = prefix + "transformer.h.0.attn.c_attn.lora_A.weight"
	for name, test := range map[string]struct {
		config  func(map[string]any)
		tensors func(map[string]safetensors.Tensor)
		want    string
	}{
		"dora":            {set("use_dora", true), nil, ConfigFile + ": use_dora: found true, expected none: this kind of adapter is not supported"},
		"unknown variant": {set("use_zlora", true), nil, ConfigFile + ": use_zlora: found true, expected none: this kind of adapter is not supported"},
		"modules to save": {set("modules_to_save", []string{"wte"}), nil, ConfigFile + `: modules_to_save: found ["wte"], expected none: this kind of adapter is not supported`},
		"bias":            {set("bias", "all"), nil, ConfigFile + `: bias: found "all", expected "none": this kind of adapter is not supported`},
		"pissa":           {set("init_lora_weights", "pissa"), nil, ConfigFile + `: init_lora_weights: found "pissa", expected true, false, "gaussian" or "eva" (others change the base model's weights): this kind of adapter is not supported`},
		"ia3":             {set("peft_type", "IA3"), nil, ConfigFile + `: peft_type: found "IA3", expected "LORA"`},
		"no targets":      {set("target_modules", nil), nil, ConfigFile + `: target_modules: missing, expected a list of modules, a regular expression or "all-linear"`},
		"bad regex":       {set("target_modules", "("), nil, ConfigFile + ": target_modules: error parsing regexp"},
		"rank type":       {set("r", "four"), nil, ConfigFile + `: r: found "four", expected a value of type int`},
		"rank zero":       {set("r", 0), nil, ConfigFile + ": r: found 0, expected at least 1"},
		"rank pattern":    {set("rank_pattern", map[string]any{"c_fc": 1.5}), nil, ConfigFile + ": rank_pattern: found 1.5, expected whole numbers of at least 1"},
		"other rank":      {set("r", 5), nil, WeightsFile + ": tensor " + q + ": shape [4 16], expected [5 16]"},
		"other targets":   {set("target_modules", []string{"q_proj"}), nil, WeightsFile + ": tensor " + q + ": found, but target_modules and the model have no such module: is this the adapter of another model?"},
		"missing":         {nil, func(ts map[string]safetensors.Tensor) { delete(ts, q) }, WeightsFile + ": tensor " + q + ": missing, expected shape [4 16]"},
		"embedding": {nil, func(ts map[string]safetensors.Tensor) {
			ts["e"] = safetensors.Float32(prefix+"transformer.wte.lora_embedding_A", []int{1}, []float32{1}, dtype.F32)
		}, WeightsFile + ": tensor " + prefix + "transformer.wte.lora_embedding_A: found, but target_modules and the model have no such module: is this the adapter of another model?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(rewrite(t, test.config, test.tensors), c)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error\n%v\nexpected\n%v", err, test.want)
			}
		})
	}
	t.Run("another model", func(t *testing.T) {
		_, err := Load(filepath.Join(golden, "conv1d", "adapter"), c)
		want := WeightsFile + ": tensor " + prefix + "transformer.h.0.attn.c_attn.lora_B.weight: shape [48 3], expected [24 3]: is this the adapter of another model?"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, expected %s", err, want)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if _, err := Load(filepath.Join(t.TempDir(), "none"), c); err == nil || !strings.Contains(err.Error(), "none/adapter_config.json: no such file") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no weights", func(t *testing.T) {
		dir := rewrite(t, nil, nil)
		if err := os.Remove(filepath.Join(dir, WeightsFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, c); err == nil || !strings.Contains(err.Error(), "found neither adapter_model.safetensors nor adapter_model.bin") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("write over something else", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		a, err := New(c, Spec{Rank: 1, Alpha: 1, Targets: []string{AllLinear}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Save(dir); err == nil || !strings.Contains(err.Error(), "expected an adapter or no folder") {
			t.Errorf("error %v", err)
		}
	})
}

// SantaCoder's first layout: q_attn and kv_attn become one adapter of c_attn that adds the same matrix.
func TestSplitAttention(t *testing.T) {
	c := base(t, "gpt_bigcode").Config
	for _, present := range [][]string{{"q_attn", "kv_attn"}, {"q_attn"}, {"kv_attn"}} {
		want := make([][]float64, 24)
		for i := range want {
			want[i] = make([]float64, 16)
		}
		value := func(i int) float32 { return float32((i*37)%11-5) / 4 }
		dir := rewrite(t, func(m map[string]any) {
			m["target_modules"] = present
			m["r"], m["lora_alpha"] = 2, 3
			m["alpha_pattern"] = map[string]any{"kv_attn": 6}
		}, func(ts map[string]safetensors.Tensor) {
			clear(ts)
			for layer := range 2 {
				for _, p := range present {
					rows, first, s := 16, 0, 1.5
					if p == "kv_attn" {
						rows, first, s = 8, 16, 3
					}
					a, b := make([]float32, 2*16), make([]float32, rows*2)
					for i := range a {
						a[i] = value(i + rows)
					}
					for i := range b {
						b[i] = value(3*i + layer)
					}
					name := prefix + "transformer.h." + string(rune('0'+layer)) + ".attn." + p
					ts[name+"a"] = safetensors.Float32(name+".lora_A.weight", []int{2, 16}, a, dtype.F32)
					ts[name+"b"] = safetensors.Float32(name+".lora_B.weight", []int{rows, 2}, b, dtype.F32)
					if layer == 1 {
						for o := range rows {
							for i := range 16 {
								want[first+o][i] = s * (float64(b[o*2])*float64(a[i]) + float64(b[o*2+1])*float64(a[16+i]))
							}
						}
					}
				}
			}
		})
		a, err := Load(dir, c)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Modules) != 2 || a.Modules[1].Name != "transformer.h.1.attn.c_attn" || a.Modules[1].Rank != 2*len(present) {
			t.Fatalf("%v: %+v", present, a.Modules)
		}
		w := model.NewWeights(c)
		if err := a.Merge(w); err != nil {
			t.Fatal(err)
		}
		for i, v := range w.Data("transformer.h.1.attn.c_attn.weight") {
			if math.Abs(float64(v)-want[i/16][i%16]) > 1e-6 {
				t.Fatalf("%v: element %d is %v, expected %v", present, i, v, want[i/16][i%16])
			}
		}
	}
	dir := rewrite(t, nil, func(ts map[string]safetensors.Tensor) {
		ts["q"] = safetensors.Float32(prefix+"transformer.h.0.attn.q_attn.lora_A.weight", []int{1}, []float32{1}, dtype.F32)
	})
	if _, err := Load(dir, base(t, "gpt2").Config); err == nil || !strings.Contains(err.Error(), "the model has no module q_attn or kv_attn") {
		t.Errorf("q_attn for gpt2: %v", err)
	}
}

// An alpha of 0 turns one half of a split attention off; the other keeps its scale.
func TestSplitAttentionWithAZeroScale(t *testing.T) {
	half := func(out int, scale float64) *factors {
		return &factors{Module{In: 2, Out: out, Rank: 1, Scale: scale}, []float32{1, 2}, slices.Repeat([]float32{4}, out)}
	}
	for _, c := range []struct {
		q, kv, want float64
		b           []float32
	}{
		{1.5, 0, 1.5, []float32{4, 0, 0, 0}},
		{0, 1.5, 1.5, []float32{0, 0, 0, 4}},
		{0, 0, 0, []float32{4, 0, 0, 4}},
	} {
		f := fuse(linear{"c_attn", 2, 2}, half(1, c.q), half(1, c.kv))
		if f.module.Scale != c.want || !slices.Equal(f.b, c.b) {
			t.Errorf("scales %v and %v: scale %v, B %v, expected %v, %v", c.q, c.kv, f.module.Scale, f.b, c.want, c.b)
		}
	}
}

func FuzzConfig(f *testing.F) {
	raw, err := os.ReadFile(filepath.Join(golden, "patterns", "adapter", ConfigFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"peft_type":"LORA","target_modules":"a(b","rank_pattern":{"[":1}}`))
	f.Add([]byte(`null`))
	c := base(f, "gpt_bigcode").Config
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg, err := parseConfig(b)
		if err != nil {
			return
		}
		for _, l := range linears(c) {
			cfg.adapts(l.name)
		}
	})
}
