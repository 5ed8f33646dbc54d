// Package infertest makes small models of random weights with a real tokenizer. It is for tests only.
package infertest

import (
	"context"
	"math/rand/v2"
	"testing"

	"autodev/compute"
	"autodev/model"
	"autodev/tokenizer"
)

// Tokenizer returns a byte-level vocabulary of some hundred tokens: control tokens with ids 0 to 5 (end of text, three of
// fill-in-the-middle, a file separator, and one that belongs in no completion), all bytes, and words of code.
func Tokenizer(tb testing.TB) *tokenizer.Tokenizer {
	tb.Helper()
	specials := []string{"<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<file_sep>", "<jupyter_code>"}
	c := tokenizer.TrainConfig{VocabSize: len(specials) + 256 + 60, Specials: specials, MinFrequency: 1}
	tok, err := tokenizer.Train(context.Background(), c, func(yield func(string, error) bool) {
		for _, s := range []string{
			"def add(a, b):\n    return a + b\n", "def sub(a, b):\n    return a - b\n", "for i in range(10):\n    print(i)\n",
			"class Straße:\n    größe = 'é' # 日本語, naïve\n", "if self.name is None:\n    return\n",
		} {
			if !yield(s, nil) {
				return
			}
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return tok
}

// Config returns a multi-query model of three narrow layers for the given number of tokens.
func Config(vocab int) model.Config {
	return model.Config{
		Architecture: model.GPTBigCode, VocabSize: vocab, Vocab: vocab, Positions: 600, Embed: 48, Layers: 3, Heads: 4, KVHeads: 1, Inner: 80,
		Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.2, BOS: 0, EOS: []int{0},
	}
}

// Checkpoint returns random weights of c. All of them matter: the usual initial gains of 1 and biases of 0 would hide
// mistakes.
func Checkpoint(c model.Config) *model.Checkpoint {
	w := model.Init(c, 1)
	r := rand.New(rand.NewPCG(1, 2))
	for t := range w.All() {
		if len(t.Shape) == 1 {
			for i := range t.Data {
				t.Data[i] += float32(0.3 * r.NormFloat64())
			}
		}
	}
	return &model.Checkpoint{Config: c, Weights: w, Dir: "random"}
}
