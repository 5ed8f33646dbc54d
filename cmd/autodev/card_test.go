package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

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
