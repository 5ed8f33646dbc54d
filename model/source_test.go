package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/model/dtype"
)

// TestSources: parameters read one at a time are those read together, from every layout of files; random ones are Init's.
func TestSources(t *testing.T) {
	for _, dir := range []string{"testdata/bigcode-mha-erf-untied", "testdata/bigcode-padded-bin"} {
		f, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := f.Weights(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range f.Config.Params() {
			got, err := f.Read(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			if want := w.Get(p.Name); !slices.Equal(got.Shape, want.Shape) || !slices.Equal(got.Data, want.Data) || got.Source != want.Source {
				t.Errorf("%s: %s differs", dir, p.Name)
			}
		}
		for _, src := range []Source{f, w, Random(f.Config, 1)} {
			if _, err := src.Read("none"); err == nil || !strings.Contains(err.Error(), "tensor none: ") {
				t.Errorf("%T: %v", src, err)
			}
		}
	}
	c := Config{VocabSize: 700, Vocab: 700, Positions: 9, Embed: 101, Layers: 1, Heads: 1, KVHeads: 1, Inner: 3, InitStd: 0.02} // odd, and more than a block
	want, src := Init(c, 7), Random(c, 7)
	for p := range c.params() {
		got, err := src.Read(p.Name)
		if err != nil || !slices.Equal(got.Data, want.Data(p.Name)) {
			t.Errorf("%s: not as initialised (%v)", p.Name, err)
		}
	}
}

// TestSaveFrom: the same bytes as Save, also in another layout and in shards.
func TestSaveFrom(t *testing.T) {
	f, err := Open("testdata/bigcode-mha-erf-untied")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := f.Weights(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []SaveOptions{{}, {DType: dtype.BF16, Layout: GPT2}, {MaxShardBytes: 9000}} {
		a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
		if err := Save(t.Context(), a, f.Config, w, o); err != nil {
			t.Fatal(err)
		}
		if err := SaveFrom(t.Context(), b, f.Config, f, o); err != nil {
			t.Fatal(err)
		}
		files, err := os.ReadDir(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range files {
			x, err := os.ReadFile(filepath.Join(a, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			y, err := os.ReadFile(filepath.Join(b, e.Name()))
			if err != nil || string(x) != string(y) {
				t.Errorf("%+v: %s differs (%v)", o, e.Name(), err)
			}
		}
	}
}
