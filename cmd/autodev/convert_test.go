package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/model"
	"autodev/model/gguf"
	"autodev/models"
)

// writeTokenizer puts a vocabulary of n tokens, an end of text and single bytes, into a model folder.
func writeTokenizer(t *testing.T, dir string, n int) {
	t.Helper()
	vocab := map[string]int{"<|endoftext|>": 0}
	for b := '!'; len(vocab) < n; b++ {
		vocab[string(b)] = len(vocab)
	}
	text, err := json.Marshal(map[string]any{
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false},
		"decoder":       map[string]any{"type": "ByteLevel"},
		"added_tokens":  []map[string]any{{"id": 0, "content": "<|endoftext|>", "special": true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestConvertToGGUF: the embedded model's F16 weights are in the file bit for bit.
func TestConvertToGGUF(t *testing.T) {
	t.Chdir(t.TempDir())
	out, err := runModel(t, "convert", "--model", "autodev-tiny", "--to", "gguf")
	if err != nil {
		t.Fatal(err)
	}
	if want := "autodev-tiny-F16.gguf\t13.8 MB\t76 tensors: 25 F16, 51 F32\n"; out != want {
		t.Errorf("printed %q, expected %q", out, want)
	}
	f, err := gguf.Open("autodev-tiny-F16.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	fsys, _, err := models.Open(models.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := model.LoadFS(t.Context(), fsys, models.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	for ours, theirs := range map[string]string{
		"transformer.wte.weight": "token_embd.weight", "transformer.h.5.attn.c_attn.weight": "blk.5.attn_qkv.weight", "transformer.h.0.mlp.c_proj.bias": "blk.0.ffn_down.bias",
	} {
		want := ckpt.Weights.Data(ours)
		got := make([]float32, len(want))
		if err := f.ReadFloat32(theirs, got); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%s: element %d: %v, expected %v", theirs, i, got[i], want[i])
			}
		}
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"info", "autodev-tiny-F16.gguf"}, []string{"file autodev-tiny-F16.gguf, GGUF version 3, 13.8 MB\n", "tensors 76: 25 F16, 51 F32\n", "parameters 6,506,240\n",
			"general.architecture starcoder\n", "tokenizer.ggml.tokens 8192 × string\n", "starcoder.attention.layer_norm_epsilon 1e-05\n"}},
		{[]string{"info", "--tensors", "autodev-tiny-F16.gguf"}, []string{"blk.0.attn_qkv.weight F16 [384 256] offset "}},
		{[]string{"info", "--format", "json", "--tensors", "autodev-tiny-F16.gguf"}, []string{`"parameters": 6506240,`, `"general.file_type": 1,`, `"type": "F16",`}},
	} {
		out, err := runModel(t, c.args...)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.TrimSpace(want)) {
				t.Errorf("%v: no %q in\n%s", c.args, want, out)
			}
		}
	}
}

// TestConvertMergesAnAdapter: the file is that of the model which autodev lora merge writes.
func TestConvertMergesAnAdapter(t *testing.T) {
	peft := filepath.FromSlash("../../lora/testdata/peft")
	adapter := filepath.Join(peft, "all-linear", "adapter")
	dir := t.TempDir()
	base, merged := filepath.Join(dir, "base", "m"), filepath.Join(dir, "merged", "m")
	if err := os.CopyFS(base, os.DirFS(filepath.Join(peft, "gpt_bigcode"))); err != nil {
		t.Fatal(err)
	}
	if err := mergeAdapter(t.Context(), base, adapter, merged, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	for name, args := range map[string][]string{"base": {base}, "merged": {merged}, "adapter": {base, "--adapter", adapter}} {
		writeTokenizer(t, args[0], 32)
		file := filepath.Join(dir, name+".gguf")
		if _, err := runModel(t, append([]string{"convert", "--to", "gguf", "--type", "f32", "--out", file}, args...)...); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content[name] = b
	}
	if !bytes.Equal(content["adapter"], content["merged"]) || bytes.Equal(content["adapter"], content["base"]) {
		t.Error("the file with --adapter is not that of the merged model, or the adapter changed nothing")
	}
}

func TestConvertMisuse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.gguf")
	if err := os.WriteFile(file, []byte("not a model"), 0o644); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none.gguf")
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"convert", "--to", "onnx", "autodev-tiny"}, "--to onnx: expected safetensors or gguf", exitMisuse},
		{[]string{"convert", "--to", "gguf"}, "autodev model convert: 0 arguments, expected one: DIR", exitMisuse},
		{[]string{"convert", "--to", "gguf", "--model", "a", "b"}, "model convert: b and --model a, expected one of them", exitMisuse},
		{[]string{"convert", "--to", "gguf", "--type", "q4_k", "autodev-tiny"}, `--type: element type "q4_k", expected f16, bf16, q8_0, q4_0 or f32`, exitMisuse},
		{[]string{"convert", "--to", "gguf", "--dtype", "f16", "autodev-tiny"}, "--dtype: not a flag of --to gguf", exitMisuse},
		{[]string{"convert", "--adapter", "x", "--out", none, "autodev-tiny"}, "--adapter: not a flag of --to safetensors", exitMisuse},
		{[]string{"convert", "--to", "gguf", "--out", file, "autodev-tiny"}, "--out " + file + ": exists already, expected a new file", exitMisuse},
		{[]string{"convert", "--to", "gguf", "--out", none, mhaFixture}, "found neither tokenizer.json nor vocab.json (llama.cpp needs the tokenizer in the file)", exitFailure},
		{[]string{"info", file}, file + `: offset 0: found "not ", expected "GGUF": not a GGUF file`, exitFailure},
		{[]string{"info", "--format", "xml", file}, "--format xml: expected table or json", exitMisuse},
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
		t.Error("a failed conversion left its file")
	}
}
