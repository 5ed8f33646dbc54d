package tokenizer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/tokenizer"
)

func documents(texts ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, t := range texts {
			if !yield(t, nil) {
				return
			}
		}
	}
}

func train(t testing.TB, c tokenizer.TrainConfig, texts ...string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Train(t.Context(), c, documents(texts...))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// file is what the tests look at in a tokenizer.json.
type file struct {
	Model struct {
		Vocab  map[string]int
		Merges []json.RawMessage
	}
}

func parseFile(t *testing.T, content []byte) (vocab map[string]int, merges []string) {
	t.Helper()
	var f file
	if err := json.Unmarshal(content, &f); err != nil {
		t.Fatal(err)
	}
	for _, m := range f.Model.Merges {
		var s string
		var pair []string
		if json.Unmarshal(m, &s) != nil {
			if err := json.Unmarshal(m, &pair); err != nil {
				t.Fatal(err)
			}
			s = strings.Join(pair, " ")
		}
		merges = append(merges, s)
	}
	return f.Model.Vocab, merges
}

func writeJSON(t *testing.T, tok *tokenizer.Tokenizer) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tok.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// testdata/train.py made train.json with the Hugging Face trainer.
func TestTrainEqualsHuggingFace(t *testing.T) {
	text, err := os.ReadFile("testdata/train.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/train.json")
	if err != nil {
		t.Fatal(err)
	}
	tok := train(t, tokenizer.TrainConfig{
		VocabSize:          700,
		Specials:           []string{"<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"},
		DigitsIndividually: true,
	}, string(text))
	gotVocab, gotMerges := parseFile(t, writeJSON(t, tok))
	wantVocab, wantMerges := parseFile(t, want)
	for i := range wantMerges {
		if i >= len(gotMerges) || gotMerges[i] != wantMerges[i] {
			t.Fatalf("merge %d: got %q, want %q", i, gotMerges[i:min(i+3, len(gotMerges))], wantMerges[i])
		}
	}
	if len(gotMerges) != len(wantMerges) || len(gotVocab) != len(wantVocab) {
		t.Fatalf("got %d merges, %d tokens; want %d, %d", len(gotMerges), len(gotVocab), len(wantMerges), len(wantVocab))
	}
	for s, id := range wantVocab {
		if gotVocab[s] != id {
			t.Errorf("%q: got id %d, want %d", s, gotVocab[s], id)
		}
	}
}

// The words are "aab" ×3 and "ab" ×2. Pairs: ab 5, aa 3. After ab → X: aX 3. Nothing else occurs.
func TestTrainByHand(t *testing.T) {
	tok := train(t, tokenizer.TrainConfig{VocabSize: 300, Specials: []string{"<|endoftext|>"}}, "aab\naab\naab", "ab", "\nab")
	_, merges := parseFile(t, writeJSON(t, tok))
	want := []string{"a b", "a ab"}
	if !slices.Equal(merges, want) {
		t.Fatalf("merges %q, want %q", merges, want)
	}
	if tok.VocabSize() != 1+256+2 {
		t.Errorf("VocabSize %d, want 259", tok.VocabSize())
	}
	a, _ := tok.ID("a")
	sameIDs(t, "aaab", tok.Encode("aaab"), []int32{a, 258})
	if eos, ok := tok.EOS(); !ok || eos != 0 {
		t.Errorf("EOS %d, %v", eos, ok)
	}
}

// Of equally frequent pairs the one with the lower ids is merged first: "ab" before "cd", whatever comes first.
func TestTrainTies(t *testing.T) {
	for _, texts := range [][]string{{"cd cd", "ab", "ab"}, {"ab", "cd", "ab", "cd"}} {
		_, merges := parseFile(t, writeJSON(t, train(t, tokenizer.TrainConfig{VocabSize: 258, MinFrequency: 1}, texts...)))
		if want := []string{"a b", "c d"}; !slices.Equal(merges, want) {
			t.Errorf("%q: merges %q, want %q", texts, merges, want)
		}
	}
}

func TestTrainNeverMakesASpecial(t *testing.T) {
	tok := train(t, tokenizer.TrainConfig{VocabSize: 400, Specials: []string{"END"}, MinFrequency: 1}, strings.Repeat("END ", 50))
	for _, text := range []string{"END", " END", "ENDEND"} {
		if ids := tok.Encode(text); slices.ContainsFunc(ids, tok.IsSpecial) {
			t.Errorf("Encode(%q) = %v", text, ids)
		}
	}
	if ids := tok.EncodeSpecial("END"); !slices.Equal(ids, []int32{0}) {
		t.Errorf("EncodeSpecial: %v", ids)
	}
}

func TestTrainRefuses(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("shard 3 is unreadable")
	failing := func(yield func(string, error) bool) {
		_ = yield("abc", nil) && yield("", broken)
	}
	for _, c := range []struct {
		name      string
		ctx       context.Context
		config    tokenizer.TrainConfig
		documents iter.Seq2[string, error]
		want      string
	}{
		{"small", t.Context(), tokenizer.TrainConfig{VocabSize: 256, Specials: []string{"<x>"}}, documents("a"), "vocabulary size 256, expected at least 257"},
		{"huge", t.Context(), tokenizer.TrainConfig{VocabSize: 1 << 30}, documents("a"), "expected at most 4194304"},
		{"twice", t.Context(), tokenizer.TrainConfig{VocabSize: 300, Specials: []string{"<x>", "<x>"}}, documents("a"), `"<x>" is given twice`},
		{"empty special", t.Context(), tokenizer.TrainConfig{VocabSize: 300, Specials: []string{""}}, documents("a"), "special token 0 is empty"},
		{"byte", t.Context(), tokenizer.TrainConfig{VocabSize: 300, Specials: []string{"a"}}, documents("a"), `"a" is the token of a byte`},
		{"frequency", t.Context(), tokenizer.TrainConfig{VocabSize: 300, MinFrequency: -1}, documents("a"), "minimum frequency -1"},
		{"nothing", t.Context(), tokenizer.TrainConfig{VocabSize: 300}, documents(), "the documents are empty"},
		{"source", t.Context(), tokenizer.TrainConfig{VocabSize: 300}, failing, "shard 3 is unreadable"},
		{"canceled", canceled, tokenizer.TrainConfig{VocabSize: 300}, documents("a"), "context canceled"},
	} {
		_, err := tokenizer.Train(c.ctx, c.config, c.documents)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", c.name, err, c.want)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	specials := []string{"<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"}
	text := strings.Repeat("func main() { return 42 }\n\tfor i := range 10 {}\n", 20)
	tok := train(t, tokenizer.TrainConfig{VocabSize: 320, Specials: specials, DigitsIndividually: true}, text)
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if err := tok.Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "tokenizer.json")} {
		again, err := tokenizer.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		sameIDs(t, text, again.Encode(text), tok.Encode(text))
		if !bytes.Equal(writeJSON(t, again), writeJSON(t, tok)) {
			t.Error("written again, the file differs")
		}
		f1, ok1 := again.FIM()
		f2, ok2 := tok.FIM()
		if f1 != f2 || !ok1 || !ok2 || f1 != (tokenizer.FIM{Prefix: 1, Middle: 2, Suffix: 3, Pad: 4, EndOfText: 0}) {
			t.Errorf("FIM %v %v", f1, f2)
		}
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tok.Save(blocked); err == nil || !strings.Contains(err.Error(), "save tokenizer") {
		t.Errorf("Save over a file: %v", err)
	}
}

// Every published file, written by us and read again, is the same vocabulary.
func TestWritePublished(t *testing.T) {
	for _, name := range published {
		tok := load(t, name)
		again, err := tokenizer.Parse(writeJSON(t, tok), name)
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, "tokenizers/vectors/gpt2.inp")
		sameIDs(t, text, again.Encode(text), tok.Encode(text))
		if again.VocabSize() != tok.VocabSize() || !slices.Equal(again.Specials(), tok.Specials()) {
			t.Errorf("%s: %d tokens, specials %v", name, again.VocabSize(), again.Specials())
		}
	}
}

func BenchmarkTrain(b *testing.B) {
	var texts []string
	size := 0
	corpus(b, "data/python/data-00000-*.parquet", func(_ string, d document) bool {
		texts = append(texts, d.Content)
		size += len(d.Content)
		return size < 8<<20
	})
	b.SetBytes(int64(size))
	for b.Loop() {
		train(b, tokenizer.TrainConfig{VocabSize: 8192, Specials: []string{"<|endoftext|>"}, DigitsIndividually: true}, texts...)
	}
}
