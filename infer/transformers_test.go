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
	prompt := randomIDs(rand.New(rand.NewPCG(9, 9)), 500, 3*leastChunk+7)
	args := []string{"testdata/generate.py", strings.ReplaceAll(fmt.Sprint(prompt), " ", ",")}
	names := []string{"multi-query", "multi-head", "gpt2"}
	models := make([]*Model, len(names))
	for i, name := range names {
		c := infertest.Config(500)
		c.Positions = len(prompt) + 60
		if name != "multi-query" {
			c.KVHeads = c.Heads
		}
		if name == "gpt2" {
			c.Architecture = model.GPT2
		}
		ckpt := infertest.Checkpoint(c)
		dir := filepath.Join(t.TempDir(), name)
		if err := model.Save(t.Context(), dir, c, ckpt.Weights, model.SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		models[i], args = newModel(t, ckpt, nil, 2), append(args, dir)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	answers := json.NewDecoder(bytes.NewReader(out))
	for i, name := range names {
		var want struct {
			Logits []float64
			IDs    []int32
		}
		if err := answers.Decode(&want); err != nil || len(want.Logits) != 500 || len(want.IDs) != 60 {
			t.Fatalf("%s: %d logits and %d ids, %v", name, len(want.Logits), len(want.IDs), err)
		}
		t.Run(name, func(t *testing.T) {
			m := models[i]
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
