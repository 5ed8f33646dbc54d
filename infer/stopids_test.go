package infer

import "testing"

// A control token that never occurs in a completion may end one, when a request asks for it: the end of a turn, of a chat template.
func TestControlTokenAsStop(t *testing.T) {
	m := textModel(t, nil, 1)
	turn, ok := m.tok.ID("<jupyter_code>")
	if !ok {
		t.Fatal("the tokenizer has no control token that ends nothing")
	}
	r := Request{Prompt: Prompt{IDs: m.tok.Encode("def add(a, b):")}, MaxTokens: 10, Sampling: Sampling{Bias: map[int32]float64{turn: 100}}}
	without, err := m.Generate(t.Context(), r, nil)
	if err != nil || len(without.IDs) == 0 {
		t.Fatalf("without the stop: %v, %q (%v), expected some tokens", without.IDs, without.FinishReason, err)
	}
	r.StopIDs = []int32{turn}
	with, err := m.Generate(t.Context(), r, nil)
	if err != nil || len(with.IDs) != 0 || with.FinishReason != FinishStop {
		t.Errorf("with the stop: %v, %q (%v), expected no token", with.IDs, with.FinishReason, err)
	}
}
