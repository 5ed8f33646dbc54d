package train

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"autodev/compute/cpu"
	"autodev/data"
	"autodev/data/source"
	"autodev/internal/sharedtest"
)

// curveRecipe trains long enough for the loss to fall to less than half.
const curveRecipe = `
init: {n_layer: 2, n_embd: 64, n_head: 4, n_positions: 64}
data:
  train: [{path: memory}]
train:
  steps: 60
  micro_batch: 8
  accumulation: 1
  lr: 5e-3
  warmup_steps: 5
checkpoint: {every: 0}
eval: {max_documents: 10}
`

// curve is the losses of a run's steps and its evaluation's loss at the end.
type curve struct {
	steps []float64
	eval  float64
}

func curveOf(t *testing.T, o Options, yaml string, sets ...string) curve {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	s, err := Run(t.Context(), recipe(t, yaml, append(sets, "out="+out)...), o)
	if err != nil {
		t.Fatal(err)
	}
	c := curve{eval: s.Eval.Loss}
	for _, e := range readRecord(t, out) {
		if e.Train != nil {
			c.steps = append(c.steps, e.Train.Loss)
		}
	}
	return c
}

// distance is the mean absolute difference of two curves' steps.
func (c curve) distance(d curve) float64 {
	sum := 0.0
	for i := range c.steps {
		sum += math.Abs(c.steps[i] - d.steps[i])
	}
	return sum / float64(len(c.steps))
}

// TestBF16Curve: with bf16 the losses differ from float32's, but far less than those of another seed do, and the evaluation at
// the end differs by less than seeds do from each other.
func TestBF16Curve(t *testing.T) {
	sources := map[string]func(t *testing.T) (train, eval data.Source){
		"synthetic": func(*testing.T) (train, eval data.Source) { return documents(0, 400), documents(1000, 20) },
		"corpus": func(t *testing.T) (train, eval data.Source) {
			return files(t, sharedtest.Path(t, "corpus/data/python"), 100), files(t, sharedtest.Path(t, "corpus/test/python"), 10)
		},
	}
	for name, open := range sources {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Train, o.Eval = open(t)
			tokenizer := "init.tokenizer=" + vocabulary(t)
			run := func(seed int, precision string) curve {
				return curveOf(t, o, curveRecipe, tokenizer, fmt.Sprintf("seed=%d", seed), "precision="+precision)
			}
			full, half := run(1, "float32"), run(1, "bf16")
			other, third := run(2, "float32"), run(3, "float32")
			if first, last := full.steps[0], full.steps[len(full.steps)-1]; last > 0.7*first {
				t.Errorf("the loss goes from %v to %v: nothing is learned", first, last)
			}
			between, seeds := full.distance(half), min(full.distance(other), full.distance(third), other.distance(third))
			if between == 0 {
				t.Error("bf16 has float32's losses")
			}
			if between > seeds/4 {
				t.Errorf("losses differ by %v on average with bf16, by %v between seeds", between, seeds)
			}
			spread := max(full.eval, other.eval, third.eval) - min(full.eval, other.eval, third.eval)
			if d := math.Abs(full.eval - half.eval); d > spread {
				t.Errorf("evaluation: float32 %v, bf16 %v, other seeds %v and %v", full.eval, half.eval, other.eval, third.eval)
			}
			t.Logf("mean difference of steps %.5f (seeds %.5f); evaluation %.5f against %.5f (seeds differ by %.5f)", between, seeds, half.eval, full.eval, spread)
		})
	}
}

// files opens the first n documents of a folder of the corpus.
func files(t *testing.T, dir string, n int) data.Source {
	t.Helper()
	src, err := source.Open(t.Context(), source.Options{Column: "content", Format: "auto", MaxDocuments: n, Logger: slog.New(slog.DiscardHandler)}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestBF16LoRA: adapters train in bf16 too, for the bits of any number of threads.
func TestBF16LoRA(t *testing.T) {
	o, model := options(), "model="+base(t)
	full := curveOf(t, o, loraRecipe, model)
	half := curveOf(t, o, loraRecipe, model, "precision=bf16", "threads=1")
	if d := full.distance(half); d == 0 || d > 0.02 {
		t.Errorf("losses differ by %v on average: %v, %v", d, full.steps, half.steps)
	}
	if again := curveOf(t, o, loraRecipe, model, "precision=bf16", "threads=3"); again.distance(half) != 0 || again.eval != half.eval {
		t.Errorf("three threads: %v, one: %v", again, half)
	}
}

// A machine without bf16 is told that it emulates it.
func TestEmulationIsLogged(t *testing.T) {
	var log bytes.Buffer
	o := options()
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	curveOf(t, o, fullRecipe, "init.tokenizer="+vocabulary(t), "precision=bf16", "train.steps=1")
	if got := strings.Contains(log.String(), "emulated"); got == cpu.HasBF16() {
		t.Errorf("bf16 on this machine: %v; log: %s", cpu.HasBF16(), log.String())
	}
}

// A run does not go on with another precision.
func TestResumeRefusesAnotherPrecision(t *testing.T) {
	out, tokenizer := "out="+filepath.Join(t.TempDir(), "out"), "init.tokenizer="+vocabulary(t)
	if _, err := Run(t.Context(), recipe(t, fullRecipe, tokenizer, out, "train.steps=5"), options()); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), recipe(t, fullRecipe, tokenizer, out, "train.steps=5", "precision=bf16"), options())
	if err == nil || !strings.Contains(err.Error(), `precision: found "bf16", expected "float32", with which the run began`) {
		t.Errorf("error %v", err)
	}
}
