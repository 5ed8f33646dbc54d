package main

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/infer/infertest"
	"autodev/model"
)

// TestCompleteOnCUDA: a completion on a card in float32 is the processor's, token for token; with bf16 weights, which auto takes, and int4 ones from a
// packed folder too; what cards cannot do is refused, or done by the processor where the device is left open.
func TestCompleteOnCUDA(t *testing.T) {
	dir := smallModel(t)
	prefix := filepath.Join(t.TempDir(), "prefix.py")
	if err := os.WriteFile(prefix, []byte("def add(a, b):\n    return a + b\n\nfor i in range(10):\n    pri"), 0o600); err != nil {
		t.Fatal(err)
	}
	complete := func(more ...string) []int32 {
		t.Helper()
		o := onCard(t, nil, append([]string{"complete", "--prefix-file", prefix, "--max-tokens", "8", "--json"}, more...)...)
		var out completeOutput
		if err := json.Unmarshal([]byte(o.out), &out); o.code != 0 || err != nil || len(out.IDs) == 0 {
			t.Fatalf("exit code %d: %s%s", o.code, o.out, o.err)
		}
		return out.IDs
	}
	want := complete("--model", dir, "--device", "cpu")
	if got := complete("--model", dir, "--device", "cuda:0", "--weights", "float32"); !slices.Equal(got, want) {
		t.Errorf("on the card %v, on the processor %v", got, want)
	}
	for _, format := range []string{"bf16", "int4"} {
		packed := filepath.Join(t.TempDir(), format)
		must(t, "model", "quantize", "--model", dir, "--weights", format, "--out", packed)
		want := complete("--model", dir, "--device", "cuda", "--weights", format)
		all := [][]string{{"--model", dir, "--weights", format}, {"--model", packed, "--device", "cuda"}, {"--model", packed}}
		if format == "bf16" {
			all = append(all, []string{"--model", dir})
		}
		for _, more := range all {
			if got := complete(more...); !slices.Equal(got, want) {
				t.Errorf("%v: %v, expected %v", more, got, want)
			}
		}
	}
	want = complete("--model", dir, "--device", "cpu", "--weights", "int4", "--kv-cache", "int8")
	if got := complete("--model", dir, "--weights", "int4", "--kv-cache", "int8"); !slices.Equal(got, want) {
		t.Errorf("int8 keys and values, device left open: %v, on the processor %v", got, want)
	}
	for _, more := range [][]string{
		{"--kv-cache", "int8", ", expected auto or bf16: on a CUDA device keys and values are kept like the weights"},
	} {
		o := onCard(t, nil, append([]string{"complete", "--prefix-file", prefix, "--model", dir, "--device", "cuda"}, more[:2]...)...)
		refused(t, o, 2, more[0]+": found "+more[1]+more[2])
	}
	o := onCard(t, map[string]string{"AUTODEV_STANDIN_MEMORY": strconv.Itoa(32<<20 + 64<<10)}, "complete", "--prefix-file", prefix, "--model", dir, "--device", "cuda")
	if o.code != 1 || !strings.Contains(o.err, "out of device memory") || !strings.Contains(o.err, "expected --device cpu") {
		t.Errorf("exit code %d: %s", o.code, o.err)
	}
}

