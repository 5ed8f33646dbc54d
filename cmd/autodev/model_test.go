package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runModel runs "autodev model args…" and returns what it printed.
func runModel(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter = &out, &out
	err := a.RunContext(t.Context(), flagsFirst(a, append([]string{"autodev", "model"}, args...)))
	return out.String(), err
}

const (
	mhaFixture = "../../model/testdata/bigcode-mha-erf-untied"
	binFixture = "../../model/testdata/bigcode-padded-bin"
)

func TestModelInfo(t *testing.T) {
	out, err := runModel(t, "info", mhaFixture, "--tensors")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"architecture           gpt_bigcode, files as gpt_bigcode\n", "dimensions             2 layers, width 16, MLP 40, 4 heads of 4, 4 key/value\n",
		"vocabulary             41 rows\n", "parameters             6,704\n", "head                   its own\n", "  head                 656 (9.8 %)\n",
		"file                   model.safetensors, 29.5 kB, 29 tensors\n", "tokenizer              none\n", "lm_head.weight F32 [41 16] model.safetensors\n",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, args := range [][]string{{"info", "--format", "json", binFixture}, {"info", binFixture, "--format=json"}} {
		out, err = runModel(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Parameters struct{ Total int64 }
			KV         map[string]int64 `json:"kv_cache_bytes_per_token"`
			DTypes     []string
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatal(err)
		}
		if v.Parameters.Total != 5232 || v.KV["bf16"] != 2*2*4*2 || len(v.DTypes) != 1 || v.DTypes[0] != "F32" {
			t.Errorf("%v: %+v", args, v)
		}
	}
}

func TestModelConvert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	out, err := runModel(t, "convert", binFixture, "--out", dir, "--dtype", "bf16", "--max-shard-size", "4KB")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "model-00001-of-") {
		t.Errorf("printed %s", out)
	}
	info, err := runModel(t, "info", dir)
	if err != nil || !strings.Contains(info, "BF16") {
		t.Errorf("%v\n%s", err, info)
	}
	_, err = runModel(t, "convert", "--out", dir, mhaFixture)
	if err == nil || err.Error() != "--out "+dir+": exists already, expected a new or empty folder" {
		t.Errorf("error %v", err)
	}
}

func TestModelMisuse(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"info"}, "autodev model info: 0 arguments, expected one: DIR", exitMisuse},
		{[]string{"info", "a", "b"}, "autodev model info: 2 arguments, expected one: DIR", exitMisuse},
		{[]string{"info", mhaFixture, "--format", "xml"}, "--format xml: expected table or json", exitMisuse},
		{[]string{"info", mhaFixture, "--color"}, "flag provided but not defined: --color", exitMisuse},
		{[]string{"info", mhaFixture, "--format"}, "flag needs an argument: --format", exitMisuse},
		{[]string{"info", none}, "model " + none + ": no such file or directory, expected a folder with config.json and weights (or \"autodev-tiny\")", exitFailure},
		{[]string{"convert", mhaFixture}, "model convert: --out is missing, expected the folder to write", exitMisuse},
		{[]string{"convert", mhaFixture, "--out", none, "--dtype", "int4"}, `--dtype: element type "int4", expected f32, bf16 or f16`, exitMisuse},
		{[]string{"convert", mhaFixture, "--out", none, "--layout", "llama"}, "--layout llama: expected gpt_bigcode or gpt2", exitMisuse},
		{[]string{"convert", mhaFixture, "--out", none, "--max-shard-size", "-1"}, `--max-shard-size: size "-1", expected a positive number of bytes, or one with KB, MB or GB`, exitMisuse},
		{[]string{"convert", binFixture, "--out", none, "--layout", "gpt2"}, "layout gpt2: a model of 4 heads with 1 key and value head: gpt2 has no multi-query attention, expected gpt_bigcode", exitFailure},
	} {
		_, err := runModel(t, c.args...)
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%v: error\n  %v\nexpected\n  %s", c.args, err, c.want)
			continue
		}
		if code := report(t.Context(), &bytes.Buffer{}, err); code != c.code {
			t.Errorf("%v: exit code %d, expected %d", c.args, code, c.code)
		}
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a failed conversion left its folder")
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "5GB": 5e9, "3 mb": 3e6, "0": 0, "x": 0, "9999999999999GB": 0, "": 0} {
		if n, err := parseBytes(s); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, expected %d", s, n, err, want)
		}
	}
	for n, want := range map[int64]string{5: "5", 999: "999", 1000: "1,000", 1124886528: "1,124,886,528"} {
		if got := group(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
