package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/devices"
	"autodev/configs"
	"autodev/model"
	"autodev/train/graph"
)

// onV100 makes a stand-in for a card without bfloat16 this machine's.
func onV100(t *testing.T) {
	t.Helper()
	l := cudatest.Library(t, "")
	if err := l.Set("capability", 70); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AUTODEV_LIBCUDA", l.CUDA)
	t.Setenv("AUTODEV_LIBCUBLASLT", l.CublasLt)
	t.Cleanup(func() {
		if fault := l.Fault(); fault != "" && !t.Failed() {
			t.Errorf("the stand-in reports: %s", fault)
		}
	})
}

// TestFloat16Curve: on a card without bfloat16 recipes that leave the precision open train in float16, and learn what the CPU learns in float32,
// the same in every run.
func TestFloat16Curve(t *testing.T) {
	onV100(t)
	for name, args := range map[string][]string{"full": {fullRecipe, "init.tokenizer=" + vocabulary(t)}, "lora": {loraRecipe, "model=" + base(t), "train.gradient_checkpointing=true"}} {
		var log bytes.Buffer
		o := options()
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		want := curveOf(t, o, args[0], append(args[1:], "device=cpu")...)
		got := curveOf(t, o, args[0], append(args[1:], "device=cuda")...)
		if d := got.distance(want); d == 0 || d > 0.004 || math.Abs(got.eval-want.eval) > 0.01 {
			t.Errorf("%s: losses differ by %v on average, evaluations by %v: %v and %v", name, d, got.eval-want.eval, got, want)
		}
		if !strings.Contains(log.String(), "training in float16 with loss scaling") {
			t.Errorf("%s: log %s", name, log.String())
		}
		if name == "lora" {
			continue
		}
		if again := curveOf(t, o, args[0], append(args[1:], "device=cuda", "precision=float16")...); again.distance(got) != 0 || again.eval != got.eval {
			t.Errorf("a second run gives %v after %v", again, got)
		}
	}
}

