package tokenizer

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestVocabulary(t *testing.T) {
	fsys := fstest.MapFS{
		"tokenizer.json": {Data: []byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"aab":3},"merges":["a b","a ab"],"ignore_merges":true},
			"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},
			{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]},"decoder":{"type":"ByteLevel"},
			"added_tokens":[{"id":5,"content":"<|endoftext|>","special":true},{"id":4,"content":"<tag>","special":false}]}`)},
		"tokenizer_config.json": {Data: []byte(`{"unk_token":"<|endoftext|>","pad_token":"<tag>"}`)},
	}
	tok, err := LoadFS(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Rules(), (Rules{Pattern: "gpt2", Digits: "individual", NFC: true, IgnoreMerges: true}); got != want {
		t.Errorf("rules %+v, expected %+v", got, want)
	}
	var merges []string
	for left, right := range tok.Merges() {
		merges = append(merges, left+" "+right)
	}
	if want := []string{"a b", "a ab"}; !slices.Equal(merges, want) {
		t.Errorf("merges %q, expected %q", merges, want)
	}
	if got, want := slices.Collect(tok.Added()), []int32{5, 4}; !slices.Equal(got, want) {
		t.Errorf("added %v, expected %v", got, want)
	}
	if id, ok := tok.UNK(); !ok || id != 5 {
		t.Errorf("UNK %d, %v; expected 5", id, ok)
	}
	if id, ok := tok.BOS(); ok {
		t.Errorf("BOS %d, expected none", id)
	}
}
