package packed

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/model"
)

// config is a model whose float32 parameters have odd sizes.
func config() model.Config {
	return model.Config{
		Architecture: model.GPTBigCode, VocabSize: 11, Vocab: 11, Positions: 5, Embed: 6, Layers: 1, Heads: 2, KVHeads: 1, Inner: 9,
		Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.2, BOS: 0, EOS: []int{0},
	}
}

// entries keeps matrices in two parts of odd sizes.
func entries(c model.Config) []Entry {
	var matrices, plain []Entry
	for _, p := range c.Params() {
		if p.Kind != model.Matrix {
			plain = append(plain, Entry{Name: p.Name, Format: Float32, Shape: p.Shape})
			continue
		}
		matrices = append(matrices, Entry{Name: p.Name, Format: "odd", Shape: p.Shape, Parts: []Part{{"a", int64(p.Len()) + 3}, {"b", 0}, {"c", 64}}})
	}
	return append(matrices, plain...)
}

// part returns the bytes written for a part.
func part(name string, p Part) []byte {
	return bytes.Repeat([]byte{name[len(name)-8] + p.Name[0]}, int(p.Size))
}

func fill(c model.Config, w *model.Weights) func(*Writer) error {
	return func(out *Writer) error {
		for _, e := range entries(c) {
			if e.Format == Float32 {
				if err := out.Float32(e.Name, w.Data(e.Name)); err != nil {
					return err
				}
				continue
			}
			var parts [][]byte
			for _, p := range e.Parts {
				parts = append(parts, part(e.Name, p))
			}
			if err := out.Bytes(e.Name, parts...); err != nil {
				return err
			}
		}
		return nil
	}
}

func create(t testing.TB) string {
	t.Helper()
	c := config()
	dir := filepath.Join(t.TempDir(), "packed")
	if err := Create(context.Background(), dir, c, &Quantization{Weights: "odd", Group: 7, Bits: 8.5}, entries(c), nil, fill(c, model.Init(c, 1))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRoundTrip(t *testing.T) {
	dir := create(t)
	if !Is(os.DirFS(dir)) {
		t.Error("a packed folder is not taken for one")
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := config()
	if f.Config.NumParams() != c.NumParams() || f.Quantization.Group != 7 || f.Quantization.Bits != 8.5 || f.Quantization.Weights != "odd" {
		t.Errorf("%+v, %+v", f.Config, f.Quantization)
	}
	w := model.Init(c, 1)
	for _, e := range entries(c) {
		if e.Format == Float32 {
			if got := f.Float32s(e.Name); !slices.Equal(got, w.Data(e.Name)) {
				t.Errorf("%s: %v", e.Name, got)
			}
			continue
		}
		for _, p := range e.Parts {
			if got := f.Bytes(e.Name, p.Name); !bytes.Equal(got, part(e.Name, p)) {
				t.Errorf("%s %s: %d bytes, expected %d", e.Name, p.Name, len(got), p.Size)
			}
			if at := f.tensors[e.Name+":"+p.Name].Offset; at%64 != 0 {
				t.Errorf("%s %s: at offset %d", e.Name, p.Name, at)
			}
		}
		if f.Float32s(e.Name) != nil || f.Bytes(e.Name, "d") != nil {
			t.Errorf("%s: found as what it is not", e.Name)
		}
	}
	if err := f.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
}

func TestSameBytes(t *testing.T) {
	a, err := os.ReadFile(filepath.Join(create(t), File))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(create(t), File))
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the same parameters gave other bytes (%v)", err)
	}
}

func TestVerifyFindsAFlippedBit(t *testing.T) {
	dir := create(t)
	name := filepath.Join(dir, File)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "the file is damaged") {
		t.Errorf("%v", err)
	}
}

// TestCreateRefuses: what the writer is given must be what it was told, and nothing is left of a failure.
func TestCreateRefuses(t *testing.T) {
	c := config()
	w := model.Init(c, 1)
	es := entries(c)
	first := es[0].Name
	for _, x := range []struct {
		name    string
		entries []Entry
		fill    func(*Writer) error
		want    string
	}{
		{"missing entry", es[1:], fill(c, w), "tensor " + first + ": missing, expected shape [12 6]"},
		{"nothing written", es, func(*Writer) error { return nil }, "tensor " + first + ": not written"},
		{"out of turn", es, func(w *Writer) error { return w.Bytes(es[1].Name) }, "tensor " + es[1].Name + ": written out of turn, expected " + first},
		{"too few parts", es, func(w *Writer) error { return w.Bytes(first, nil) }, "1 parts, expected 3"},
		{"short part", es, func(w *Writer) error { return w.Bytes(first, nil, nil, nil) }, "a of 0 bytes, expected 75"},
		{"as float32", es, func(w *Writer) error { return w.Float32(first, nil) }, "0 numbers, expected odd of shape [12 6]"},
		{"plain first", slices.Concat(es[len(es)-1:], es[:len(es)-1]), fill(c, w), "begins at data offset 24, expected a multiple of 64"},
	} {
		dir := filepath.Join(t.TempDir(), "packed")
		err := Create(t.Context(), dir, c, &Quantization{Weights: "odd"}, x.entries, nil, x.fill)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, expected %s", x.name, err, x.want)
		}
		if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) > 0 {
			t.Errorf("%s: left %v", x.name, left)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), dir, c, &Quantization{Weights: "odd"}, es, nil, fill(c, w)); err == nil || !strings.Contains(err.Error(), "a folder of other files") {
		t.Errorf("over other files: %v", err)
	}
}

