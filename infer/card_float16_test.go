package infer

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/model"
)

// onV100 makes the stand-in a card without bfloat16.
func onV100(t *testing.T, seed int64) {
	t.Helper()
	onCard(t, seed)
	if err := cudatest.Library(t, "").Set("capability", 70); err != nil {
		t.Fatal(err)
	}
}

// opened returns ckpt as a Model, closed at the end of the test.
func opened(t *testing.T, ckpt *model.Checkpoint, o Options) *Model {
	t.Helper()
	m, err := New(ckpt, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// TestCardFloat16: a card without bfloat16 keeps weights, activations, keys and values in float16: scores and logits are the processor's in float32
// but for that rounding, and a token's bits do not depend on how few others are in its pass.
func TestCardFloat16(t *testing.T) {
	onV100(t, 1)
	for name, change := range cardShapes {
		ckpt := cardCheckpoint(change)
		card, cpu := opened(t, ckpt, Options{Device: onCUDA}), opened(t, ckpt, Options{})
		if i := card.Info(); i.Weights != Float16 || i.Cache != CacheFloat16 || i.Bytes*2 > cpu.Info().Bytes {
			t.Errorf("%+v", i)
		}
		ids := randomIDs(rand.New(rand.NewPCG(1, 2)), card.vocab, 170)
		want, err := cpu.NLL(t.Context(), ids, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := card.NLL(t.Context(), ids, 0)
		if err != nil {
			t.Fatal(err)
		}
		mean := 0.0
		for i, v := range got {
			mean += (v - want[i]) / float64(len(got))
			if !(math.Abs(v-want[i]) < 0.04) {
				t.Errorf("%s: score %d: %v, expected %v", name, i, v, want[i])
			}
		}
		if !(math.Abs(mean) < 0.0025) || mean == 0 {
			t.Errorf("%s: the mean score is %v from the processor's", name, mean)
		}
		exact := allLogits(t, cpu, ids, len(ids))
		one := allLogits(t, card, ids, 100, 1, 1, 1, 1, 1, 1, 1, 63)
		if d := furthest(one, exact); !(d < 0.04) {
			t.Errorf("%s: logits %v from the processor's", name, d)
		}
		if d := furthest(allLogits(t, card, ids, 100, 3, 4, 63)[:107], one[:107]); d != 0 {
			t.Errorf("%s: passes of more tokens give logits that are %v away", name, d)
		}
	}
}

// TestFloat16Range: weights that float16 cannot hold are named when they are loaded, activations when they come about; float32 holds both.
func TestFloat16Range(t *testing.T) {
	onV100(t, 2)
	const gain, matrix = "transformer.h.0.ln_2.weight", "transformer.h.0.attn.c_attn.weight"
	with := func(name string, v float32) *model.Checkpoint {
		ckpt := cardCheckpoint(cardShapes["wide"])
		w := ckpt.Weights.Data(name)
		for i := range w {
			w[i] = v
		}
		return ckpt
	}
	large := with(matrix, 0.01)
	large.Weights.Data(matrix)[3] = -7e4
	if _, err := New(large, nil, Options{Device: onCUDA}); err == nil || !strings.Contains(err.Error(), "tensor "+matrix+": element 3 is -70000, float16 holds numbers up to 65504") {
		t.Errorf("error %v", err)
	}
	ids := randomIDs(rand.New(rand.NewPCG(1, 2)), 97, 20)
	m := opened(t, with(gain, 6e4), Options{Device: onCUDA})
	if _, err := m.NLL(t.Context(), ids, 0); !errors.Is(err, errOverflow) {
		t.Errorf("scoring: error %v", err)
	}
	if _, err := m.NewSession().Append(t.Context(), ids); !errors.Is(err, errOverflow) {
		t.Errorf("evaluating: error %v", err)
	}
	if _, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 3}, nil); !errors.Is(err, errOverflow) {
		t.Errorf("completing: error %v", err)
	}
	for _, ckpt := range []*model.Checkpoint{large, with(gain, 6e4)} {
		nll, err := opened(t, ckpt, Options{Device: onCUDA, Weights: Float32}).NLL(t.Context(), ids, 0)
		if err != nil || slices.ContainsFunc(nll, math.IsNaN) {
			t.Errorf("in float32: %v, error %v", nll, err)
		}
	}
}

// TestFloat16OnCPU: the processor has no float16, and says what it has.
func TestFloat16OnCPU(t *testing.T) {
	for text, o := range map[string]Options{
		"weights: found float16, expected float32, bf16, int8 or int4 on the processor":  {Weights: Float16},
		"kv_cache: found float16, expected auto, float32, bf16 or int8 on the processor": {Cache: CacheFloat16},
	} {
		if _, err := New(cardCheckpoint(nil), nil, o); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, expected %s", err, text)
		}
	}
}
