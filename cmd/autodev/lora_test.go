package main

import (
	"bytes"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"autodev/model"
	"autodev/model/safetensors"
)

// The merged model is a folder with the weights that PEFT's merge gives.
func TestLoRAMerge(t *testing.T) {
	peft := filepath.Join("..", "..", "lora", "testdata", "peft")
	out := filepath.Join(t.TempDir(), "merged")
	var stdout bytes.Buffer
	if err := mergeAdapter(t.Context(), filepath.Join(peft, "gpt_bigcode"), filepath.Join(peft, "all-linear", "adapter"), out, &stdout); err != nil {
		t.Fatal(err)
	}
	if want := out + ": 8 modules merged\n"; stdout.String() != want {
		t.Errorf("printed %q, expected %q", stdout.String(), want)
	}
	got, err := model.Load(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(peft, "all-linear", "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for _, info := range f.Tensors() {
		name, ok := strings.CutPrefix(info.Name, "merged.")
		if !ok {
			continue
		}
		n++
		want, err := f.Float32s(info.Name)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got.Weights.Data(name) {
			if math.Abs(float64(v-want[i])) > 1e-6 {
				t.Fatalf("%s[%d] is %v, expected %v", name, i, v, want[i])
			}
		}
	}
	if n != 8 {
		t.Errorf("%d merged tensors in the reference, expected 8", n)
	}
	err = mergeAdapter(t.Context(), filepath.Join(peft, "gpt2"), filepath.Join(peft, "all-linear", "adapter"), out+"2", &stdout)
	if err == nil || !strings.Contains(err.Error(), "adapter_model.safetensors: tensor base_model.model.transformer.h.0.attn.c_attn.lora_B.weight: shape [24 4], expected [48 4]") {
		t.Errorf("adapter of another model: %v", err)
	}
}
