package graph

import (
	"context"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/ref"
	"autodev/internal/sharedtest"
	"autodev/model"
)

// TestTransformers compares a model of random weights with Hugging Face transformers in float32: loss, every gradient's
// norm, whole gradients, tokens' losses and eight AdamW steps. shared/golden/README.md tells how expected.json was made.
func TestTransformers(t *testing.T) {
	for _, name := range []string{"tiny-gptbigcode-mqa", "tiny-gpt2"} {
		cpus := cpu.New(cpu.Options{})
		defer cpus.Close()
		for _, dev := range []compute.Device{hostDevice{kernels: ref.Kernels{}}, cpus} {
			t.Run(name+" on "+dev.Name(), func(t *testing.T) {
				testTransformers(t, sharedtest.Path(t, filepath.Join("golden", name)), dev)
			})
		}
	}
}

type golden struct {
	IDs       [][]int32           `json:"input_ids"`
	Loss      float64             `json:"loss"`
	LogProbs  [][]float64         `json:"token_logprobs"`
	GradNorms map[string]float64  `json:"grad_norms"`
	Grads     map[string]elements `json:"grads"`
	AdamW     struct {
		LR          float64    `json:"lr"`
		Betas       [2]float64 `json:"betas"`
		Epsilon     float64    `json:"eps"`
		WeightDecay float64    `json:"weight_decay"`
		Clip        float64    `json:"clip"`
		Losses      []float64  `json:"losses"`
		GradNorms   []float64  `json:"grad_norms_before_clip"`
	} `json:"adamw"`
}

// elements is a vector, or a matrix by rows.
type elements struct {
	rows, columns int
	data          []float64
}

func (e *elements) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, &e.data); err == nil {
		e.rows, e.columns = len(e.data), 1
		return nil
	}
	var rows [][]float64
	if err := json.Unmarshal(text, &rows); err != nil {
		return err
	}
	e.rows, e.columns, e.data = len(rows), len(rows[0]), slices.Concat(rows...)
	return nil
}

// as returns the elements in the layout of shape; GPT-2's files hold linear weights transposed.
func (e elements) as(shape []int) []float64 {
	if e.rows == shape[0] {
		return e.data
	}
	t := make([]float64, len(e.data))
	for i, x := range e.data {
		t[i%e.columns*e.rows+i/e.columns] = x
	}
	return t
}

func testTransformers(t *testing.T, dir string, dev compute.Device) {
	ctx := context.Background()
	var want golden
	readJSON(t, filepath.Join(dir, "expected.json"), &want)
	ckpt, err := model.Load(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Model: ckpt.Config, Batch: len(want.IDs), Seq: len(want.IDs[0]), Checkpointing: true}
	tr, err := Build(cfg, dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Alloc(); err != nil {
		t.Fatal(err)
	}
	for w := range ckpt.Weights.All() {
		if err := tr.SetParam(w.Name, w.Data); err != nil {
			t.Fatal(err)
		}
	}
	b, scale := shifted(want.IDs)
	nll, err := tr.NLL(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range want.LogProbs {
		for j, lp := range row {
			if got := -float64(nll[i*cfg.Seq+j]); math.Abs(got-lp) > 1e-4 {
				t.Fatalf("log-probability of sequence %d token %d: %v, expected %v", i, j+1, got, lp)
			}
		}
	}

	loss, err := tr.MicroStep(ctx, b, scale, [2]int32{})
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(loss-want.Loss) > 1e-5 {
		t.Errorf("loss %v, expected %v", loss, want.Loss)
	}
	seen := 0
	for _, p := range tr.Params() {
		g, err := tr.Grad(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		norm, ok := want.GradNorms[p.Name]
		if ok {
			seen++
			if got := norm2(convert[float64](g)); math.Abs(got-norm) > 1e-4*norm {
				t.Errorf("gradient norm of %s: %v, expected %v", p.Name, got, norm)
			}
		}
		e, ok := want.Grads[p.Name]
		if !ok {
			continue
		}
		whole := e.as(p.Shape)
		diff := make([]float64, len(whole))
		for i, w := range whole {
			diff[i] = float64(g[i]) - w
		}
		if d, n := norm2(diff), norm2(whole); d > 1e-4*n {
			t.Errorf("gradient of %s differs by %v of %v", p.Name, d, n)
		}
	}
	if seen != len(want.GradNorms) {
		t.Errorf("compared %d gradient norms, expected %d", seen, len(want.GradNorms))
	}

	// Eight steps with clipping; each loss is computed before its update.
	a := want.AdamW
	h := Hyper{LearningRate: a.LR, Beta1: a.Betas[0], Beta2: a.Betas[1], Epsilon: a.Epsilon, WeightDecay: a.WeightDecay}
	for i, w := range a.Losses {
		if err := tr.ZeroGrads(); err != nil {
			t.Fatal(err)
		}
		loss, err := tr.MicroStep(ctx, b, scale, [2]int32{})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-w) > 1e-4 {
			t.Errorf("AdamW: loss before step %d is %v, expected %v", i+1, loss, w)
		}
		norm, err := tr.GradNorm(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if w := a.GradNorms[i]; math.Abs(norm-w) > 1e-4*w {
			t.Errorf("AdamW: gradient norm of step %d is %v, expected %v", i+1, norm, w)
		}
		// torch.nn.utils.clip_grad_norm_
		if err := tr.Update(ctx, i+1, min(1, a.Clip/(norm+1e-6)), h); err != nil {
			t.Fatal(err)
		}
	}
}

// norm2 returns the Euclidean norm.
func norm2(v []float64) float64 {
	sum := 0.
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum)
}