// changeState rewrites the state of a checkpoint.
func changeState(t *testing.T, out string, step int, change func(s map[string]any)) {
	t.Helper()
	name := filepath.Join(checkpointFolder(out, step), stateFile)
	b := must(os.ReadFile(name))
	s := map[string]any{}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	change(s)
	if err := os.WriteFile(name, must(json.Marshal(s)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cut removes what a run left after a step.
func cut(t *testing.T, out string, after int) {
	t.Helper()
	for _, step := range must(checkpoints(out)) {
		if step > after {
			if err := os.RemoveAll(checkpointFolder(out, step)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.RemoveAll(filepath.Join(out, finalFolder)); err != nil {
		t.Fatal(err)
	}
}

// scaled returns the recipe of a run of 28 steps that has taken two, and whose next one has the loss scale given.
func scaled(t *testing.T, scale float64) (r configs.Recipe) {
	t.Helper()
	r = recipe(t, fullRecipe, "device=cuda", "precision=float16", "init.tokenizer="+vocabulary(t), "out="+filepath.Join(t.TempDir(), "out"),
		"eval.every=0", "checkpoint.every=2", "checkpoint.keep=0", "train.steps=28")
	if _, err := Run(t.Context(), r, options()); err != nil {
		t.Fatal(err)
	}
	cut(t, r.Out, 2)
	changeState(t, r.Out, 2, func(s map[string]any) { s["loss_scale"] = lossScale{Scale: scale, Good: 2} })
	return r
}

// TestOverflow: steps with a loss scale that overflows float16 change nothing, are counted and halve the scale, until the run goes on; it can be
// resumed from anywhere, for the same bytes.
func TestOverflow(t *testing.T) {
	onV100(t)
	r := scaled(t, 0x1p30)
	out := r.Out
	var said bytes.Buffer
	o := options()
	o.Progress = &said
	sum, err := Run(t.Context(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Skipped < 4 || sum.Skipped > 15 {
		t.Errorf("%d steps were skipped", sum.Skipped)
	}
	scale, skipped := 0.0, 0
	for _, e := range readRecord(t, out) {
		r := e.Train
		if r == nil {
			continue
		}
		switch {
		case e.Step <= 2:
			if r.LossScale != firstLossScale || r.Overflow {
				t.Errorf("step %d: %+v", e.Step, r)
			}
			continue
		case e.Step == 3:
			scale = 0x1p30
		}
		if r.LossScale != scale || e.Step < 5 && !r.Overflow || e.Step == 28 && r.Skipped != sum.Skipped {
			t.Errorf("step %d: %+v, expected scale %v", e.Step, r, scale)
		}
		if r.Overflow {
			scale /= 2
			skipped++
		}
		if r.Skipped != skipped {
			t.Errorf("step %d: %d skipped steps, expected %d", e.Step, r.Skipped, skipped)
		}
		if r.Loss < 0.1 || r.Loss > 10 {
			t.Errorf("step %d: loss %v", e.Step, r.Loss)
		}
	}
	if !strings.Contains(said.String(), "steps skipped (loss scale") {
		t.Errorf("said: %s", said.String())
	}
	weights := func(step int) string {
		return string(must(os.ReadFile(filepath.Join(checkpointFolder(out, step), "model.safetensors")))) + string(must(os.ReadFile(filepath.Join(checkpointFolder(out, step), optimizerFile))))
	}
	if weights(2) != weights(4) || weights(4) == weights(28) {
		t.Error("a skipped step changed the weights or the optimiser, or none did")
	}

	whole := tree(t, out)
	for _, from := range []int{4, 24} {
		cut(t, out, from)
		if _, err := Run(t.Context(), r, options()); err != nil {
			t.Fatal(err)
		}
		if again := tree(t, out); !maps.Equal(again, whole) {
			t.Errorf("resumed from step %d: other bytes", from)
		}
	}
}

// TestOverflowWithoutEnd: a run all of whose steps overflow ends with an error that says so; a state that cannot be is refused.
func TestOverflowWithoutEnd(t *testing.T) {
	onV100(t)
	r := scaled(t, 0x1p90)
	_, err := Run(t.Context(), r, options())
	if err == nil || !strings.Contains(err.Error(), "step 27: losses or gradients overflowed float16 in the last 25 steps, which were skipped, at last with a loss scale of 7.38e+19") ||
		!strings.HasSuffix(err.Error(), "the last checkpoint is "+checkpointFolder(r.Out, 26)) {
		t.Errorf("error %v", err)
	}
	for name, scale := range map[string]any{"absent": nil, "zero": lossScale{}, "uneven": lossScale{Scale: 3}, "negative": lossScale{Scale: 2, Good: -1}, "too many": lossScale{Scale: 2, Skipped: 27}} {
		changeState(t, r.Out, 26, func(s map[string]any) { s["loss_scale"] = scale })
		if _, err := Run(t.Context(), r, options()); err == nil || !strings.Contains(err.Error(), "trainer_state.json: loss_scale: found ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestOverflowForward: a model whose own values exceed float16 has no losses, whatever the scale: nulls in the record, then the end. One whose
// weights do is refused.
func TestOverflowForward(t *testing.T) {
	onV100(t)
	dir := base(t)
	run := func(times float32) (out string, err error) {
		c, large := must(model.Load(t.Context(), dir)), filepath.Join(t.TempDir(), "large")
		for _, module := range []string{"c_fc", "c_proj"} {
			w := c.Weights.Data("transformer.h.0.mlp." + module + ".weight")
			for i := range w {
				w[i] *= times
			}
		}
		if err := model.SaveFrom(t.Context(), large, c.Config, c.Weights, model.SaveOptions{Assets: os.DirFS(dir)}); err != nil {
			t.Fatal(err)
		}
		out = filepath.Join(t.TempDir(), "out")
		_, err = Run(t.Context(), recipe(t, loraRecipe, "device=cuda", "precision=float16", "model="+large, "out="+out, "eval.every=0", "checkpoint.every=0", "train.steps=30"), options())
		return out, err
	}
	out, err := run(1e5)
	if err == nil || !strings.Contains(err.Error(), "step 25: losses or gradients overflowed float16 in the last 25 steps, which were skipped, at last with a loss scale of 0.00391: ") ||
		!strings.HasSuffix(err.Error(), "(precision float32 holds them)") {
		t.Errorf("error %v", err)
	}
	if b := must(os.ReadFile(filepath.Join(out, RecordFile))); bytes.Count(b, []byte(`"train":{"loss":null,"grad_norm":`)) != 24 {
		t.Errorf("record %s", b)
	}
	if _, err := run(1e7); err == nil || !strings.Contains(err.Error(), "weights of transformer.h.0.mlp.c_fc.weight: element ") || !strings.Contains(err.Error(), "float16 holds numbers up to 65504") {
		t.Errorf("error %v", err)
	}
}

// TestLossScale: the scale moves as PyTorch's GradScaler moves it.
func TestLossScale(t *testing.T) {
	s := newLossScale()
	for range growthInterval - 1 {
		s.after(false)
	}
	if *s != (lossScale{Scale: 65536, Good: 1999}) {
		t.Errorf("%+v", s)
	}
	s.after(false)
	if *s != (lossScale{Scale: 131072}) {
		t.Errorf("%+v", s)
	}
	s.after(false)
	s.after(true)
	s.after(true)
	if *s != (lossScale{Scale: 32768, Skipped: 2, InRow: 2}) {
		t.Errorf("%+v", s)
	}
	s.after(false)
	if *s != (lossScale{Scale: 32768, Good: 1, Skipped: 2}) || !s.valid() {
		t.Errorf("%+v", s)
	}
	s.Scale = maxLossScale
	for range growthInterval {
		s.after(false)
	}
	if s.Scale != maxLossScale {
		t.Errorf("%+v", s)
	}
}

// TestFloat16OnCPU: the processor has no products in float16, and says what it has.
func TestFloat16OnCPU(t *testing.T) {
	r := recipe(t, fullRecipe, "init.tokenizer="+vocabulary(t), "device=cpu", "precision=float16", "out="+filepath.Join(t.TempDir(), "out"))
	if _, err := Run(t.Context(), r, options()); err == nil || err.Error() != "precision: found float16, expected bf16 or float32 on the CPU, which has no products in float16" {
		t.Errorf("error %v", err)
	}
}

// TestResultWithoutNumbers: what overflowed is null in the record, which can be read again.
func TestResultWithoutNumbers(t *testing.T) {
	for want, r := range map[string]StepResult{
		`{"loss":null,"grad_norm":2,"lr":1,"scored":3,"tokens":4,"epoch":0,"loss_scale":8,"overflow":true,"skipped_steps":1}`: {Loss: math.NaN(), LR: 1, GradNorm: 2, Scored: 3, Tokens: 4, LossScale: 8, Overflow: true, Skipped: 1},
		`{"loss":5,"grad_norm":null,"lr":1,"scored":3,"tokens":4,"epoch":0,"loss_scale":8,"overflow":true,"skipped_steps":1}`: {Loss: 5, LR: 1, GradNorm: math.Inf(1), Scored: 3, Tokens: 4, LossScale: 8, Overflow: true, Skipped: 1},
		`{"loss":5,"lr":1,"grad_norm":2,"scored":3,"tokens":4,"epoch":0}`:                                                     {Loss: 5, LR: 1, GradNorm: 2, Scored: 3, Tokens: 4},
	} {
		b, err := json.Marshal(Entry{Train: &r})
		if err != nil || string(b) != `{"step":0,"train":`+want+`}` {
			t.Errorf("%s (%v), expected %s", b, err, want)
		}
		var e Entry
		if err := json.Unmarshal(b, &e); err != nil || e.Train.Skipped != r.Skipped {
			t.Errorf("%s: %+v, %v", b, e.Train, err)
		}
	}
}

// TestFloat16Plan: a recipe in float16 is planned for CUDA alone, and takes what one in bfloat16 does.
func TestFloat16Plan(t *testing.T) {
	c := santaCoder()
	c.Layers = 2
	half, other := planOf(t, c, MemoryOptions{}, "precision=float16"), planOf(t, c, MemoryOptions{Devices: []devices.Kind{devices.CUDA}}, "precision=bf16")
	if len(half.Columns) != 2 {
		t.Fatalf("%d columns", len(half.Columns))
	}
	for i, got := range half.Columns {
		want := other.Columns[i]
		if got.Precision != graph.Float16 || got.Storage != "f16 with f32" {
			t.Errorf("%s kept as %s", got.Precision, got.Storage)
		}
		if got.Precision, got.Storage = want.Precision, want.Storage; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, in bfloat16 %+v", got, want)
		}
	}
	_, err := PlanMemory(t.Context(), recipe(t, planRecipe, "model=shape", "precision=float16"), MemoryOptions{
		Devices: []devices.Kind{devices.CPU}, Open: func(context.Context, string) (*Base, error) { return &Base{Config: c}, nil },
	})
	if !errors.Is(err, errNoFloat16) {
		t.Errorf("error %v", err)
	}
}
