package ref

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"autodev/compute"
)

// TestAgainstTorch compares the reference with PyTorch's results in float64 (testdata/torch_golden.py), which are rounded to
// 12 decimals.
func TestAgainstTorch(t *testing.T) {
	data, err := os.ReadFile("testdata/torch_golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		LayerNorm struct{ X, Gain, Bias, Dy, Y, Dx, DGain, DBias []float64 }
		GeluTanh  activations `json:"gelu_tanh"`
		GeluErf   activations `json:"gelu_erf"`
		Attention struct {
			QKV, Dy, Y, DQKV []float64
			DocStart         []int32
		}
		Loss struct {
			X, W, NLL, Loss, Dx, Dw []float64
			Targets                 []int32
		}
		AdamW struct {
			Before, After, M, V []float64
			Grads               [][]float64
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	equal := func(what string, got, want []float64) {
		t.Helper()
		if len(want) == 0 || len(got) != len(want) {
			t.Fatalf("%s has %d elements, expected %d", what, len(got), len(want))
		}
		for i := range want {
			if !(math.Abs(got[i]-want[i]) <= 1e-11) {
				t.Fatalf("%s[%d] is %v, PyTorch has %v", what, i, got[i], want[i])
			}
		}
	}
	zeros := func(like []float64) []float64 { return make([]float64, len(like)) }

	n := golden.LayerNorm
	y, dx, dgain, dbias := zeros(n.Y), zeros(n.Dx), zeros(n.DGain), zeros(n.DBias)
	LayerNorm(y, n.X, n.Gain, n.Bias, 1e-5)
	LayerNormGrad(dx, n.Dy, n.X, n.Gain, 1e-5)
	LayerNormGainGrad(dgain, n.Dy, n.X, 1e-5)
	BiasGrad(dbias, n.Dy)
	equal("LayerNorm", y, n.Y)
	equal("LayerNormGrad", dx, n.Dx)
	equal("LayerNormGainGrad", dgain, n.DGain)
	equal("BiasGrad", dbias, n.DBias)

	for act, g := range map[compute.Act]activations{compute.GELUTanh: golden.GeluTanh, compute.GELUErf: golden.GeluErf} {
		y, dx := zeros(g.Y), zeros(g.Dx)
		Activation(y, g.X, act)
		ActivationGrad(dx, g.Dy, g.X, act)
		equal(act.String(), y, g.Y)
		equal(act.String()+"'", dx, g.Dx)
	}

	a := golden.Attention
	attr := compute.Attr{Heads: 4, KVHeads: 2, HeadDim: 3, Seq: 6, Scale: 1 / math.Sqrt(3)}
	y, dqkv := zeros(a.Y), zeros(a.DQKV)
	must(t, Attention(y, a.QKV, a.DocStart, [2]int32{}, attr))
	must(t, AttentionGrad(dqkv, a.Dy, a.QKV, a.DocStart, [2]int32{}, attr))
	equal("Attention", y, a.Y)
	equal("AttentionGrad", dqkv, a.DQKV)

	l := golden.Loss
	nll, loss, dx, dw := zeros(l.NLL), zeros(l.Loss), zeros(l.Dx), zeros(l.Dw)
	must(t, TokenNLL(nll, l.X, l.W, l.Targets, 4, compute.Attr{Vocab: 7}))
	must(t, CrossEntropy(loss, dx, dw, l.X, l.W, l.Targets, 1./3, 4, compute.Attr{Vocab: 7})) // PyTorch's mean over the three scored tokens
	equal("TokenNLL", nll, l.NLL)
	equal("CrossEntropy", loss, l.Loss)
	equal("CrossEntropy's dx", dx, l.Dx)
	equal("CrossEntropy's dw", dw, l.Dw)

	w := golden.AdamW
	p, m, v := append([]float64(nil), w.Before...), zeros(w.M), zeros(w.V)
	for i, g := range w.Grads {
		step := float64(i + 1)
		AdamW(p, m, v, g, Hyper[float64]{0.05, 0.9, 0.95, 1e-3, 0.1, 1 - math.Pow(0.9, step), 1 - math.Pow(0.95, step), 1})
	}
	equal("AdamW", p, w.After)
	equal("AdamW's m", m, w.M)
	equal("AdamW's v", v, w.V)
}

type activations struct{ X, Dy, Y, Dx []float64 }
