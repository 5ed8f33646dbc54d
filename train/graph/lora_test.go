package graph

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"autodev/compute/cpu"
	"autodev/internal/sharedtest"
	"autodev/model"
)

// TestPEFT compares LoRA training with PEFT's: every adapter's gradient and the losses of AdamW steps.
// testdata/make_lora_training.py made the file.
func TestPEFT(t *testing.T) {
	ctx := context.Background()
	var want struct {
		Rank        int
		Scale       float64
		LR          float64
		Betas       [2]float64
		Eps         float64
		WeightDecay float64 `json:"weight_decay"`
		Losses      []float64
		Gradients   map[string][]float64
	}
	readJSON(t, filepath.Join("testdata", "lora_training.json"), &want)
	dir := sharedtest.Path(t, "golden/tiny-gptbigcode-mqa")
	var base golden
	readJSON(t, filepath.Join(dir, "expected.json"), &base)
	ckpt, err := model.Load(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	dev := cpu.New(cpu.Options{})
	defer dev.Close()
	cfg := Config{Model: ckpt.Config, Batch: len(base.IDs), Seq: len(base.IDs[0]), Checkpointing: true, Adapters: allLinear(ckpt.Config, 0)}
	for i := range cfg.Adapters {
		cfg.Adapters[i].Rank, cfg.Adapters[i].Scale = want.Rank, want.Scale
	}
	tr, err := Build(cfg, dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Alloc(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.Free(); err != nil {
			t.Error(err)
		}
	}()
	for _, p := range tr.Params() {
		data := ckpt.Weights.Data(p.Name)
		if p.Trained {
			sum := 0
			for _, c := range []byte(p.Name) {
				sum += int(c)
			}
			data = make([]float32, p.Weight.Len())
			for k := range data {
				data[k] = float32(.1 * math.Sin(1.7*float64(k)+float64(sum)))
			}
		}
		if err := tr.SetParam(p.Name, data); err != nil {
			t.Fatal(err)
		}
	}
	b, scale := shifted(base.IDs)
	h := Hyper{LearningRate: want.LR, Beta1: want.Betas[0], Beta2: want.Betas[1], Epsilon: want.Eps, WeightDecay: want.WeightDecay}
	for step, w := range want.Losses {
		if err := tr.ZeroGrads(); err != nil {
			t.Fatal(err)
		}
		loss, err := tr.MicroStep(ctx, b, scale, [2]int32{})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-w) > 1e-4 {
			t.Errorf("loss before step %d is %v, expected %v", step+1, loss, w)
		}
		if step == 0 {
			compareGradients(t, tr, want.Gradients)
		}
		if err := tr.Update(ctx, step+1, 1, h); err != nil {
			t.Fatal(err)
		}
	}
}

func compareGradients(t *testing.T, tr *Training, want map[string][]float64) {
	t.Helper()
	seen := 0
	for _, p := range tr.Params() {
		if !p.Trained {
			continue
		}
		w, ok := want[p.Name]
		if !ok {
			t.Fatalf("PEFT has no %s", p.Name)
		}
		seen++
		g, err := tr.Grad(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		diff := make([]float64, len(w))
		for i := range w {
			diff[i] = float64(g[i]) - w[i]
		}
		if d, n := norm2(diff), norm2(w); d > 1e-5*n {
			t.Errorf("gradient of %s differs by %v of %v", p.Name, d, n)
		}
	}
	if seen != len(want) {
		t.Errorf("%d adapters, expected PEFT's %d", seen, len(want))
	}
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// shifted returns the batch in which each token but a sequence's last predicts the next, as transformers does, and the
// scale of a mean loss.
func shifted(sequences [][]int32) (Batch, float32) {
	var b Batch
	scored := 0
	for _, ids := range sequences {
		b.IDs = append(b.IDs, ids...)
		b.Targets = append(append(b.Targets, ids[1:]...), -100)
		scored += len(ids) - 1
	}
	return b, float32(1 / float64(scored))
}
