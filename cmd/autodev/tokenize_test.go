package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autodev/internal/sharedtest"
)

// runTokens runs the command line with input on standard input.
func runTokens(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	a := app()
	var out, errs bytes.Buffer
	a.Reader, a.Writer, a.ErrWriter = strings.NewReader(input), &out, &errs
	err := a.RunContext(t.Context(), append([]string{"autodev"}, args...))
	return out.String(), err
}

// A vocabulary is trained, text is encoded by it and decoded again.
func TestTokenizerTrainThenTokenize(t *testing.T) {
	code, dir := t.TempDir(), filepath.Join(t.TempDir(), "vocabulary")
	text := strings.Repeat("func add(a, b int) int { return a + b }\n", 40)
	if err := os.WriteFile(filepath.Join(code, "add.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runTokens(t, "", "tokenizer", "train", "--quiet", "--out", dir, "--vocab-size", "270", "--special", "<|endoftext|>", code)
	if err != nil || out != dir+": 270 tokens\n" {
		t.Fatalf("train prints %q, %v", out, err)
	}
	in := "add(\xff) <|endoftext|>\r\n"
	ids, err := runTokens(t, in, "tokenize", "--tokenizer", dir)
	if err != nil || strings.HasPrefix(ids, "0 ") || strings.Contains(ids, " 0 ") {
		t.Fatalf("ids %q, %v", ids, err)
	}
	special, err := runTokens(t, in, "tokenize", "--tokenizer", dir, "--special")
	if err != nil || !strings.Contains(special, " 0 ") {
		t.Fatalf("with --special: ids %q, %v", special, err)
	}
	for _, ids := range []string{ids, special} {
		if got, err := runTokens(t, ids, "tokenize", "--tokenizer", filepath.Join(dir, "tokenizer.json"), "--decode"); err != nil || got != in {
			t.Errorf("decoded %q, %v; want %q", got, err, in)
		}
	}
}

func TestTokenizeSantaCoder(t *testing.T) {
	out, err := runTokens(t, "\t\t x", "tokenize", "--tokenizer", sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil || out != "290 727\n" {
		t.Errorf("prints %q, %v", out, err)
	}
}

func TestTokenizeErrors(t *testing.T) {
	for _, c := range []struct {
		args   []string
		want   string
		misuse bool
	}{
		{[]string{"tokenize", "text"}, `found argument "text"`, true},
		{[]string{"tokenize", "--decode", "--special"}, "--special has no meaning", true},
		{[]string{"tokenize", "--nonsense"}, "nonsense", true},
		{[]string{"tokenize", "--tokenizer", "absent"}, "tokenizer absent: no such file", false},
		{[]string{"tokenizer", "train", "x"}, "--out is missing", true},
		{[]string{"tokenizer", "train", "--out", "y", "x"}, "--vocab-size is missing", true},
		{[]string{"tokenizer", "train", "--out", "y", "--vocab-size", "300"}, "no source", true},
		{[]string{"tokenizer", "train", "--out", "y", "--vocab-size", "300", "absent"}, "absent", false},
	} {
		_, err := runTokens(t, "", c.args...)
		var m misuse
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &m) != c.misuse {
			t.Errorf("%q: error %v (misuse %v), want %q (misuse %v)", c.args, err, errors.As(err, &m), c.want, c.misuse)
		}
	}
}
