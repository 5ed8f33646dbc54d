package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
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
