package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"autodev/compute/cuda/cudatest"
)

// onCard runs autodev as a process on the stand-in for a card, with settings of it, and returns what it came to. A card that is lost stays so
// until the process ends.
func onCard(t *testing.T, settings map[string]string, args ...string) outcome {
	t.Helper()
	l := cudatest.Library(t, "")
	cmd := process(t, args...)
	cmd.Env = append(cmd.Env, "AUTODEV_LIBCUDA="+l.CUDA, "AUTODEV_LIBCUBLASLT="+filepath.Dir(l.CublasLt))
	for name, v := range settings {
		cmd.Env = append(cmd.Env, name+"="+v)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// cardRecipe is the workshop's with more steps and checkpoints, for a new model and for adapters of one that is there.
func cardRecipe(w workshop, base string, more ...string) []string {
	args := []string{"train", "--config", w.recipe, "--set", "train.steps=10", "--set", "checkpoint.every=3", "--set", "eval.every=5"}
	if base == "" {
		return append(append(args, w.initSets()...), more...)
	}
	args = append(args, "--set", "model="+base, "--set", "lora={rank: 4, dropout: 0.05, targets: all-linear}", "--set", "train.gradient_checkpointing=true")
	return append(args, more...)
}

// bases are what cardRecipe's runs start from: nothing, and a small model.
func bases(t *testing.T, w workshop) []string {
	out := filepath.Join(t.TempDir(), "base")
	must(t, cardRecipe(w, "", "--device", "cpu", "--out", out)...)
	return []string{"", filepath.Join(out, "final")}
}

var lastLoss = regexp.MustCompile(`last loss ([0-9.]+).*perplexity ([0-9.]+)`)

// figures reads the last loss and perplexity from what train prints.
func figures(t *testing.T, text string) (loss, perplexity float64) {
	t.Helper()
	m := lastLoss.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no loss in %q", text)
	}
	loss, err := strconv.ParseFloat(m[1], 64)
	perplexity, err2 := strconv.ParseFloat(m[2], 64)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return loss, perplexity
}

// TestTrainOnCUDA: full training and adapters, from the command line, learn on a card what they learn on the processor; twice with the same
// bytes; what is left can be scored.
func TestTrainOnCUDA(t *testing.T) {
	w := newWorkshop(t)
	for _, base := range bases(t, w) {
		run := func(name string, settings map[string]string, more ...string) (string, string) {
			out := filepath.Join(t.TempDir(), name)
			o := onCard(t, settings, cardRecipe(w, base, append(more, "--out", out)...)...)
			if o.code != 0 {
				t.Fatalf("exit code %d: %s", o.code, o.err)
			}
			return o.out, filepath.Join(out, "final")
		}
		onCPU, _ := run("cpu", nil, "--device", "cpu")
		onCUDA, final := run("cuda", nil, "--device", "cuda")
		auto, again := run("auto", map[string]string{"AUTODEV_STANDIN_SEED": "3"})
		if !sameFiles(tree(t, final), tree(t, again)) {
			t.Errorf("base %q: device auto, under another schedule, leaves other files", base)
		}
		_, called := run("calls", map[string]string{"AUTODEV_CUDA_GRAPHS": "0"}, "--device", "cuda:0")
		if !sameFiles(tree(t, final), tree(t, called)) {
			t.Errorf("base %q: other files without graphs", base)
		}
		wantLoss, wantPerplexity := figures(t, onCPU)
		for _, text := range []string{onCUDA, auto} {
			loss, perplexity := figures(t, text)
			if loss < wantLoss*0.95 || loss > wantLoss*1.05 || perplexity < wantPerplexity*0.93 || perplexity > wantPerplexity*1.07 {
				t.Errorf("base %q: on the card %s on the processor %s", base, text, onCPU)
			}
		}
		t.Logf("base %q: on the card %s on the processor %s", base, onCUDA, onCPU)
		row := []string{"--model", final}
		if base != "" {
			row = []string{"--model", base, "--adapter", final}
		}
		o := onCard(t, nil, append([]string{"eval", "perplexity", "--data", w.held, "--max-docs", "2", "--device", "auto"}, row...)...)
		if o.code != 0 || !strings.Contains(o.out, "final") {
			t.Errorf("eval: exit code %d: %s%s", o.code, o.out, o.err)
		}
	}
}

// TestLostCard: a card that fails in the middle of a run costs nothing but the steps since the last checkpoint: the message says so in one
// line, the same command goes on, and the end has the bytes of a run that was not disturbed.
func TestLostCard(t *testing.T) {
	w := newWorkshop(t)
	for _, base := range bases(t, w) {
		dir := t.TempDir()
		run := func(out string, lose int) outcome {
			settings := map[string]string{"AUTODEV_STANDIN_LOSE_CODE": "214"}
			if lose > 0 {
				settings["AUTODEV_STANDIN_LOSE_AFTER"] = fmt.Sprint(lose)
			}
			return onCard(t, settings, cardRecipe(w, base, "--device", "cuda", "--out", filepath.Join(dir, out))...)
		}
		if o := run("whole", 0); o.code != 0 {
			t.Fatalf("exit code %d: %s", o.code, o.err)
		}
		want := tree(t, filepath.Join(dir, "whole", "final"))
		lost, resumed := 0, 0
		// In the first step, where calls are launched one by one, then from behind the end down, among graphs of later steps.
		for lose := 40; lost < 3; lose -= 50 {
			if lost == 1 && lose < 40 {
				lose = 450
			}
			if lose < 0 {
				t.Fatalf("base %q: only %d runs lost their card", base, lost)
			}
			out := fmt.Sprint("lost", lose)
			o := run(out, lose)
			if o.code == 0 {
				continue // the run has fewer launches
			}
			lost++
			message := lastLine(o.err)
			if o.code != 1 || !strings.HasPrefix(message, "autodev: ") || !strings.Contains(message, "is lost: ") || !strings.Contains(message, "CUDA_ERROR_ECC_UNCORRECTABLE") ||
				!strings.Contains(message, "start again: training goes on from its last checkpoint") || strings.Count(message, "is lost") != 1 {
				t.Errorf("base %q: exit code %d: %s", base, o.code, o.err)
			}
			o = run(out, 0)
			if o.code != 0 {
				t.Fatalf("base %q: resuming: exit code %d: %s", base, o.code, o.err)
			}
			if strings.Contains(o.err, "resumed after step") {
				resumed++
			}
			t.Logf("base %q: lost at launch %d: %s", base, lose, message)
			if got := tree(t, filepath.Join(dir, out, "final")); !sameFiles(got, want) {
				t.Errorf("base %q: lost at launch %d, the resumed run ends with other bytes in %v, expected %v", base, lose, names(got), names(want))
			}
		}
		if resumed == 0 {
			t.Errorf("base %q: no run had a checkpoint to resume from", base)
		}
	}
}

// TestBadCards: what is wrong with a card is said in one line before anything is trained, and leaves nothing behind.
func TestBadCards(t *testing.T) {
	w := newWorkshop(t)
	for name, c := range map[string]struct {
		settings map[string]string
		args     []string
		want     []string
	}{
		"no such card":  {nil, []string{"--device", "cuda:2"}, []string{"cuda: there is no device 2, expected 0 to 0 (0 is AutoDev stand-in)"}},
		"no driver":     {map[string]string{"AUTODEV_LIBCUDA": w.dir}, []string{"--device", "cuda"}, []string{"cuda: libcuda.so.1 was not found: it comes with the NVIDIA driver, or set AUTODEV_LIBCUDA", "looked in: " + w.dir}},
		"no cuBLASLt":   {map[string]string{"AUTODEV_LIBCUBLASLT": w.dir}, []string{"--device", "cuda"}, []string{"cuda: libcublasLt.so.13 was not found", "looked in: " + w.dir}},
		"an old driver": {map[string]string{"AUTODEV_STANDIN_DRIVER": "10010"}, []string{"--device", "cuda"}, []string{"the NVIDIA driver supports CUDA 10.1, expected at least 11.0"}},
		"an old card":   {map[string]string{"AUTODEV_STANDIN_CAPABILITY": "61"}, []string{"--device", "cuda"}, []string{"compute capability 6.1, expected at least 7.0"}},
		"without bf16":  {map[string]string{"AUTODEV_STANDIN_CAPABILITY": "70"}, []string{"--device", "cuda", "--set", "precision=bf16"}, []string{"has no bfloat16 products", "precision float16 and float32 work"}},
		"too little memory": {map[string]string{"AUTODEV_STANDIN_MEMORY": fmt.Sprint(33 << 20)}, []string{"--device", "cuda", "--set", "train.micro_batch=16"},
			[]string{"out of device memory", "1.0 MiB of 33.0 MiB are free", "what would fit: --set train.micro_batch=2 --set train.accumulation=16 (", " or --device cpu ("}},
		// The card can do what is asked, and a run that becomes many times slower by itself would serve nobody.
		"too little memory, device left open": {map[string]string{"AUTODEV_STANDIN_MEMORY": fmt.Sprint(32<<20 + 300<<10)}, []string{"--device", "auto", "--set", "train.micro_batch=16"},
			[]string{"out of device memory", "what would fit: ", "--device cpu ("}},
	} {
		out := filepath.Join(t.TempDir(), "out")
		o := onCard(t, c.settings, cardRecipe(w, "", append(c.args, "--out", out)...)...)
		for _, want := range c.want {
			if o.code != 1 || o.out != "" || !strings.Contains(lastLine(o.err), want) || !strings.HasPrefix(lastLine(o.err), "autodev: ") {
				t.Errorf("%s: exit code %d, %q, expected %q", name, o.code, o.err, want)
			}
		}
		t.Log(lastLine(o.err))
	}
	// What auto finds wanting it says, once, and computes on the processor.
	o := onCard(t, map[string]string{"AUTODEV_LIBCUDA": w.dir}, cardRecipe(w, "", "--set", "train.steps=1", "--out", filepath.Join(t.TempDir(), "out"))...)
	if o.code != 0 || strings.Count(o.err, "computing on the CPU") != 1 || !strings.Contains(o.err, "libcuda.so.1 was not found") {
		t.Errorf("auto without a driver: exit code %d: %s", o.code, o.err)
	}
}

// TestCardWithoutBFloat16: a V100 trains, scores and completes in float16 where nothing else is asked for, and says so.
func TestCardWithoutBFloat16(t *testing.T) {
	w := newWorkshop(t)
	v100 := map[string]string{"AUTODEV_STANDIN_CAPABILITY": "70"}
	out := filepath.Join(t.TempDir(), "out")
	o := onCard(t, v100, cardRecipe(w, "", "--out", out)...)
	if o.code != 0 || strings.Count(o.err, "training in float16 with loss scaling") != 1 {
		t.Fatalf("train: exit code %d: %s", o.code, o.err)
	}
	_, want := figures(t, o.out)
	row := []string{"--model", filepath.Join(out, "final"), "--device", "cuda"}
	perplexity := func(settings map[string]string, more ...string) outcome {
		return onCard(t, settings, slices.Concat([]string{"eval", "perplexity", "--data", w.held, "--max-docs", "2", "--format", "json"}, row, more)...)
	}
	short, full, refused := perplexity(v100), perplexity(v100, "--weights", "float32"), perplexity(v100, "--weights", "bf16")
	if short.code != 0 || full.code != 0 || short.out == full.out {
		t.Errorf("eval: exit codes %d and %d: %s%s%s%s", short.code, full.code, short.out, full.out, short.err, full.err)
	}
	if refused.code != 2 || !strings.Contains(refused.err, "--weights: found bf16, expected float32, float16, int8 or int4: the card does not multiply in bfloat16") {
		t.Errorf("eval with bf16: exit code %d: %s", refused.code, refused.err)
	}
	t.Logf("training said %v; %s%s", want, short.out, full.out)
	prefix := filepath.Join(w.dir, "prefix.py")
	if err := os.WriteFile(prefix, []byte("def a("), 0o644); err != nil {
		t.Fatal(err)
	}
	o = onCard(t, v100, append([]string{"complete", "--prefix-file", prefix, "--max-tokens", "4"}, row...)...)
	if o.code != 0 {
		t.Errorf("complete: exit code %d: %s", o.code, o.err)
	}
	if o = onCard(t, nil, slices.Concat([]string{"complete", "--prefix-file", prefix, "--weights", "float16"}, row[:3], []string{"cpu"})...); o.code == 0 || !strings.Contains(o.err, "weights: found float16, expected float32, bf16, int8 or int4 on the processor") {
		t.Errorf("float16 on the processor: exit code %d: %s", o.code, o.err)
	}
}
