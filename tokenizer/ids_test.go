package tokenizer_test

import (
	"slices"
	"strings"
	"testing"

	"autodev/tokenizer"
)

func TestIDs(t *testing.T) {
	tok := small(t)
	for _, ids := range [][]int32{{}, {0}, {7, 0, 260, 12}} {
		text := string(tokenizer.FormatIDs(nil, ids))
		if got, err := tok.ParseIDs(text); err != nil || !slices.Equal(got, ids) {
			t.Errorf("%v: %q is read as %v, %v", ids, text, got, err)
		}
	}
	if got := string(tokenizer.FormatIDs(nil, []int32{1, 22, 3})); got != "1 22 3\n" {
		t.Errorf("FormatIDs: %q", got)
	}
	for text, want := range map[string]string{
		"1 2 x":       `token id 3: found "x", expected a number`,
		"99999999999": "expected a number",
		"5\n-1":       "token id 2: found -1, expected an id of the vocabulary (0 to 305)",
		"306":         "token id 1: found 306",
		"1.5":         `found "1.5"`,
	} {
		if _, err := tok.ParseIDs(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
