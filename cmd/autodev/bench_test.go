package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/eval/runtime"
)

// The embedded model in all formats, measured by processes of this command.
func TestBenchRuntime(t *testing.T) {
	t.Setenv(processEnv, "1") // for the measuring processes
	dir := t.TempDir()
	out := must(t, "bench", "runtime", "--weights", "float32,int8", "--kv-cache", "float32,bf16", "--prompt-tokens", "40", "--new-tokens", "6", "--threads", "2",
		"--repeat", "1", "--json", filepath.Join(dir, "all.json"), "--out", filepath.Join(dir, "new", "folder"))
	for _, want := range []string{"Weights", "speculative", "uncached", "float32, KV bf16", "int8, KV bf16", "3072 B", "1536 B", "autodev-tiny: 40 prompt and 6 new tokens"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "DIFFERS") {
		t.Error(out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "all.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r runtime.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 2*2*3 || len(r.Rows[0].IDs) != 6 {
		t.Errorf("%d rows, ids %v", len(r.Rows), r.Rows[0].IDs)
	}
	for name, magic := range map[string]string{
		"runtime.json": "{", "runtime.md": "| Weights", "runtime-latency.svg": "<?xml", "runtime-memory.svg": "<?xml", "runtime-latency.png": "\x89PNG", "runtime-memory.png": "\x89PNG",
	} {
		content, err := os.ReadFile(filepath.Join(dir, "new", "folder", name))
		if err != nil || !strings.HasPrefix(string(content), magic) {
			t.Errorf("%s: %v, begins %.20q", name, err, content)
		}
	}
}

func TestBenchRuntimeMisuse(t *testing.T) {
	t.Setenv(processEnv, "1") // so that no process of this binary is another run of the tests
	for _, c := range []struct{ args, want string }{
		{"--weights float64", "--weights float64: expected formats among"},
		{"--weights int8,int8", "int8 is there already"},
		{"--weights int8=", "expected a folder after the ="},
		{"--kv-cache int2", "--kv-cache int2: expected different formats"},
		{"--threads 0", "--threads 0: expected different numbers"},
		{"--threads 1,1", "--threads 1: expected different numbers"},
		{"--new-tokens 1", "--new-tokens 1: expected at least 2"},
		{"--prompt-tokens 1000 --new-tokens 100", "1100 together, expected at most the context of 1024 of autodev-tiny"},
		{"--format yaml", "--format yaml: expected one of table, markdown, json"},
		{"extra", `found argument "extra"`},
	} {
		if o := autodev(t, "", append([]string{"bench", "runtime"}, strings.Fields(c.args)...)...); o.code != 2 || !strings.Contains(o.err, c.want) {
			t.Errorf("%s: exit code %d, %s, expected %q", c.args, o.code, o.err, c.want)
		}
	}
	if o := autodev(t, "", "bench", "runtime", "--weights", "int8=nowhere", "--repeat", "1"); o.code != 1 || !strings.Contains(o.err, "nowhere") {
		t.Errorf("a folder that is not there: exit code %d, %s", o.code, o.err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	// What cannot be written is found before the measurements, not after.
	for _, flag := range []string{"--json", "--out"} {
		o := autodev(t, "", "bench", "runtime", flag, filepath.Join(file, "below"), "--repeat", "1")
		if o.code != 1 || !strings.Contains(o.err, flag+": ") || strings.Contains(o.err, "measurements") {
			t.Errorf("%s below a file: code %d, %s", flag, o.code, o.err)
		}
	}
	if o := autodev(t, "", "bench", "runtime", "--prompt", "nowhere.txt"); o.code != 1 || !strings.Contains(o.err, "--prompt:") {
		t.Errorf("a prompt that is not there: exit code %d, %s", o.code, o.err)
	}
}
