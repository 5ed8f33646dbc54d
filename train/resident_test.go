//go:build linux

package train

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"autodev/compute/devices"
	"autodev/model"
	"autodev/model/dtype"
	"autodev/tokenizer"
)

// TestResidentMemory: the most memory that a training process ever has, opening the model included, is what its plan says and no
// more beside it than the plan says either.
func TestResidentMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models of some size")
	}
	tok := vocabulary(t)
	folder := filepath.Join(t.TempDir(), "base")
	shape := santaCoder()
	vocab, err := tokenizer.Load(tok)
	if err != nil {
		t.Fatal(err)
	}
	shape.VocabSize, shape.Vocab = vocab.VocabSize(), vocab.VocabSize()
	shape.Embed, shape.Heads, shape.Inner, shape.Layers, shape.Positions = 1024, 8, 4096, 12, 128
	if err := model.SaveFrom(context.Background(), folder, shape, model.Random(shape, 1), model.SaveOptions{DType: dtype.F16, Assets: os.DirFS(tok)}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, yaml string
		sets       []string
	}{
		{"full", fullRecipe, []string{"init={n_layer: 4, n_embd: 512, n_head: 8, n_positions: 256, tokenizer: " + tok + "}", "train.micro_batch=4", "train.accumulation=1"}},
		{"checkpointing", fullRecipe, []string{"init={n_layer: 8, n_embd: 512, n_head: 8, n_positions: 256, tokenizer: " + tok + "}", "train.micro_batch=2", "train.gradient_checkpointing=true"}},
		{"lora", loraRecipe, []string{"model=" + folder, "train.micro_batch=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sets := append(c.sets, "train.steps=2", "train.warmup_steps=0", "eval.max_documents=1", "out="+filepath.Join(t.TempDir(), "out"))
			plan, err := PlanMemory(t.Context(), recipe(t, c.yaml, sets...), MemoryOptions{Open: options().Open, Devices: []devices.Kind{devices.CPU}})
			if err != nil {
				t.Fatal(err)
			}
			cmd, stderr := process(onDisk(t, c.yaml, ""), sets...)
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, stderr)
			}
			peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
			planned := plan.column(t, devices.CPU, strings.Contains(fmt.Sprint(sets), "checkpointing=true"))
			t.Logf("peak %s, planned %s", bytesText(peak), bytesText(planned.Total))
			// Pages of the arena that no value ever lies in, at most a tenth, are never touched. What lies beside the plan is less than
			// usual: the tokenizer is small.
			within(t, "peak resident memory", peak, planned.Total*9/10, planned.Total+planned.Beside/2)
		})
	}
}
