package tokenizer_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// hand is a tokenizer.json small enough to check by hand: all 256 bytes with ids from 0, then the merges of the case,
// then the added tokens.
type hand struct {
	normalizer   string
	preTokenizer string
	merges       string
	results      []string // tokens that the merges make
	added        string
	model        string // more fields of the model, with a comma before each
	rest         string // more top-level fields, with a comma after each
}

func (h hand) json() []byte {
	vocab := make(map[string]int)
	n := 0
	for r := rune('!'); n < 256; r++ {
		if r <= '~' || r >= 0xA1 && r != 0xAD && r < 0x100+68 {
			vocab[string(r)] = n
			n++
		}
	}
	for _, s := range h.results {
		vocab[s] = n
		n++
	}
	v, _ := json.Marshal(vocab)
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	return fmt.Appendf(nil, `{%s "normalizer": %s, "pre_tokenizer": %s, "added_tokens": [%s], "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE"%s, "vocab": %s, "merges": [%s]}}`,
		h.rest, or(h.normalizer, "null"), or(h.preTokenizer, `{"type": "ByteLevel", "add_prefix_space": false}`), h.added, h.model, v, h.merges)
}

func tokens(t *testing.T, tok *tokenizer.Tokenizer, ids []int32) []string {
	t.Helper()
	out := []string{}
	for _, id := range ids {
		s, ok := tok.Token(id)
		if !ok {
			t.Fatalf("no token %d", id)
		}
		out = append(out, s)
	}
	return out
}

