package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/model/packed"
)

// TestQuantizeJourney: a model is packed in every format; info, complete and eval take the folder, and say the same as for a
// model whose weights are brought into the format while it is loaded.
func TestQuantizeJourney(t *testing.T) {
	small := smallModel(t)
	dir := t.TempDir()
	prefix := writeText(t, filepath.Join(dir, "prefix.py"), "def add(a, b):\n    return")
	writeText(t, filepath.Join(dir, "docs", "a.py"), strings.Repeat("def sub(a, b):\n    return a - b\n", 20))
	writeText(t, filepath.Join(dir, "docs", "b.py"), strings.Repeat("for i in range(10):\n    print(i)\n", 20))
	docs := filepath.Join(dir, "docs")
	for _, c := range []struct {
		weights string
		args    []string
		same    bool // as while loading
	}{
		{"bf16", nil, true},
		{"int8", nil, true},
		{"int4", nil, true},
		{"int4", []string{"--method", "rtn"}, false},
		{"int4", []string{"--calibration", docs, "--calibration-tokens", "300"}, false},
	} {
		out := filepath.Join(t.TempDir(), "packed")
		o := autodev(t, "", append([]string{"model", "quantize", "--model", small, "--weights", c.weights, "--out", out}, c.args...)...)
		if o.code != 0 || !strings.HasPrefix(o.out, out+"\t"+c.weights+", ") {
			t.Fatalf("%v: %+v", c, o)
		}
		o = autodev(t, "", "model", "info", out, "--verify")
		if o.code != 0 || !strings.Contains(strings.Join(strings.Fields(o.out), " "), "weights "+c.weights+", ") {
			t.Errorf("info %v: %+v", c, o)
		}
		var completions []string
		for _, args := range [][]string{{"--model", out}, {"--model", small, "--weights", c.weights}, {"--model", out, "--huge-pages", "on"}} {
			o := autodev(t, "", append([]string{"complete", "--prefix-file", prefix, "--max-tokens", "12", "--json"}, args...)...)
			var v completeOutput
			if err := json.Unmarshal([]byte(o.out), &v); err != nil || o.code != 0 {
				t.Fatalf("%v: %+v, %v", args, o, err)
			}
			completions = append(completions, v.Text)
		}
		if completions[0] != completions[2] {
			t.Errorf("%v: mapped %q, in huge pages %q", c, completions[0], completions[2])
		}
		if c.same && completions[0] != completions[1] {
			t.Errorf("%v: packed %q, while loading %q", c, completions[0], completions[1])
		}
		o = autodev(t, "", "eval", "perplexity", "--model", out, "--model", small, "--data", docs, "--format", "json")
		if o.code != 0 || !strings.Contains(o.out, filepath.Base(out)) {
			t.Errorf("eval %v: %+v", c, o)
		}
	}
}

func TestQuantizeMisuse(t *testing.T) {
	small := smallModel(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "packed")
	if o := autodev(t, "", "model", "quantize", "--model", small, "--out", out); o.code != 0 {
		t.Fatal(o)
	}
	damaged := filepath.Join(dir, "damaged")
	if err := os.CopyFS(damaged, os.DirFS(out)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(damaged, packed.File)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-200] ^= 4
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	prefix := writeText(t, filepath.Join(dir, "p.py"), "x")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"model", "quantize", "--weights", "int3", "--out", dir + "/x"}, 2, "--weights int3: expected bf16, int8 or int4"},
		{[]string{"model", "quantize", "--method", "best", "--out", dir + "/x"}, 2, "--method best: expected one of search rtn gptq"},
		{[]string{"model", "quantize", "--method", "gptq", "--out", dir + "/x"}, 2, "--calibration is missing: --method gptq needs documents"},
		{[]string{"model", "quantize", "--method", "rtn", "--calibration", dir, "--out", dir + "/x"}, 2, "--calibration: not used by --method rtn, expected gptq"},
		{[]string{"model", "quantize", "--weights", "bf16", "--method", "rtn", "--out", dir + "/x"}, 2, "--method rtn: not for bf16, expected search"},
		{[]string{"model", "quantize", "--calibration-tokens", "0", "--out", dir + "/x"}, 2, "--calibration-tokens 0: expected 1 to 67108864"},
		{[]string{"model", "quantize", "--calibration-tokens", "4611686018427387904", "--out", dir + "/x"}, 2, "--calibration-tokens 4611686018427387904: expected 1 to 67108864"},
		{[]string{"model", "quantize", "--model", small, "--out", out}, 2, "--out " + out + ": exists already, expected a new or empty folder"},
		{[]string{"model", "quantize", "--model", out, "--out", dir + "/x"}, 1, "quantization_config: found weights packed for inference, expected none: use the model folder they were made from"},
		{[]string{"model", "info", damaged, "--verify"}, 1, "the file is damaged"},
		{[]string{"model", "info", small, "--verify"}, 2, "is not a packed folder, expected one"},
		{[]string{"complete", "--model", out, "--weights", "int4", "--prefix-file", prefix}, 2, "--weights: found int4, but the folder "},
		{[]string{"complete", "--model", out, "--adapter", dir, "--prefix-file", prefix}, 2, "are packed, expected a model folder that an adapter can be merged into"},
		{[]string{"complete", "--weights", "fp8", "--prefix-file", prefix}, 2, "--weights fp8: expected one of float32, bf16, int8, int4"},
		{[]string{"eval", "perplexity", "--weights", "fp8", "--data", prefix}, 2, "--weights fp8: expected one of float32, bf16, int8, int4"},
		{[]string{"model", "random", "--like", "gpt5", "--out", dir + "/x"}, 2, "--like gpt5: expected one of santacoder, starcoderbase-1b, tiny_starcoder_py"},
		{[]string{"model", "random", "--out", dir + "/x"}, 2, "expected either --like or --config"},
	} {
		o := autodev(t, "", c.args...)
		if o.code != c.code || !strings.Contains(lastLine(o.err), c.want) {
			t.Errorf("%v: exit code %d, %s\nexpected %d, %s", c.args, o.code, o.err, c.code, c.want)
		}
	}
}

// TestModelRandom: a folder of initial weights that every command takes, the same for the same seed.
func TestModelRandom(t *testing.T) {
	dir := t.TempDir()
	small := smallModel(t)
	var files []string
	for _, name := range []string{"a", "b"} {
		out := filepath.Join(dir, name)
		o := autodev(t, "", "model", "random", "--config", filepath.Join(small, "config.json"), "--tokenizer", small, "--dtype", "bf16", "--seed", "5", "--out", out)
		if o.code != 0 || !strings.Contains(o.out, "BF16") {
			t.Fatal(o)
		}
		b, err := os.ReadFile(filepath.Join(out, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, string(b))
	}
	if files[0] != files[1] {
		t.Error("the same seed gave other weights")
	}
	prefix := writeText(t, filepath.Join(dir, "p.py"), "def f")
	if o := autodev(t, "", "complete", "--model", filepath.Join(dir, "a"), "--prefix-file", prefix, "--max-tokens", "2", "--weights", "int8"); o.code != 0 {
		t.Error(o)
	}
}
