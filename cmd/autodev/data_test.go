package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// runData runs one command line of the data command.
func runData(args ...string) (string, int) {
	var out, errs bytes.Buffer
	command := dataCommand()
	a := &cli.App{Name: "autodev", Writer: &out, ErrWriter: &errs, Commands: []*cli.Command{command}, ExitErrHandler: func(*cli.Context, error) {}}
	prepare(command)
	code := report(context.Background(), &errs, a.RunContext(context.Background(), flagsFirst(a, append([]string{"autodev", "data"}, args...))))
	return out.String() + errs.String(), code
}

func TestDataCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "code")
	for name, text := range map[string]string{"x/a.py": "print('<&>')\n", "x/b.go": "package b\n\nvar x = 1", "y/c.py": "c = 2\n"} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, code := runData("cat", dir)
	want := `{"repository":"x","path":"x/a.py","language":"python","content":"print('<&>')\n"}
{"repository":"x","path":"x/b.go","language":"go","content":"package b\n\nvar x = 1"}
{"repository":"y","path":"y/c.py","language":"python","content":"c = 2\n"}
`
	if code != 0 || out != want {
		t.Errorf("cat: exit code %d\n%s\nwant\n%s", code, out, want)
	}
	// What cat prints is a source again.
	lines := filepath.Join(t.TempDir(), "all.jsonl")
	if err := os.WriteFile(lines, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, code := runData("cat", lines); code != 0 || again != want {
		t.Errorf("cat of cat: exit code %d\n%s", code, again)
	}
	if out, code := runData("cat", "--language", "go", "--format", "text", dir); code != 0 || out != "==> x x/b.go (go) <==\npackage b\n\nvar x = 1\n" {
		t.Errorf("text: exit code %d\n%s", code, out)
	}
	if out, code := runData("cat", dir, "--language=go", "--format", "text", "--language", "python", "--max-docs", "2"); code != 0 || strings.Count(out, "==>") != 2 {
		t.Errorf("flags behind SRC: exit code %d\n%s", code, out)
	}
	if out, code := runData("cat", "--max-docs", "1", dir); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("max-docs: exit code %d\n%s", code, out)
	}
	out, code = runData("stats", dir)
	if code != 0 || strings.Join(strings.Fields(out), " ") != "language documents bytes lines repositories go 1 20 3 1 python 2 19 2 2" {
		t.Errorf("stats: exit code %d\n%s", code, out)
	}
	out, code = runData("stats", "--format", "json", dir)
	var stats struct {
		Languages []struct {
			Language  string `json:"language"`
			Documents int    `json:"documents"`
		} `json:"languages"`
	}
	if err := json.Unmarshal([]byte(out), &stats); err != nil || code != 0 || len(stats.Languages) != 2 || stats.Languages[1].Documents != 2 {
		t.Errorf("stats as json: exit code %d, %v\n%s", code, err, out)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"cat"}, exitMisuse, "no SRC is given"},
		{[]string{"cat", "--format", "csv", dir}, exitMisuse, `--format "csv": expected jsonl or text`},
		{[]string{"stats", "--format", "csv", dir}, exitMisuse, `--format "csv": expected table or json`},
		{[]string{"cat", "--max-docs", "-1", dir}, exitMisuse, "--max-docs -1"},
		{[]string{"cat", "--nope", dir}, exitMisuse, "nope"},
		{[]string{"cat", dir, "--max-docs", "x"}, exitMisuse, "max-docs"},
		{[]string{"cat", "--", "--format"}, exitFailure, "--format: no such file"},
		{[]string{"windows", "--tokenizer", filepath.Join(dir, "none"), dir}, exitFailure, "none"},
		{[]string{"windows", dir}, 0, "positions 23 to 1023\n(padding)\n"},
		{[]string{"cat", filepath.Join(dir, "none.parquet")}, exitFailure, "none.parquet: no such file"},
		{[]string{"cat", "--language", "ruby", dir}, exitFailure, "no file of language ruby"},
		{[]string{"stats", "--tokenizer", filepath.Join(dir, "none"), dir}, exitFailure, "none"},
	} {
		if out, code := runData(c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%q: exit code %d, %q; want %d, %q", c.args, code, out, c.code, c.want)
		}
	}
}
