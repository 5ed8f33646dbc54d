package infer

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"autodev/internal/sharedtest"
	"autodev/model"
)

// golden is what transformers computed; see shared/golden/README.md.
type golden struct {
	InputIDs [][]int32     `json:"input_ids"`
	Logits   [][][]float32 `json:"logits"`
	LogProbs [][]float64   `json:"token_logprobs"`
	Loss     float64       `json:"loss"`
	Greedy   struct {
		Prompt, Out []int32
	} `json:"greedy"`
	LeftPadded struct {
		InputIDs [][]int32 `json:"input_ids"`
		Mask     [][]int   `json:"attention_mask"`
		Out      [][]int32 `json:"out"`
	} `json:"greedy_left_padded"`
}

func readGolden(t *testing.T, name string) (g golden) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sharedtest.Path(t, "golden/"+name), "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.InputIDs) == 0 || len(g.Logits) != len(g.InputIDs) || len(g.Greedy.Out) == 0 || len(g.LeftPadded.Out) == 0 {
		t.Fatalf("%s: expected.json holds less than the test compares", name)
	}
	return g
}

func loadShared(t testing.TB, name string, o Options) *Model {
	t.Helper()
	dir := sharedtest.Path(t, "golden/"+name)
	if _, err := os.Stat(filepath.Join(dir, "config.json")); err != nil {
		dir = addConfig(t, dir)
	}
	ckpt, err := model.Load(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(ckpt, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// addConfig returns a folder with the files of dir, which holds weights alone, and the configuration of the model they are of.
func addConfig(t testing.TB, dir string) string {
	t.Helper()
	full := t.TempDir()
	if err := os.CopyFS(full, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(sharedtest.Path(t, "golden/tiny-gptbigcode-mqa/config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	return full
}

// TestGolden compares logits, log-probabilities and greedy generation with transformers, for every way the same model is
// stored.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		folder, expected string
		tolerance        float64
		generates        bool
	}{
		{"tiny-gptbigcode-mqa", "tiny-gptbigcode-mqa", 1e-4, true},
		{"tiny-gptbigcode-mqa-variants/bin", "tiny-gptbigcode-mqa", 1e-4, true},
		{"tiny-gptbigcode-mqa-variants/sharded", "tiny-gptbigcode-mqa", 1e-4, true},
		{"tiny-gptbigcode-mqa-variants/santacoder-gpt2-layout", "tiny-gptbigcode-mqa", 1e-4, true},
		// Rounding the weights to 16 bits moves the logits.
		{"tiny-gptbigcode-mqa-variants/f16", "tiny-gptbigcode-mqa", 2e-2, false},
		{"tiny-gpt2", "tiny-gpt2", 1e-4, true},
	} {
		t.Run(c.folder, func(t *testing.T) {
			g := readGolden(t, c.expected)
			m := loadShared(t, c.folder, Options{Threads: 2})
			compareLogits(t, m, g, c.tolerance)
			if c.generates {
				compareGreedy(t, m, g)
			}
		})
	}
}

func compareLogits(t *testing.T, m *Model, g golden, tolerance float64) {
	var sum float64
	var n int
	for b, ids := range g.InputIDs {
		s := m.NewSession()
		seen := 0
		err := s.AppendAll(t.Context(), ids, 0, func(i int, logits []float32) error {
			seen++
			if len(logits) != len(g.Logits[b][i]) {
				t.Fatalf("%d logits, expected %d", len(logits), len(g.Logits[b][i]))
			}
			for j, want := range g.Logits[b][i] {
				if d := math.Abs(float64(logits[j] - want)); !(d <= tolerance) {
					t.Fatalf("sequence %d, token %d, logit %d: %v, expected %v within %v", b, i, j, logits[j], want, tolerance)
				}
			}
			return nil
		})
		s.Close()
		if err != nil || seen != len(ids) {
			t.Fatalf("%d logits rows and error %v, expected %d rows", seen, err, len(ids))
		}
		nll, err := m.NLL(t.Context(), ids, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(nll) != len(g.LogProbs[b]) {
			t.Fatalf("%d scored tokens, expected %d", len(nll), len(g.LogProbs[b]))
		}
		for i, v := range nll {
			if !(math.Abs(v+g.LogProbs[b][i]) <= tolerance) {
				t.Errorf("sequence %d: −ln p of token %d is %v, expected %v", b, i+1, v, -g.LogProbs[b][i])
			}
			sum, n = sum+v, n+1
		}
	}
	if mean := sum / float64(n); !(math.Abs(mean-g.Loss) <= tolerance) {
		t.Errorf("mean loss %v, expected %v", mean, g.Loss)
	}
}

// compareGreedy checks token for token. A batch padded on the left must give each sequence what it gets alone.
func compareGreedy(t *testing.T, m *Model, g golden) {
	check := func(prompt, out []int32) {
		t.Helper()
		want := out[len(prompt):]
		if i := slices.Index(want, int32(m.config.EOS[0])); i >= 0 {
			want = want[:i]
		}
		res, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: prompt}, MaxTokens: len(out) - len(prompt)}, nil)
		if err != nil || !slices.Equal(res.IDs, want) {
			t.Errorf("greedy from %v: %v (%v), expected %v", prompt, res.IDs, err, want)
		}
	}
	check(g.Greedy.Prompt, g.Greedy.Out)
	for i, padded := range g.LeftPadded.InputIDs {
		pad := slices.Index(g.LeftPadded.Mask[i], 1)
		check(padded[pad:], g.LeftPadded.Out[i][pad:])
	}
}
