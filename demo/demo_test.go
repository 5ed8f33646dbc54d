package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"autodev/data"
	"autodev/infer/infertest"
	"autodev/model"
	"autodev/tokenizer"
)

// goFiles writes the text as each of the files below root.
func goFiles(t *testing.T, root, text string, files ...string) {
	t.Helper()
	for _, f := range files {
		p := filepath.Join(root, filepath.FromSlash(f))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadCorpus(t *testing.T) {
	root := t.TempDir()
	var files []string
	for i := range 100 {
		files = append(files, fmt.Sprintf("src/net/pkg%02d/a.go", i), fmt.Sprintf("src/net/pkg%02d/b.go", i))
	}
	goFiles(t, root, "package a\n", files...)
	goFiles(t, root, "package left out\n", "src/net/pkg00/a_test.go", "src/cmd/x/x.go", "src/vendor/v/v.go", "src/net/testdata/t.go", "src/net/pkg00/a.s", "test/z.go")
	goFiles(t, root, "package left out\n"+strings.Repeat("//\n", maxFile/3), "src/net/pkg01/tables.go")
	c, err := readCorpus(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if c.packages != 100 || len(c.train)+len(c.eval) != 200 || c.bytes != len("package a\n")*len(c.train) {
		t.Errorf("%d packages, %d and %d files, %d bytes", c.packages, len(c.train), len(c.eval), c.bytes)
	}
	side := map[string]int{}
	for i, part := range []data.Slice{c.train, c.eval} {
		for _, d := range part {
			if strings.Contains(d.Content, "left out") {
				t.Errorf("%s is in the corpus", d.Path)
			}
			side[d.Repository] |= 1 << i
		}
	}
	for name, s := range side {
		if s == 3 {
			t.Errorf("package %s is on both sides", name)
		}
	}
	if _, err := readCorpus(t.Context(), filepath.Join(root, "none")); err == nil || !strings.HasPrefix(err.Error(), "standard library: ") {
		t.Errorf("no folder: error %v", err)
	}
}

func TestSample(t *testing.T) {
	var docs data.Slice
	for i := range 100 {
		docs = append(docs, data.Document{Path: fmt.Sprint(i), Content: strings.Repeat("x", 100)})
	}
	if got := sample(docs, 1000); len(got) != 10 || got[0].Path != "0" || got[9].Path != "90" {
		t.Errorf("of 10,000 bytes for 1,000: %d documents", len(got))
	}
	if got := sample(docs, 1<<20); len(got) != 100 {
		t.Errorf("of 10,000 bytes for a megabyte: %d documents", len(got))
	}
}

// The calibration fits the steps to the budget and leaves nothing behind, finished or not.
func TestCalibrate(t *testing.T) {
	tok := infertest.Tokenizer(t)
	config := infertest.Config(tok.VocabSize())
	config.Positions = 32
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // of Windows
	var said strings.Builder
	d := &demo{Options: Options{Out: &said, Dir: t.TempDir(), Budget: time.Hour, Threads: 1, Open: func(context.Context, string) (*model.Checkpoint, *tokenizer.Tokenizer, error) {
		c := infertest.Checkpoint(config)
		c.FS = os.DirFS(temp)
		return c, tok, nil
	}}}
	for i := range 40 {
		d.corpus.train = append(d.corpus.train, data.Document{Path: fmt.Sprint(i), Content: fmt.Sprintf("package p%d\n\nfunc F() int { return %d }\n", i, i)})
	}
	empty := func() {
		t.Helper()
		for _, dir := range []string{temp, d.Dir} {
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		}
	}
	if err := d.calibrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	empty()
	planned := d.steps
	if planned < 100 || said.Len() > 0 {
		t.Errorf("with an hour: %d steps, said %q", planned, said.String())
	}
	d.Budget = time.Microsecond
	if err := d.calibrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("10 steps instead of %d", planned); d.steps != 10 || !strings.Contains(said.String(), want) {
		t.Errorf("without time: %d steps, said %q, expected %q", d.steps, said.String(), want)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := d.calibrate(stopped); err == nil {
		t.Error("a stopped calibration gave no error")
	}
	empty()
	d.Steps = 7
	if err := d.calibrate(stopped); err != nil || d.steps != 7 {
		t.Errorf("7 steps asked for: %d, %v", d.steps, err)
	}
}