// TestDamagedFolders: each says in one line what is wrong and where.
func TestDamagedFolders(t *testing.T) {
	good := create(t)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(good, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	conf, data := read(model.ConfigFile), read(File)
	replaced := func(s, old, with string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q in\n%.3000s", old, s)
		}
		return strings.Replace(s, old, with, 1)
	}
	for _, c := range []struct{ name, config, data, want string }{
		{"no configuration", "", data, "config.json: no such file or directory"},
		{"no weights", conf, "", "weights.autodev: no such file or directory"},
		{"not JSON", conf[:40], data, "config.json: unexpected end of JSON input"},
		{"plain model", replaced(conf, `"quant_method": "autodev"`, `"quant_method": "gptq"`), data, `quantization_config: not of the method "autodev", expected the folder of a packed model`},
		{"later version", replaced(conf, `"version": 1`, `"version": 2`), data, "quantization_config.version: 2, expected 1"},
		{"unknown field", replaced(conf, `"version": 1`, `"version": 1, "axis": 0`), data, `quantization_config: json: unknown field "axis"`},
		{"other file", replaced(conf, `"file": "weights.autodev"`, `"file": "../x"`), data, `quantization_config.file: "../x", expected "weights.autodev"`},
		{"no format", replaced(conf, `"weights": "odd"`, `"weights": ""`), data, "quantization_config.weights: missing"},
		{"no digest", replaced(conf, `"sha256": "`, `"sha256": "0`), data, "quantization_config.sha256: "},
		{"no size", replaced(conf, `"bytes": `, `"bytes": -`), data, "quantization_config.bytes: -"},
		{"other model", replaced(conf, `"n_inner": 9`, `"n_inner": 8`), data, "tensor transformer.h.0.mlp.c_fc.weight: shape [9 6], expected [8 6]"},
		{"fewer layers", replaced(conf, `"n_layer": 1`, `"n_layer": 2`), data, "tensor transformer.h.1.ln_1.weight: missing, expected shape [6]"},
		{"truncated", conf, data[:len(data)-1], "bytes, expected the"},
		{"longer", conf, data + "x", "bytes, expected the"},
		{"header length", conf, "\xff" + data[1:], "weights.autodev: "},
		{"header", conf, replaced(data, `"dtype":"U8"`, `"dtype":"U9"`), `element type "U9"`},
		{"metadata version", conf, replaced(data, `"version":"1"`, `"version":"9"`), `header: format "autodev", version "9", expected "autodev" and 1`},
		{"table", conf, replaced(data, `"tensors":"{`, `"tensors":"[`), "header: tensors: "},
		{"part size", conf, replaced(data, `\"size\":39`, `\"size\":65`), "a of 64 bytes of \"U8\" at offset"},
		{"part name", conf, replaced(data, `\"name\":\"b\"`, `\"name\":\"a\"`), `part "a" of 0 bytes, expected different names and sizes`},
		{"packed bias", conf, replaced(data, `\"format\":\"float32\",\"shape\":[6]`, `\"format\":\"float31\",\"shape\":[6]`), "0 parts of \"float31\", expected 1 to 4"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{model.ConfigFile: c.config, File: c.data} {
			if text != "" {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		f, err := Open(dir)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, expected %s", c.name, err, c.want)
		}
	}
	empty := t.TempDir()
	if Is(os.DirFS(empty)) {
		t.Error("an empty folder is taken for a packed one")
	}
}

// FuzzParse: no weight file makes the reader panic, and whatever it accepts can be read.
func FuzzParse(f *testing.F) {
	dir := create(f)
	data, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		f.Fatal(err)
	}
	c, q, err := ReadConfig(os.DirFS(dir), dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:200])
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		q.Bytes = int64(len(data))
		p, err := parse(data, c, q, "x")
		if err != nil {
			return
		}
		for _, s := range c.Params() {
			e, ok := p.Entry(s.Name)
			if !ok {
				t.Fatalf("%s: accepted without it", s.Name)
			}
			if e.Format == Float32 && len(p.Float32s(s.Name)) != s.Len() {
				t.Fatalf("%s: %d elements", s.Name, len(p.Float32s(s.Name)))
			}
			for _, part := range e.Parts {
				if int64(len(p.Bytes(s.Name, part.Name))) != part.Size {
					t.Fatalf("%s: %s of %d bytes", s.Name, part.Name, part.Size)
				}
			}
		}
	})
}

// FuzzConfig: no config.json makes the reader panic.
func FuzzConfig(f *testing.F) {
	b, err := os.ReadFile(filepath.Join(create(f), model.ConfigFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, q, err := parseConfig(b, "x"); err == nil && (q.Version != Version || q.File != File) {
			t.Fatalf("accepted %+v", q)
		}
	})
}
