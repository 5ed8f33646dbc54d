package model

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"autodev/compute"
	"autodev/model/safetensors"
)

// referenceLogits computes logits [len(ids), VocabSize] in float64 straight from the definition in the papers. It shares
// nothing with the kernels or with Forward: it is here to prove what the canonical layout means.
func referenceLogits(c Config, w *Weights, ids []int) [][]float64 {
	get := func(name string) []float32 { return w.Get(name).Data }
	linear := func(x []float64, module string) []float64 {
		m, b := w.Get(module+".weight"), w.Get(module+".bias")
		y := make([]float64, m.Shape[0])
		for o := range y {
			if b != nil {
				y[o] = float64(b.Data[o])
			}
			for i, v := range x {
				y[o] += v * float64(m.Data[o*len(x)+i])
			}
		}
		return y
	}
	norm := func(x []float64, module string) []float64 {
		var mean, variance float64
		for _, v := range x {
			mean += v / float64(len(x))
		}
		for _, v := range x {
			variance += (v - mean) * (v - mean) / float64(len(x))
		}
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = (v-mean)/math.Sqrt(variance+c.Epsilon)*float64(get(module + ".weight")[i]) + float64(get(module + ".bias")[i])
		}
		return y
	}
	act := func(v float64) float64 {
		switch c.Activation {
		case compute.GELUTanh:
			return .5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
		case compute.GELUErf:
			return .5 * v * (1 + math.Erf(v/math.Sqrt2))
		}
		return math.Max(0, v)
	}
	x := make([][]float64, len(ids))
	for t, id := range ids {
		x[t] = make([]float64, c.Embed)
		for i := range x[t] {
			x[t][i] = float64(get(wteName)[id*c.Embed+i]) + float64(get(wpeName)[t*c.Embed+i])
		}
	}
	add := func(x, y []float64) {
		for i := range x {
			x[i] += y[i]
		}
	}
	d := c.HeadDim()
	for l := range c.Layers {
		h := "transformer.h." + string(rune('0'+l)) + "."
		qkv := make([][]float64, len(x))
		for t := range x {
			qkv[t] = linear(norm(x[t], h+"ln_1"), h+"attn.c_attn")
		}
		for t := range x {
			out := make([]float64, c.Embed)
			for head := range c.Heads {
				kv := head / (c.Heads / c.KVHeads)
				q := qkv[t][head*d : (head+1)*d]
				p := make([]float64, t+1)
				var sum float64
				for s := range p {
					k := qkv[s][c.Embed+kv*d : c.Embed+(kv+1)*d]
					var score float64
					for i := range q {
						score += q[i] * k[i]
					}
					p[s] = math.Exp(score * c.AttentionScale())
					sum += p[s]
				}
				for s := range p {
					v := qkv[s][c.Embed+(c.KVHeads+kv)*d : c.Embed+(c.KVHeads+kv+1)*d]
					for i := range v {
						out[head*d+i] += p[s] / sum * v[i]
					}
				}
			}
			add(x[t], linear(out, h+"attn.c_proj"))
			m := linear(norm(x[t], h+"ln_2"), h+"mlp.c_fc")
			for i := range m {
				m[i] = act(m[i])
			}
			add(x[t], linear(m, h+"mlp.c_proj"))
		}
	}
	logits := make([][]float64, len(x))
	for t := range x {
		y := norm(x[t], "transformer.ln_f")
		head := get(c.HeadWeight())
		logits[t] = make([]float64, c.VocabSize)
		for v := range logits[t] {
			for i := range y {
				logits[t][v] += y[i] * float64(head[v*c.Embed+i])
			}
		}
	}
	return logits
}

var fixtures = []string{"bigcode-mha-erf-untied", "gpt2-relu-unscaled-untied", "bigcode-padded-bin"}

// TestLogitsOfTransformers checks that what was loaded is the model that transformers made: configuration, layout and all.
func TestLogitsOfTransformers(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			ck, err := Load(context.Background(), filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			f, err := safetensors.Open(filepath.Join("testdata", name, "expected.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			raw, err := f.Bytes("input_ids")
			if err != nil {
				t.Fatal(err)
			}
			want, err := f.Float32s("logits")
			if err != nil {
				t.Fatal(err)
			}
			const batch, seq = 2, 17
			for b := range batch {
				ids := make([]int, seq)
				for i := range ids {
					ids[i] = int(raw[8*(b*seq+i)]) // int64, all below 256
				}
				for p, row := range referenceLogits(ck.Config, ck.Weights, ids) {
					for v, got := range row {
						if w := float64(want[(b*seq+p)*ck.Config.VocabSize+v]); math.Abs(got-w) > 2e-5*(1+math.Abs(w)) {
							t.Fatalf("sequence %d position %d token %d: logit %v, expected %v", b, p, v, got, w)
						}
					}
				}
			}
		})
	}
}

// copyFixture copies a fixture folder, to be damaged.
func copyFixture(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "m")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}
