package train

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/compute/devices"
	"autodev/configs"
	"autodev/data/pack"
	"autodev/internal/sharedtest"
	"autodev/lora"
	"autodev/model"
	"autodev/model/safetensors"
)

// One optimiser step on adapters that PEFT wrote gives the tensors that PEFT and torch's AdamW give, clipping included, in the
// files that PEFT reads. lora/testdata/make_peft.py made the numbers.
func TestLoRAStepEqualsPEFT(t *testing.T) {
	for _, name := range []string{"all-linear", "patterns", "regex", "multi-head", "conv1d", "layers"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", "lora", "testdata", "peft")
			var want struct {
				Base     string
				IDs      [][]int32
				Loss     float64
				GradNorm float64 `json:"grad_norm"`
				AdamW    struct {
					LR, Eps, Clip float64
					Betas         [2]float64
					WeightDecay   float64 `json:"weight_decay"`
				}
			}
			raw, err := os.ReadFile(filepath.Join(dir, name, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			ckpt, err := model.Load(t.Context(), filepath.Join(dir, want.Base))
			if err != nil {
				t.Fatal(err)
			}
			a, err := lora.Load(filepath.Join(dir, name, "adapter"), ckpt.Config)
			if err != nil {
				t.Fatal(err)
			}
			j := &job{adapter: a, config: ckpt.Config, sequence: len(want.IDs[0]), total: 1}
			o := want.AdamW
			j.recipe.Train.MicroBatch, j.recipe.Train.Accumulation = 1, len(want.IDs)
			j.recipe.Train.LR, j.recipe.Train.Clip, j.recipe.Train.WeightDecay = o.LR, o.Clip, o.WeightDecay
			j.recipe.Train.Beta1, j.recipe.Train.Beta2, j.recipe.Train.Epsilon = o.Betas[0], o.Betas[1], o.Eps
			j.schedule = schedule{peak: o.LR, kind: "constant", total: 1}
			j.windows = fixedWindows(want.IDs)
			if err := j.plan(t.Context(), devices.Spec{Kind: devices.CPU}, ckpt.Weights, sha256.New()); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := j.close(); err != nil {
					t.Error(err)
				}
			}()
			r, err := j.step(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(r.Loss-want.Loss) > 1e-5 || math.Abs(r.GradNorm-want.GradNorm) > 1e-5*want.GradNorm {
				t.Errorf("loss %v, gradient norm %v, expected %v, %v", r.Loss, r.GradNorm, want.Loss, want.GradNorm)
			}
			if err := j.gather(); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "adapter")
			if err := a.Save(out); err != nil {
				t.Fatal(err)
			}
			got := open(t, filepath.Join(out, lora.WeightsFile))
			expected := open(t, filepath.Join(dir, name, "expected.safetensors"))
			n := 0
			for _, info := range expected.Tensors() {
				tensor, ok := strings.CutPrefix(info.Name, "step.")
				if !ok {
					continue
				}
				n++
				w, err := expected.Float32s(info.Name)
				if err != nil {
					t.Fatal(err)
				}
				g, err := got.Float32s(tensor)
				if err != nil {
					t.Fatal(err)
				}
				for i := range w {
					if math.Abs(float64(g[i]-w[i])) > 1e-5 {
						t.Fatalf("%s[%d] is %v, PEFT has %v", tensor, i, g[i], w[i])
					}
				}
			}
			if n != 2*len(a.Modules) || n != len(got.Tensors()) {
				t.Errorf("%d tensors compared, expected %d", n, 2*len(a.Modules))
			}
		})
	}
}

func open(t *testing.T, name string) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// fixed yields given windows.
type fixed struct {
	pack.Windows
	windows []pack.Window
}

func fixedWindows(ids [][]int32) *fixed {
	f := &fixed{}
	for _, row := range ids {
		w := pack.Window{IDs: row, Targets: append(append([]int32{}, row[1:]...), pack.NotScored), DocStart: make([]int32, len(row))}
		for i := range row {
			w.Positions = append(w.Positions, int32(i))
		}
		f.windows = append(f.windows, w)
	}
	return f
}

func (f *fixed) Next(context.Context) (pack.Window, error) {
	w := f.windows[0]
	f.windows = f.windows[1:]
	return w, nil
}

func (f *fixed) Stats() pack.Stats { return pack.Stats{} }
func (f *fixed) Close() error      { return nil }

// The losses of eight steps are those of torch's AdamW on the reference model: accumulation over micro-batches, decay of all
// parameters, clipping.
func TestStepsEqualTorch(t *testing.T) {
	dir := sharedtest.Path(t, "golden/tiny-gptbigcode-mqa")
	var want struct {
		IDs   [][]int32 `json:"input_ids"`
		AdamW struct {
			LR, Eps, Clip float64
			Betas         [2]float64
			WeightDecay   float64 `json:"weight_decay"`
			Losses        []float64
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	c, err := model.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	o := want.AdamW
	j := &job{config: c.Config, sequence: len(want.IDs[0]), total: len(o.Losses)}
	j.recipe.Train = configs.Train{
		MicroBatch: 1, Accumulation: len(want.IDs), LR: o.LR, Clip: o.Clip, WeightDecay: o.WeightDecay, DecayAll: true,
		Beta1: o.Betas[0], Beta2: o.Betas[1], Epsilon: o.Eps, Schedule: "constant",
	}
	j.schedule = newSchedule(j.recipe.Train, j.total)
	if err := j.plan(t.Context(), devices.Spec{Kind: devices.CPU}, c.Weights, sha256.New()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.close(); err != nil {
			t.Error(err)
		}
	}()
	for i, loss := range o.Losses {
		j.windows = fixedWindows(want.IDs)
		r, err := j.step(t.Context(), i+1)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Loss-loss) > 1e-4 {
			t.Errorf("step %d: loss %v, torch has %v", i+1, r.Loss, loss)
		}
	}
	if len(o.Losses) < 8 {
		t.Errorf("%d steps in the reference, expected 8", len(o.Losses))
	}
}

// With decay_all biases and norms decay too; by default they are a group of their own.
func TestDecayGroups(t *testing.T) {
	c, err := model.Load(t.Context(), filepath.Join("..", "lora", "testdata", "peft", "gpt_bigcode"))
	if err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		j := &job{config: c.Config, sequence: 8}
		j.recipe.Train.MicroBatch, j.recipe.Train.WeightDecay, j.recipe.Train.DecayAll = 1, .1, all
		if err := j.plan(t.Context(), devices.Spec{Kind: devices.CPU}, c.Weights, sha256.New()); err != nil {
			t.Fatal(err)
		}
		for _, p := range j.plans.Params() {
			decays := strings.HasSuffix(p.Name, ".weight") && !strings.Contains(p.Name, "ln_")
			if got := j.groups[p.Group].WeightDecay > 0; got != (decays || all) {
				t.Errorf("decay_all %v: %s decays: %v", all, p.Name, got)
			}
		}
		if err := j.close(); err != nil {
			t.Error(err)
		}
	}
}
