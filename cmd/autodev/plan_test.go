package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"autodev/compute/devices"
	"autodev/train"
)

// starCoder is config.json with the dimensions of bigcode/starcoder: 15.5 billion parameters.
const starCoder = `{"model_type": "gpt_bigcode", "vocab_size": 49152, "n_positions": 8192, "n_embd": 6144, "n_layer": 40, "n_head": 48, "n_inner": 24576,
	"multi_query": true, "activation_function": "gelu_pytorch_tanh", "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "bos_token_id": 0, "eos_token_id": 0}`

const planRecipe = "data: {train: [{path: nowhere}]}\ntrain: {steps: 1, micro_batch: 1}\n"

// TestPlan: a model of 15 billion parameters is planned from its configuration alone, in seconds.
func TestPlan(t *testing.T) {
	dir := t.TempDir()
	writeText(t, filepath.Join(dir, "star", "config.json"), starCoder)
	recipe := writeText(t, filepath.Join(dir, "recipe.yaml"), "model: "+filepath.Join(dir, "star")+"\nlora: {rank: 16}\n"+planRecipe)
	began := time.Now()
	var m train.Memory
	if err := json.Unmarshal([]byte(must(t, "plan", "--config", recipe, "--memory", "80GB", "--format", "json")), &m); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > time.Minute {
		t.Errorf("it took %v", d)
	}
	if len(m.Columns) != 4 || m.Parameters < 15.5e9 || m.Parameters > 15.6e9 || m.Sequence != 8192 {
		t.Errorf("%+v", m)
	}
	for _, c := range m.Columns {
		known := c.Device == devices.CUDA || devices.Memory() > 0
		if known != (c.LargestMicroBatch != nil) || c.Device == devices.CUDA && c.Memory != 80e9 || c.Device == devices.CPU && c.Memory != devices.Memory() {
			t.Errorf("%+v", c)
		}
		if c.Device == devices.CUDA && c.Checkpointing && *c.LargestMicroBatch < 2 {
			t.Errorf("with checkpointing micro-batches of %d fit into 80 GB", *c.LargestMicroBatch)
		}
	}

	text := must(t, "plan", "--config", recipe, "--device", "cuda", "--memory", "40GB", "--set", "train.micro_batch=2")
	for _, want := range []string{"15.57 billion parameters, 55.21 million trained (lora, rank 16)", "*off", "bf16", "A micro-batch of 2 does not fit into the 40.0 GB of cuda. What would:\n  --set train.micro_batch=1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "cpu") {
		t.Errorf("the CPU was not asked for:\n%s", text)
	}
	if text := must(t, "plan", "--config", recipe, "--device", "cpu", "--memory", "1GB"); !strings.Contains(text, "neither would one sequence of 64 tokens") || strings.Contains(text, "cuda") {
		t.Errorf("the CPU alone, hopeless:\n%s", text)
	}

	// The embedded model, and a whole folder with its tokenizer.
	small := smallModel(t)
	for _, model := range []string{"autodev-tiny", small} {
		text := must(t, "plan", "--config", writeText(t, filepath.Join(dir, "small.yaml"), planRecipe), "--set", "model="+model)
		if !strings.HasPrefix(text, model+": ") || !strings.Contains(text, "the largest micro-batch on cuda needs --memory") {
			t.Errorf("%s:\n%s", model, text)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 3 {
		t.Errorf("planning left files behind: %v, %v", left, err)
	}
}

func TestPlanRefuses(t *testing.T) {
	dir := t.TempDir()
	recipe := writeText(t, filepath.Join(dir, "recipe.yaml"), planRecipe)
	none := filepath.Join(dir, "none")
	broken := writeText(t, filepath.Join(dir, "broken", "config.json"), "{}")
	const size = ", expected a positive number of bytes, or one with KB, MB or GB"
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "--config is missing: the recipe, a YAML file (configs/ has some to start from)"},
		{[]string{"extra"}, 2, `unexpected argument "extra"; settings are given as --set KEY.PATH=VALUE`},
		{[]string{"--config", none}, 1, "read recipe: open " + none + ": no such file or directory"},
		{[]string{"--config", recipe, "--set", "trian.steps=1"}, 2, ""},
		{[]string{"--config", recipe, "--set", "model=" + none}, 1, "model " + none + `: no such file or directory, expected a folder with config.json and weights (or "autodev-tiny")`},
		{[]string{"--config", recipe, "--set", "model=" + filepath.Dir(broken)}, 1, ""},
		{[]string{"--config", recipe, "--memory", "0"}, 2, `--memory: size "0"` + size},
		{[]string{"--config", recipe, "--memory", "-8GB"}, 2, `--memory: size "-8GB"` + size},
		{[]string{"--config", recipe, "--memory", "much"}, 2, `--memory: size "much"` + size},
		{[]string{"--config", recipe, "--memory", "99999999999GB"}, 2, `--memory: size "99999999999GB"` + size},
		{[]string{"--config", recipe, "--device", "gpu"}, 2, "--device gpu: expected cpu or cuda"},
		{[]string{"--config", recipe, "--format", "xml"}, 2, "--format xml: expected text or json"},
	} {
		o := autodev(t, "", append([]string{"plan"}, c.args...)...)
		if c.want == "" {
			if o.code != c.code || o.out != "" || strings.Count(o.err, "\n") != 1 {
				t.Errorf("%v: exit code %d, %q, %q", c.args, o.code, o.out, o.err)
			}
			continue
		}
		refused(t, o, c.code, c.want)
	}
}

// TestDevice: every command that computes takes --device, and says at once what is wrong with it.
func TestDevice(t *testing.T) {
	w := newWorkshop(t)
	t.Setenv("AUTODEV_LIBCUDA", filepath.Join(w.dir, "libcuda.so.1")) // no driver
	for _, c := range [][]string{
		{"train", "--config", w.recipe, "--out", filepath.Join(w.dir, "out")},
		{"eval", "perplexity", "--data", w.held},
		{"serve", "--listen", "127.0.0.1:0"},
		{"complete", "--prefix-file", "-"},
	} {
		_, missing := devices.Resolve(devices.Spec{Kind: devices.CUDA}, slog.Default())
		for device, want := range map[string]struct {
			code    int
			message string
		}{
			"gpu":    {2, fmt.Sprintf("--device gpu: expected %s", devices.Expected)},
			"cpu:1":  {2, fmt.Sprintf("--device cpu:1: expected %s", devices.Expected)},
			"cuda":   {1, missing.Error()},
			"cuda:7": {1, missing.Error()},
		} {
			refused(t, autodev(t, "", append(c, "--device", device)...), want.code, want.message)
		}
	}
	if text := must(t, "eval", "perplexity", "--data", w.held, "--device", "cpu", "--max-docs", "1"); !strings.Contains(text, "autodev-tiny") {
		t.Error(text)
	}
}
