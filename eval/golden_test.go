package eval_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"autodev/eval"
	"autodev/infer"
	"autodev/internal/sharedtest"
	"autodev/model"
)

// ids is an Encoder for documents that come as token ids.
type ids struct{}

func (ids) Encode(string) []int32   { return nil }
func (ids) TokenBytes(int32) []byte { return []byte{0} }

// The golden perplexities are transformers' (testdata/make_protocols.py).
func TestProtocolsEqualTransformers(t *testing.T) {
	b, err := os.ReadFile("testdata/protocols.json")
	if err != nil {
		t.Fatal(err)
	}
	type expected struct {
		Perplexity      float64
		Windows, Tokens int
	}
	var golden struct {
		Window, Stride           int
		Documents                [][]int32
		Original, Strided, Exact expected
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	ckpt, err := model.Load(t.Context(), sharedtest.Path(t, "golden/tiny-gptbigcode-mqa"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := infer.New(ckpt, nil, infer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var docs []eval.Document
	for i, d := range golden.Documents {
		docs = append(docs, eval.Document{Name: fmt.Sprint(i), IDs: d})
	}
	for p, want := range map[eval.Protocol]expected{eval.Original: golden.Original, eval.Strided: golden.Strided, eval.Exact: golden.Exact} {
		res, err := eval.Perplexity(t.Context(), m, ids{}, docs, eval.Options{Protocol: p, Window: golden.Window, Stride: golden.Stride})
		if err != nil {
			t.Fatal(err)
		}
		if d := math.Abs(res.Perplexity/want.Perplexity - 1); d > 1e-5 {
			t.Errorf("%s: perplexity %v, transformers %v: relative difference %.2g", p, res.Perplexity, want.Perplexity, d)
		}
		if want.Tokens > 0 && res.Tokens != want.Tokens {
			t.Errorf("%s: %d tokens scored, expected %d", p, res.Tokens, want.Tokens)
		}
		if want.Windows > 0 && len(res.Clusters) != want.Windows {
			t.Errorf("%s: %d windows, expected %d", p, len(res.Clusters), want.Windows)
		}
	}
}
