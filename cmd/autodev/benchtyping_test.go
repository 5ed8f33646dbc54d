package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/eval/typing"
)

// The embedded model while somebody types much faster than people, with its own suggestions and with those of the script.
func TestBenchTyping(t *testing.T) {
	for _, suggest := range []string{"model", "script"} {
		file := filepath.Join(t.TempDir(), "typing.json")
		out := must(t, "bench", "typing", "--files", "1", "--write", "2", "--speed", "40", "--debounce", "1ms", "--max-tokens", "4", "--check", "4", "--suggest", suggest, "--json", file)
		for _, want := range []string{"time to suggestion, p50", "autodev-tiny: ", "answers are those of an engine without cache and speculation", map[string]string{"model": "the models' own", "script": "scripted"}[suggest]} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", suggest, want, out)
			}
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r typing.Report
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		f := r.Figures[0]
		if len(r.Figures) != 1 || len(r.Traces) != 1 || f.Keystrokes != len(r.Traces[0].Steps) || f.Waits == 0 || f.P50 <= 0 || f.CacheHits <= 0 || f.PromptPerKey == nil || *f.PromptPerKey <= 0 {
			t.Errorf("%s: %+v", suggest, f)
		}
		if c := r.Checked; c.Computed+c.Reused != 4 || c.ComputedEqual != c.Computed {
			t.Errorf("%s: %+v", suggest, c)
		}
	}
}

func TestBenchTypingMisuse(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--files 0", "--files 0: expected at least 1"},
		{"--write 1", "--write 1: expected at least 2"},
		{"--max-tokens 0", "--max-tokens 0: expected at least 1"},
		{"--check -1", "--check -1: expected at least 0"},
		{"--speed 0", "--speed 0: expected a positive number"},
		{"--debounce -1s", "--debounce -1s: expected 0 or more"},
		{"--known 2", "--known 2: expected 0 to 1"},
		{"--suggest nothing", "--suggest nothing: expected model or script"},
		{"--suggest script --url http://127.0.0.1:1", "--suggest script: found with --url"},
		{"--llama-server x", "--llama-server and --gguf: expected both or neither"},
		{"--format yaml", "--format yaml: expected one of table, json"},
		{"--lines three", "--lines three: expected"},
		{"--reuse true", "--reuse true: expected exact, shown or off"},
		{"extra", `found argument "extra"`},
	} {
		if o := autodev(t, "", append([]string{"bench", "typing"}, strings.Fields(c.args)...)...); o.code != 2 || !strings.Contains(o.err, c.want) {
			t.Errorf("%s: exit code %d, %s, expected %q", c.args, o.code, o.err, c.want)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"--llama-server nowhere --gguf nowhere", "nowhere"},
		{"--data nowhere", "--data: "},
		{"--write 60", "no file is suited to being typed in"},
	} {
		if o := autodev(t, "", append([]string{"bench", "typing"}, strings.Fields(c.args)...)...); o.code != 1 || !strings.Contains(o.err, c.want) {
			t.Errorf("%s: exit code %d, %s, expected %q", c.args, o.code, o.err, c.want)
		}
	}
}