// Merges apply by rank, then leftmost first.
func TestMergesByHand(t *testing.T) {
	for _, c := range []struct {
		name, text string
		file       hand
		want       []string
	}{
		{"rank before position", "abc", hand{merges: `"b c", "a b"`, results: []string{"bc", "ab"}}, []string{"a", "bc"}},
		{"leftmost first", "aaa", hand{merges: `"a a"`, results: []string{"aa"}}, []string{"aa", "a"}},
		{"pairs", "aaaa", hand{merges: `["a", "a"], ["aa", "aa"]`, results: []string{"aa", "aaaa"}}, []string{"aaaa"}},
		{"two ways to one token", "abc", hand{merges: `"a b", "b c", "a bc", "ab c"`, results: []string{"ab", "bc", "abc"}}, []string{"abc"}},
		{"merges begin with #", "###", hand{merges: `"# #", "## #"`, results: []string{"##", "###"}}, []string{"###"}},
		{"a word is not joined with the next", "a b", hand{merges: `"a Ġ", "Ġ b"`, results: []string{"aĠ", "Ġb"}}, []string{"a", "Ġb"}},
		{"no merge", "é", hand{}, []string{"Ã", "©"}},
		{"ignore_merges takes a whole word", "abc", hand{merges: `"b c"`, results: []string{"bc", "abc"}, model: `, "ignore_merges": true`}, []string{"abc"}},
		{"without it, merges decide", "abc", hand{merges: `"b c"`, results: []string{"bc", "abc"}}, []string{"a", "bc"}},
		{"digits", "a12", hand{merges: `"1 2"`, results: []string{"12"}, preTokenizer: `{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]}`}, []string{"a", "1", "2"}},
		{"digits in runs", "a12", hand{merges: `"1 2"`, results: []string{"12"}, preTokenizer: `{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": false}, {"type": "ByteLevel", "add_prefix_space": false}]}`}, []string{"a", "12"}},
		{"NFC", "e\u0301", hand{normalizer: `{"type": "NFC"}`}, []string{"Ã", "©"}},
		{"NFC in a Sequence", "e\u0301", hand{normalizer: `{"type": "Sequence", "normalizers": [{"type": "NFC"}]}`}, []string{"Ã", "©"}},
	} {
		tok, err := tokenizer.Parse(c.file.json(), "hand")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := tokens(t, tok, tok.Encode(c.text)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// Added tokens by hand: longest first, with the flags of the file.
func TestAddedTokensByHand(t *testing.T) {
	const added = `{"id": 256, "content": "<a>", "special": true}, {"id": 257, "content": "<a><b>", "special": false},
		{"id": 258, "content": "WORD", "single_word": true}, {"id": 259, "content": "<strip>", "lstrip": true, "rstrip": true}, {"id": 260, "content": "ÉÉ", "normalized": true}`
	tok, err := tokenizer.Parse(hand{added: added, normalizer: `{"type": "NFC"}`}.json(), "hand")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		want []string
	}{
		{"x<a>y", []string{"x", "<a>", "y"}},
		{"<a><b>", []string{"<a><b>"}},
		{"<a><a><b>", []string{"<a>", "<a><b>"}},
		{"WORD", []string{"WORD"}},
		{"SWORD", []string{"S", "W", "O", "R", "D"}},
		{"WORD.", []string{"WORD", "."}},
		{"x \n <strip>\t y", []string{"x", "<strip>", "y"}},
		{"E\u0301E\u0301", []string{"ÉÉ"}},
	} {
		if got := tokens(t, tok, tok.EncodeSpecial(c.text)); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
		for _, id := range tok.Encode(c.text) {
			if id >= 256 {
				t.Errorf("Encode(%q) gives the added token %d", c.text, id)
			}
		}
	}
	if tok.IsSpecial(257) || !tok.IsSpecial(256) {
		t.Error("special flags differ from the file's")
	}
}

// A file whose merges spell a special token must not let text become one.
func TestMergesNeverMakeASpecial(t *testing.T) {
	for _, model := range []string{"", `, "ignore_merges": true`} {
		tok, err := tokenizer.Parse(hand{merges: `"E N", "EN D"`, results: []string{"EN", "END"}, model: model,
			added: `{"id": 257, "content": "END", "special": true}`}.json(), "hand")
		if err != nil {
			t.Fatal(err)
		}
		if got := tokens(t, tok, tok.Encode("END")); !slices.Equal(got, []string{"EN", "D"}) {
			t.Errorf("got %q", got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	split := func(pattern, behavior string) string {
		return `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": ` + pattern + `, "behavior": "` + behavior + `", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}`
	}
	nested := strings.Repeat(`{"type": "Sequence", "normalizers": [`, 9) + `{"type": "NFC"}` + strings.Repeat(`]}`, 9)
	for _, c := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "unexpected end of JSON input"},
		{"truncated", hand{}.json()[:200], "line 1"},
		{"not an object", []byte(`[1]`), "found array"},
		{"no model", []byte(`{}`), "model: missing"},
		{"wordpiece", []byte(`{"model": {"type": "WordPiece", "vocab": {"a": 0}}}`), `model.type: found "WordPiece", expected "BPE"`},
		{"unigram", []byte(`{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}`), `model.type: found "Unigram", expected "BPE"`},
		{"dropout", hand{model: `, "dropout": 0.1`}.json(), "model.dropout: found 0.1"},
		{"prefix", hand{model: `, "continuing_subword_prefix": "##"`}.json(), `model.continuing_subword_prefix: found "##"`},
		{"suffix", hand{model: `, "end_of_word_suffix": "</w>"`}.json(), `model.end_of_word_suffix: found "</w>"`},
		{"byte fallback", hand{model: `, "byte_fallback": true`}.json(), "model.byte_fallback: found true"},
		{"normalizer", hand{normalizer: `{"type": "Lowercase"}`}.json(), `normalizer.type: found "Lowercase", expected "NFC"`},
		{"normalizer in a list", hand{normalizer: `{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip"}]}`}.json(), `normalizer.normalizers[1].type: found "Strip"`},
		{"nesting", hand{normalizer: nested}.json(), "nested more than 4 deep"},
		{"no pre-tokenizer", hand{preTokenizer: `null`}.json(), `pre_tokenizer: found none, expected "ByteLevel"`},
		{"metaspace", hand{preTokenizer: `{"type": "Metaspace"}`}.json(), `pre_tokenizer: found "Metaspace"`},
		{"whitespace first", hand{preTokenizer: `{"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "ByteLevel"}]}`}.json(), `pre_tokenizer.pretokenizers[0].type: found "Whitespace"`},
		{"prefix space", hand{preTokenizer: `{"type": "ByteLevel", "add_prefix_space": true}`}.json(), "pre_tokenizer.add_prefix_space: found true"},
		{"no regex", hand{preTokenizer: `{"type": "ByteLevel", "use_regex": false}`}.json(), "pre_tokenizer.use_regex: found false"},
		{"pattern", hand{preTokenizer: split(`{"Regex": "\\w+"}`, "Isolated")}.json(), `pre_tokenizer.pretokenizers[0].pattern.Regex: found "\\w+"`},
		{"string pattern", hand{preTokenizer: split(`{"String": " "}`, "Isolated")}.json(), `pattern: found {"String": " "}`},
		{"behavior", hand{preTokenizer: split(`{"Regex": "x"}`, "Removed")}.json(), `found behavior "Removed"`},
		{"decoder", []byte(strings.Replace(string(hand{}.json()), `"decoder": {"type": "ByteLevel"}`, `"decoder": {"type": "WordPiece"}`, 1)), `decoder.type: found "WordPiece"`},
		{"post-processor", hand{rest: `"post_processor": {"type": "BertProcessing"},`}.json(), `post_processor.type: found "BertProcessing"`},
		{"merge of one", hand{merges: `"ab"`}.json(), `model.merges[0]: found "ab"`},
		{"merge of three", hand{merges: `["a", "b", "c"]`}.json(), `model.merges[0]: found ["a" "b" "c"]`},
		{"merges of numbers", hand{merges: `1, 2`}.json(), "model.merges: expected a list"},
		{"unknown left", hand{merges: `"zz b"`}.json(), `model.merges[0]: "zz" is not in model.vocab`},
		{"unknown right", hand{merges: `"a zz"`}.json(), `model.merges[0]: "zz" is not in model.vocab`},
		{"unknown result", hand{merges: `"a b"`}.json(), `model.merges[0]: "ab" is not in model.vocab`},
		{"negative id", hand{added: `{"id": -1, "content": "x"}`}.json(), `added_tokens[0] ("x"): id -1`},
		{"huge id", hand{added: `{"id": 4000000000, "content": "<x>"}`}.json(), `added_tokens[0] ("<x>"): id 4000000000, expected 0 to 4194303`},
		{"empty added", hand{added: `{"id": 256, "content": ""}`}.json(), "added_tokens[0]: content is empty"},
		{"two ids", hand{added: `{"id": 256, "content": "<x>"}, {"id": 257, "content": "<x>"}`}.json(), `added_tokens[1]: "<x>" has id 257, but 256 before`},
		{"taken id", hand{added: `{"id": 0, "content": "<x>"}`}.json(), `added_tokens[0]: "<x>" has the id 0 of "!"`},
		{"special byte", hand{added: `{"id": 0, "content": "!", "special": true}`}.json(), `"!" is special, but also the token of byte 0x21`},
		{"same id", []byte(`{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": {"a": 0, "b": 0}, "merges": []}}`), `model.vocab: id 0 belongs to both "a" and "b"`},
		{"text as id", []byte(`{"model": {"vocab": {"a": "x"}, "merges": []}}`), "found string, expected int"},
		{"no vocab", []byte(`{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"merges": []}}`), "model.vocab: found no tokens"},
		{"no merges", []byte(`{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": {"a": 0}}}`), "model.merges: missing"},
		{"unk with missing bytes", []byte(`{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"unk_token": "a", "vocab": {"a": 0}, "merges": []}}`), `model.unk_token: found "a"`},
	} {
		_, err := tokenizer.Parse(c.content, "t.json")
		if err == nil || !strings.HasPrefix(err.Error(), "t.json: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", c.name, err, c.want)
		}
	}
}

func TestLoadFiles(t *testing.T) {
	good := string(hand{merges: `"a b"`, results: []string{"ab"}, added: `{"id": 257, "content": "<s>", "special": true}, {"id": 258, "content": "</s>", "special": true}, {"id": 259, "content": "<p>", "special": true}`}.json())
	vocab := func() string {
		var f struct {
			Model struct{ Vocab json.RawMessage }
		}
		if err := json.Unmarshal([]byte(good), &f); err != nil {
			t.Fatal(err)
		}
		return string(f.Model.Vocab)
	}()
	fsys := func(files map[string]string) fstest.MapFS {
		m := fstest.MapFS{}
		for name, text := range files {
			m["m/"+name] = &fstest.MapFile{Data: []byte(text)}
		}
		return m
	}
	tok, err := tokenizer.LoadFS(fsys(map[string]string{"tokenizer.json": good,
		"special_tokens_map.json": `{"bos_token": "<s>", "eos_token": {"content": "</s>"}}`,
		"tokenizer_config.json":   `{"pad_token": "<p>", "unk_token": null}`}), "m")
	if err != nil {
		t.Fatal(err)
	}
	bos, ok1 := tok.BOS()
	eos, ok2 := tok.EOS()
	pad, ok3 := tok.PAD()
	if bos != 257 || eos != 258 || pad != 259 || !ok1 || !ok2 || !ok3 {
		t.Errorf("BOS %d, EOS %d, PAD %d", bos, eos, pad)
	}

	// vocab.json and merges.txt: no digits in merges means the Digits step.
	tok, err = tokenizer.LoadFS(fsys(map[string]string{"vocab.json": vocab, "merges.txt": "#version: 0.2\na b\n",
		"special_tokens_map.json": `{"eos_token": "<|endoftext|>", "additional_special_tokens": ["<fim-prefix>", "<fim-middle>", "<fim-suffix>"]}`}), "m")
	if err != nil {
		t.Fatal(err)
	}
	f, ok := tok.FIM()
	if want := (tokenizer.FIM{Prefix: 258, Middle: 259, Suffix: 260, Pad: -1, EndOfText: 257}); !ok || f != want {
		t.Errorf("FIM %+v, want %+v", f, want)
	}
	if got := tokens(t, tok, tok.Encode("  1ab")); !slices.Equal(got, []string{"Ġ", "Ġ", "1", "ab"}) {
		t.Errorf("got %q", got)
	}

	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", map[string]string{"x": ""}, "found neither tokenizer.json nor vocab.json"},
		{"no merges", map[string]string{"vocab.json": vocab}, "m/merges.txt: file does not exist"},
		{"bad vocab", map[string]string{"vocab.json": "{", "merges.txt": ""}, "m/vocab.json: line 1"},
		{"bad merge", map[string]string{"vocab.json": vocab, "merges.txt": "#version\na b\nabc\n"}, `m/merges.txt: line 3: found "abc"`},
		{"unknown class", map[string]string{"vocab.json": vocab, "merges.txt": "a b\n", "tokenizer_config.json": `{"tokenizer_class": "BertTokenizer"}`}, `tokenizer_class: found "BertTokenizer"`},
		{"bad companion", map[string]string{"tokenizer.json": good, "special_tokens_map.json": `{"eos_token": 3}`}, "m/special_tokens_map.json"},
		{"bad decoder id", map[string]string{"tokenizer.json": good, "tokenizer_config.json": `{"added_tokens_decoder": {"x": {}}}`}, `found id "x"`},
	} {
		if _, err := tokenizer.LoadFS(fsys(c.files), "m"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	missing := filepath.Join(t.TempDir(), "absent")
	if _, err := tokenizer.Load(missing); err == nil || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing: %v", err)
	}
}

// vocab.json + merges.txt give the ids of tokenizer.json.
func TestVocabAndMergesOfPublished(t *testing.T) {
	for _, name := range []string{"gpt2", "santacoder", "starcoder", "starcoder2"} {
		want := load(t, name)
		dir := t.TempDir()
		for _, f := range []string{"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"} {
			content, err := os.ReadFile(filepath.Join(sharedtest.Root(), "tokenizers", name, f))
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, f), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := tokenizer.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, "tokenizers/vectors/gpt2.inp") + "  12 x\n   3"
		sameIDs(t, text, tok.Encode(text), want.Encode(text))
		f1, ok1 := tok.FIM()
		f2, ok2 := want.FIM()
		if f1 != f2 || ok1 != ok2 || tok.VocabSize() != want.VocabSize() {
			t.Errorf("%s: FIM %v %v, VocabSize %d and %d", name, f1, f2, tok.VocabSize(), want.VocabSize())
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(hand{merges: `"a b"`, results: []string{"ab"}}.json(), "ab <x>")
	f.Add(hand{merges: `["a", "b"]`, results: []string{"ab"}, normalizer: `{"type": "NFC"}`, added: `{"id": 300, "content": "<x>", "lstrip": true, "normalized": true}`, model: `, "ignore_merges": true`}.json(), "ab <x>")
	f.Add([]byte(`{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}`), "\xffabc")
	f.Fuzz(func(t *testing.T, content []byte, text string) {
		tok, err := tokenizer.Parse(content, "fuzz")
		if err != nil {
			return
		}
		for _, ids := range [][]int32{tok.Encode(text), tok.EncodeSpecial(text)} {
			for _, id := range ids {
				if _, ok := tok.Token(id); !ok {
					t.Fatalf("id %d is not in the vocabulary", id)
				}
			}
			_ = tok.Decode(ids)
		}
		if slices.ContainsFunc(tok.Encode(text), tok.IsSpecial) {
			t.Fatalf("Encode(%q) holds a special token", text)
		}
		var out strings.Builder
		if err := tok.WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
		again, err := tokenizer.Parse([]byte(out.String()), "written")
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, out.String())
		}
		if !slices.Equal(again.EncodeSpecial(text), tok.EncodeSpecial(text)) {
			t.Fatalf("%q is encoded differently after writing", text)
		}
	})
}

// Reading a file twice gives the same error, although maps are walked in random order.
func TestErrorsAreStable(t *testing.T) {
	vocab := map[string]int{}
	for i := range 50 {
		vocab[fmt.Sprint("t", i)] = i / 2
	}
	v, _ := json.Marshal(vocab)
	content := fmt.Appendf(nil, `{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"vocab": %s, "merges": []}}`, v)
	messages := map[string]bool{}
	for range 20 {
		_, err := tokenizer.Parse(content, "x")
		messages[fmt.Sprint(err)] = true
	}
	if len(messages) != 1 {
		t.Errorf("%d different messages: %q", len(messages), slices.Sorted(maps.Keys(messages)))
	}
}