// TestModelsBeyondCards: where the device is left open, a model that a card has no kernels for is computed by the processor, and one line says why;
// a card that was asked for refuses it.
func TestModelsBeyondCards(t *testing.T) {
	w := newWorkshop(t)
	tok := infertest.Tokenizer(t)
	save := func(name string, change func(c *model.Config)) string {
		c := infertest.Config(tok.VocabSize())
		change(&c)
		ckpt, dir := infertest.Checkpoint(c), filepath.Join(t.TempDir(), name)
		if err := errors.Join(model.Save(t.Context(), dir, c, ckpt.Weights, model.SaveOptions{}), tok.Save(dir)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	wide := save("wide", func(c *model.Config) { c.Embed, c.Heads, c.Layers = 264, 1, 1 })
	odd := save("odd", func(c *model.Config) { c.Inner = 81 })
	packed := filepath.Join(t.TempDir(), "packed")
	must(t, "model", "quantize", "--model", odd, "--weights", "int8", "--out", packed)
	prefix := writeText(t, filepath.Join(w.dir, "prefix.py"), "def add(a, b):\n    ret")
	complete := []string{"complete", "--prefix-file", prefix, "--max-tokens", "4", "--model"}
	score := []string{"eval", "perplexity", "--data", w.held, "--max-docs", "1", "--window", "64", "--model"}
	train := append(cardRecipe(w, wide, "--set", "train.steps=1", "--set", "data.sequence=64"), "--out")
	const heads, columns = "attention with a head dimension of 264, expected at most 256", "h.0.mlp.c_proj.weight has 81 columns, expected a multiple of 4 on a CUDA device"
	for name, c := range map[string]struct {
		args []string
		why  string
		code int // on a card
	}{
		"complete":  {append(slices.Clone(complete), wide), heads, 1},
		"eval":      {append(slices.Clone(score), wide), heads, 1},
		"columns":   {append(slices.Clone(complete), odd, "--weights", "int4"), columns, 2},
		"packed":    {append(slices.Clone(score), packed), columns, 2},
		"train":     {append(slices.Clone(train), filepath.Join(t.TempDir(), "tuned")), heads, 1},
		"new model": {append(cardRecipe(w, "", "--set", "init.n_embd=264", "--set", "init.n_head=1", "--set", "train.steps=1"), "--out", filepath.Join(t.TempDir(), "new")), heads, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := onCard(t, nil, append(slices.Clone(c.args), "--device", "cuda")...)
			if o.code != c.code || !strings.Contains(lastLine(o.err), c.why) {
				t.Errorf("on a card: exit code %d: %s", o.code, o.err)
			}
			o = onCard(t, nil, c.args...)
			if o.code != 0 || o.out == "" || strings.Count(o.err, "computing on the CPU") != 1 || strings.Count(o.err, c.why) != 1 {
				t.Errorf("device left open: exit code %d: %s%s", o.code, o.out, o.err)
			}
			if again := onCard(t, nil, append(slices.Clone(c.args), "--device", "auto")...); again.code != 0 {
				t.Errorf("again: exit code %d: %s", again.code, again.err)
			}
		})
	}
}

// TestPerplexityOnCUDA: a table says in what format a card had the weights, and its perplexities are the processor's.
func TestPerplexityOnCUDA(t *testing.T) {
	w := newWorkshop(t)
	dir := smallModel(t)
	score := func(more ...string) (row string, perplexity float64) {
		t.Helper()
		o := onCard(t, nil, append([]string{"eval", "perplexity", "--model", dir, "--data", w.held, "--max-docs", "1", "--window", "128", "--format", "json"}, more...)...)
		var table struct {
			Rows []struct {
				Model      string
				Perplexity float64
			}
		}
		if err := json.Unmarshal([]byte(o.out), &table); o.code != 0 || err != nil || len(table.Rows) != 1 {
			t.Fatalf("exit code %d: %v: %s%s", o.code, err, o.out, o.err)
		}
		return table.Rows[0].Model, table.Rows[0].Perplexity
	}
	_, want := score("--device", "cpu")
	for _, c := range []struct {
		more      []string
		label     string
		tolerance float64
	}{
		{[]string{"--device", "cuda", "--weights", "float32"}, " float32", 1e-4},
		{nil, " bf16", 0.02},
		{[]string{"--device", "cuda", "--weights", "int8"}, " int8", 0.02},
		{[]string{"--weights", "int4"}, " int4", 0.1},
	} {
		row, got := score(c.more...)
		if !strings.HasSuffix(row, c.label) || !(math.Abs(got/want-1) < c.tolerance) {
			t.Errorf("%v: %s has %v, on the processor %v", c.more, row, got, want)
		}
	}
}

// TestModelsOnBadCards: whatever runs a model says in one line what is wrong with a card, before anything is computed.
func TestModelsOnBadCards(t *testing.T) {
	w := newWorkshop(t)
	dir, prefix := smallModel(t), writeText(t, filepath.Join(w.dir, "prefix.py"), "def add(a, b):\n    ret")
	commands := map[string][]string{
		"complete": {"complete", "--prefix-file", prefix, "--max-tokens", "4", "--model", dir},
		"eval":     {"eval", "perplexity", "--data", w.held, "--max-docs", "1", "--model", dir},
		"serve":    {"serve", "--listen", "127.0.0.1:0", "--model", dir},
	}
	const little = 32<<20 + 64<<10
	for name, c := range map[string]struct {
		setting, value, device string
		want                   []string
	}{
		"no such card":                        {"", "", "cuda:2", []string{"cuda: there is no device 2, expected 0 to 0 (0 is AutoDev stand-in)"}},
		"no card":                             {"AUTODEV_STANDIN_DEVICES", "0", "cuda", []string{"CUDA_ERROR_NO_DEVICE"}},
		"no driver":                           {"AUTODEV_LIBCUDA", w.dir, "cuda", []string{"cuda: libcuda.so.1 was not found: it comes with the NVIDIA driver, or set AUTODEV_LIBCUDA", "looked in: " + w.dir}},
		"no cuBLASLt":                         {"AUTODEV_LIBCUBLASLT", w.dir, "cuda", []string{"cuda: libcublasLt.so.13 was not found", "looked in: " + w.dir}},
		"an old driver":                       {"AUTODEV_STANDIN_DRIVER", "10010", "cuda", []string{"the NVIDIA driver supports CUDA 10.1, expected at least 11.0"}},
		"too little memory":                   {"AUTODEV_STANDIN_MEMORY", strconv.Itoa(little), "cuda", []string{"out of device memory", "--device cpu"}},
		"too little memory, device left open": {"AUTODEV_STANDIN_MEMORY", strconv.Itoa(little), "auto", []string{"out of device memory", "--device cpu"}},
		"lost":                                {"AUTODEV_STANDIN_LOSE_AFTER", "9", "cuda", []string{"is lost: ", "CUDA_ERROR_LAUNCH_FAILED"}},
	} {
		settings := map[string]string{}
		if c.setting != "" {
			settings[c.setting] = c.value
		}
		for command, args := range commands {
			if name == "lost" && command == "serve" {
				continue // TestLostCardOfService
			}
			t.Run(name+", "+command, func(t *testing.T) {
				o := onCard(t, settings, append(slices.Clone(args), "--device", c.device)...)
				last := lastLine(o.err)
				for _, want := range c.want {
					if o.code != 1 || o.out != "" || !strings.HasPrefix(last, "autodev: ") || !strings.Contains(last, want) || strings.Count(o.err, want) != 1 {
						t.Errorf("exit code %d: %s%s, expected %q", o.code, o.out, o.err, want)
					}
				}
				t.Log(last)
			})
		}
	}
}

// TestLostCardOfService: a service whose card is lost answers what it has begun with an error and ends, so that it is started again.
func TestLostCardOfService(t *testing.T) {
	l := cudatest.Library(t, "")
	for name, v := range map[string]string{"AUTODEV_LIBCUDA": l.CUDA, "AUTODEV_LIBCUBLASLT": l.CublasLt, "AUTODEV_STANDIN_LOSE_AFTER": "150", "AUTODEV_STANDIN_LOSE_CODE": "214"} {
		t.Setenv(name, v)
	}
	s := startServer(t, "small", "--model", smallModel(t), "--device", "cuda")
	answered := 0
	for ; ; answered++ {
		res := s.post(t, map[string]any{"prompt": "def add(a, b):\n", "max_tokens": 8})
		text, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusOK && answered < 100 {
			continue
		}
		if res.StatusCode != http.StatusInternalServerError || !strings.Contains(string(text), "is lost: ") {
			t.Errorf("%s: %s", res.Status, text)
		}
		break
	}
	if answered == 0 {
		t.Error("the card was lost before the first answer")
	}
	err := s.cmd.Wait()
	last := lastLine(s.errs.String())
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.HasPrefix(last, "autodev: AutoDev stand-in is lost: ") || !strings.Contains(last, "CUDA_ERROR_ECC_UNCORRECTABLE") {
		t.Errorf("%v: %s", err, s.errs)
	}
	t.Log(last)
}
