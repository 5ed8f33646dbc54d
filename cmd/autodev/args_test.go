package main

import (
	"strings"
	"testing"
)

func TestFlagsFirst(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"autodev", "autodev"},
		{"autodev data cat a.parquet --format jsonl", "autodev data cat --format jsonl a.parquet"},
		{"autodev data cat --format jsonl a b", "autodev data cat --format jsonl a b"},
		{"autodev data cat a --format=jsonl b --max-docs 3", "autodev data cat --format=jsonl --max-docs 3 a b"},
		{"autodev model info DIR --tensors --format json", "autodev model info --tensors --format json DIR"},
		{"autodev data cat a -- --b", "autodev data cat a -- --b"},
		{"autodev tokenize --file - --tokenizer T", "autodev tokenize --file - --tokenizer T"},
		{"autodev nonsense a --b", "autodev --b nonsense a"},
	} {
		a := app()
		if got := strings.Join(flagsFirst(a, strings.Fields(c.in)), " "); got != c.want {
			t.Errorf("flagsFirst(%s) = %s, expected %s", c.in, got, c.want)
		}
	}
}
