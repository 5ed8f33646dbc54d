package infer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/infer/infertest"
	"autodev/model"
)

// TestTransformers compares logits after a long prompt and a greedy completion with transformers on a model of random
// weights. AUTODEV_PYTHON names an interpreter that has it.
func TestTransformers(t *testing.T) {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_PYTHON is not set: no interpreter with the transformers package")
	}
	for name, change := range map[string]func(*model.Config){
		"multi-query": func(*model.Config) {},
		"multi-head":  func(c *model.Config) { c.KVHeads = c.Heads },
		"gpt2":        func(c *model.Config) { c.Architecture, c.KVHeads = model.GPT2, c.Heads },
	} {
		t.Run(name, func(t *testing.T) {
			c := infertest.Config(500)
			change(&c)
			ckpt := infertest.Checkpoint(c)
			dir := filepath.Join(t.TempDir(), "model")
			if err := model.Save(t.Context(), dir, c, ckpt.Weights, model.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			m := newModel(t, ckpt, nil, 2)
			prompt := randomIDs(rand.New(rand.NewPCG(9, 9)), m.vocab, 3*chunkTokens+7)
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), python, "testdata/generate.py", dir, strings.ReplaceAll(fmt.Sprint(prompt), " ", ","))
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			var want struct {
				Logits []float64
				IDs    []int32
			}
			if err := json.Unmarshal(out, &want); err != nil || len(want.Logits) != 500 || len(want.IDs) != 60 {
				t.Fatalf("%d logits and %d ids, %v", len(want.Logits), len(want.IDs), err)
			}
			s := m.NewSession()
			defer s.Close()
			logits, err := s.Append(t.Context(), prompt)
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range logits {
				if !(math.Abs(float64(v)-want.Logits[i]) <= 1e-4) {
					t.Fatalf("logit %d: %v, expected %v", i, v, want.Logits[i])
				}
			}
			res, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: prompt}, MaxTokens: 60, Sampling: Sampling{Bias: noEnd(m)}}, nil)
			if err != nil || !slices.Equal(res.IDs, want.IDs) {
				t.Errorf("greedy %v (%v), expected %v", res.IDs, err, want.IDs)
			}
		})
	}
}
