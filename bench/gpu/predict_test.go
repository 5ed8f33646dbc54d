package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cudaplan"
)

// writeConfig writes a config.json of 64·8 dimensions and returns its name.
func writeConfig(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.json")
	const text = `{"model_type": "gpt_bigcode", "vocab_size": 512, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 64, "multi_query": true,
		"activation_function": "gelu_pytorch_tanh", "initializer_range": 0.02, "layer_norm_epsilon": 1e-05}`
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Where memory is free, a step takes its operations by the rates given, and an evaluation a third of the products'.
func TestPredictOperations(t *testing.T) {
	config := writeConfig(t)
	const layers, embed, inner, vocab, head, length, sequences = 3, 32, 64, 512, 8, 16, 4
	tokens := float64(length * sequences)
	weights := float64(layers * (embed*(embed+2*head) + embed*embed + 2*embed*inner))
	attention := 2 * tokens * length * layers * embed / 2 // a product of half a square
	for _, micro := range []string{"4", "1"} {
		r, err := predict(t.Context(), []string{"-config", config, "-sequences", "4", "-micro-batch", micro, "-length", "16",
			"-products", "1e-12", "-attention", "2e-12", "-attention-grad", "5e-12", "-bandwidth", "1e30", "-call", "0s"})
		if err != nil {
			t.Fatal(err)
		}
		p := r.(*prediction)
		near := func(what string, got, want float64) {
			t.Helper()
			if math.Abs(got-want) > 1e-9*want {
				t.Errorf("micro-batch %s: %s takes %v, expected %v", micro, what, got, want)
			}
		}
		near("a step", p.step, 6*tokens*(weights+vocab*embed)+attention*2/2+attention*5/5)
		near("evaluation", p.evaluation, 2*tokens*(weights+vocab*embed)+attention)
	}
}

// What fusions leave out is not counted: GELU's gradient, what clears a gradient that is overwritten and reads it.
func TestLaunched(t *testing.T) {
	b := func(at int64, d compute.DType, shape ...int) compute.Buffer {
		return compute.Buffer{Space: compute.Arena, Offset: at, DType: d, Shape: shape}
	}
	dy, w, dx, z := b(0, compute.BF16, 4, 8), b(64, compute.BF16, 8, 16), b(320, compute.BF16, 4, 16), b(448, compute.BF16, 4, 16)
	dw := b(576, compute.F32, 8, 16)
	zero := dw
	zero.Shape = []int{128}
	calls := []compute.Call{
		{Kernel: compute.LinearGradX, Attr: compute.Attr{Alpha: 1}, In: []compute.Buffer{dy, w}, Out: []compute.Buffer{dx}},
		{Kernel: compute.ActivationGrad, Attr: compute.Attr{Act: compute.GELUTanh}, In: []compute.Buffer{dx, z}, Out: []compute.Buffer{dx}},
		{Kernel: compute.Zero, Out: []compute.Buffer{zero}},
		{Kernel: compute.LinearGradW, In: []compute.Buffer{dy, dx}, Out: []compute.Buffer{dw}},
		{Kernel: compute.LinearGradW, In: []compute.Buffer{dy, dx}, Out: []compute.Buffer{dw}},
	}
	got := launched(calls, cudaplan.Fusions(calls))
	want := map[int]float64{0: 64 + 256 + 128 + 128, 3: 64 + 128 + 512, 4: 64 + 128 + 2*512}
	if len(got) != len(want) {
		t.Errorf("%d launches, expected %d", len(got), len(want))
	}
	for i, bytes := range want {
		if got[i].bytes != bytes {
			t.Errorf("call %d, %s: %v bytes, expected %v", i, got[i].kernel, got[i].bytes, bytes)
		}
	}
	if s := got[0].kernel; s != "LinearGradX with ActivationGrad" {
		t.Errorf("the first is %s", s)
	}
}

// The table names what was asked for and its shares add up.
func TestPredictTable(t *testing.T) {
	r, err := predict(t.Context(), []string{"-config", writeConfig(t), "-sequences", "2", "-length", "16", "-rank", "4", "-checkpointing"})
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	if _, err := r.(*prediction).WriteTo(&s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"LoRA r=4, gradient checkpointing, 2 sequences of 16 tokens, 2 at a time: predicted", "without checkpointing", "AttentionGrad", "2x16, 4/1 heads of 8"} {
		if !strings.Contains(s.String(), want) {
			t.Errorf("%q is not in\n%s", want, &s)
		}
	}
	share := 0.0
	for _, g := range r.(*prediction).groups {
		share += g.Share
	}
	if math.Abs(share-1) > 1e-9 {
		t.Errorf("shares add up to %v", share)
	}
	if _, err := predict(t.Context(), []string{"-micro-batch", "3"}); err == nil {
		t.Error("16 sequences were cut into micro-batches of 3")
	}
}
