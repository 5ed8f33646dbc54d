package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"autodev/compute"
	"autodev/compute/cudaplan"
	"autodev/model"
	"autodev/train/graph"
)

func tiny() model.Config {
	return model.Config{
		Architecture: model.GPTBigCode, VocabSize: 64, Vocab: 64, Positions: 32, Embed: 16, Layers: 2, Heads: 4, KVHeads: 1, Inner: 40,
		Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.02, BOS: -1,
	}
}

// The operations counted call by call are those of the model: six for each weight of a product and token, and attention's seven (two
// products forward, five backward) of half a square of scores.
func TestOperations(t *testing.T) {
	c := tiny()
	cfg := graph.Config{Model: c, Batch: 3, Seq: 8, Precision: graph.BF16, Storage: compute.Mixed(compute.BF16), Once: true}
	plans, err := graph.Build(cfg, cudaplan.Target{})
	if err != nil {
		t.Fatal(err)
	}
	got := 0.0
	for _, p := range plans.Plans() {
		if p.Name == "eval" {
			continue
		}
		for i := range p.Plan.Calls {
			got += p.Plan.Calls[i].Operations()
		}
	}
	tokens, head := cfg.Batch*cfg.Seq, c.Embed/c.Heads
	weights := c.Layers*(c.Embed*(c.Embed+2*c.KVHeads*head)+c.Embed*c.Embed+2*c.Embed*c.Inner) + c.VocabSize*c.Embed
	if want := float64(tokens * (6*weights + 7*c.Layers*c.Embed*cfg.Seq)); got != want {
		t.Errorf("%v operations, expected %v", got, want)
	}
}

// Windows follow each other, targets are a token ahead, and the file begins again at its end.
func TestWindows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var b []byte
	for i := range uint16(12) {
		b = binary.LittleEndian.AppendUint16(b, i)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := readWindows(file, 5, 64)
	if err != nil {
		t.Fatal(err)
	}
	got := w.batch(1, 2)
	if s := fmt.Sprint(got.IDs, got.Targets); s != "[5 6 7 8 9 0 1 2 3 4] [6 7 8 9 10 1 2 3 4 5]" {
		t.Errorf("found %s", s)
	}
	if _, err := readWindows(file, 12, 64); err == nil {
		t.Error("12 tokens made a window of 12 and a target")
	}
	if _, err := readWindows(file, 5, 11); err == nil {
		t.Error("token 11 was taken for one of 11")
	}
}

// A run on the processor learns, in pieces of a step what it learns at once, and scores.
func TestStep(t *testing.T) {
	dir := t.TempDir()
	folder, tokens := filepath.Join(dir, "model"), filepath.Join(dir, "tokens")
	if err := model.SaveFrom(t.Context(), folder, tiny(), model.Random(tiny(), 1), model.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	var b []byte
	for i := range 200 {
		b = binary.LittleEndian.AppendUint16(b, uint16(i*i%7))
	}
	if err := os.WriteFile(tokens, b, 0o600); err != nil {
		t.Fatal(err)
	}
	train := func(micro string, more ...string) *result {
		t.Helper()
		args := append([]string{"-model", folder, "-tokens-file", tokens, "-device", "cpu", "-precision", "float32", "-sequences", "4", "-micro-batch", micro,
			"-length", "16", "-steps", "8", "-rate", "1e-2", "-evaluations", "2"}, more...)
		r, err := step(t.Context(), args)
		if err != nil {
			t.Fatal(err)
		}
		return r.(*result)
	}
	for _, more := range [][]string{nil, {"-rank", "2", "-checkpointing"}} {
		whole, parts := train("4", more...), train("2", more...)
		for i, l := range whole.Losses {
			if math.Abs(l-parts.Losses[i]) > 1e-3 {
				t.Errorf("%v: loss %d is %v at once, %v in two parts", more, i, l, parts.Losses[i])
			}
		}
		if last := whole.Losses[len(whole.Losses)-1]; !(last < whole.Losses[0]-0.005) || whole.TokensPerSec <= 0 || !(whole.EvalNLL > 0) {
			t.Errorf("%v: losses %v, %v tokens/s, evaluation %v", more, whole.Losses, whole.TokensPerSec, whole.EvalNLL)
		}
	}
}
