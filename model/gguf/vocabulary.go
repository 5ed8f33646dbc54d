package gguf

import (
	"fmt"

	"autodev/tokenizer"
)

// Token types of tokenizer.ggml.token_type (enum llama_token_type).
const (
	tokenNormal      = 1
	tokenControl     = 3
	tokenUserDefined = 4
	tokenUnused      = 5
)

// preTokenizer returns the name by which llama.cpp knows the rules that cut text into words: its source spells a list of
// regular expressions for each name.
func preTokenizer(r tokenizer.Rules) (string, error) {
	name := map[tokenizer.Rules]string{
		{Pattern: "gpt2"}:                        "gpt-2",
		{Pattern: "gpt2", Digits: "individual"}:  "starcoder",
		{Pattern: "qwen2"}:                       "qwen2",
		{Pattern: "llama3", IgnoreMerges: true}:  "llama-bpe",
		{Pattern: "llama3", IgnoreMerges: false}: "dbrx",
	}
	nfc := r.NFC
	r.NFC = false
	if n, ok := name[r]; ok {
		return n, nil
	}
	r.NFC = nfc
	return "", fmt.Errorf("tokenizer: pattern %s, digits %q, ignore_merges %v: llama.cpp has no pre-tokeniser of these rules", r.Pattern, r.Digits, r.IgnoreMerges)
}

// Words for the tokens of repositories and files, by which llama.cpp builds its own prompts.
var (
	repositoryTokens = []string{"<|repo_name|>", "<repo_name>", "<reponame>"}
	fileTokens       = []string{"<|file_sep|>", "<file_sep>"}
)

// Vocabulary returns the tokenizer as metadata, with notes on what llama.cpp does otherwise. tokens is the number of rows of the
// model's table. bos and eos are the model's own ids, −1 for none, where the tokenizer names none.
func Vocabulary(t *tokenizer.Tokenizer, tokens, bos, eos int) (m Metadata, notes []string, err error) {
	rules := t.Rules()
	pre, err := preTokenizer(rules)
	if err != nil {
		return nil, nil, err
	}
	if t.VocabSize() > tokens {
		return nil, nil, fmt.Errorf("tokenizer of %d tokens, expected at most the model's %d", t.VocabSize(), tokens)
	}
	if rules.NFC {
		notes = append(notes, "the tokenizer normalises text (NFC) and llama.cpp does not: texts with decomposed characters get other tokens there")
	}
	words, kinds := make([]string, tokens), make([]int32, tokens)
	for id := range tokens {
		text, ok := t.Token(int32(id))
		kinds[id] = tokenNormal
		switch {
		case !ok:
			text = fmt.Sprintf("[PAD%d]", id)
			if _, taken := t.ID(text); taken {
				return nil, nil, fmt.Errorf("tokenizer: token %q, which is what llama.cpp calls an id without a token", text)
			}
			kinds[id] = tokenUnused
		case t.IsSpecial(int32(id)):
			kinds[id] = tokenControl
		}
		words[id] = text
	}
	for id := range t.Added() {
		if !t.IsSpecial(id) {
			kinds[id] = tokenUserDefined
			notes = append(notes, fmt.Sprintf("token %q is added but not special: llama.cpp finds it in every text", words[id]))
		}
	}
	var merges []string
	for left, right := range t.Merges() {
		merges = append(merges, left+" "+right)
	}
	m = Metadata{
		{"tokenizer.ggml.model", "gpt2"},
		{"tokenizer.ggml.pre", pre},
		{"tokenizer.ggml.tokens", words},
		{"tokenizer.ggml.token_type", kinds},
		{"tokenizer.ggml.merges", merges},
	}
	or := func(id int32, ok bool, other int) int {
		if ok {
			return int(id)
		}
		return other
	}
	named := func(names []string) int {
		for _, n := range names {
			if id, ok := t.ID(n); ok && t.IsSpecial(id) {
				return int(id)
			}
		}
		return -1
	}
	fim, _ := t.FIM()
	idBOS, okBOS := t.BOS()
	idEOS, okEOS := t.EOS()
	idUnknown, okUnknown := t.UNK()
	idPad, okPad := t.PAD()
	for _, own := range []struct {
		name string
		id   *int
	}{{"bos_token_id", &bos}, {"eos_token_id", &eos}} {
		if *own.id >= tokens {
			notes = append(notes, fmt.Sprintf("%s: %d is left out, because the last token is %d", own.name, *own.id, tokens-1))
			*own.id = -1
		}
	}
	end := or(idEOS, okEOS, eos)
	for _, s := range []struct {
		key string
		id  int
	}{
		{"bos", or(idBOS, okBOS, bos)}, {"eos", end}, {"eot", int(fim.EndOfText)},
		{"unknown", or(idUnknown, okUnknown, -1)}, {"padding", or(idPad, okPad, -1)},
		{"fim_pre", int(fim.Prefix)}, {"fim_suf", int(fim.Suffix)}, {"fim_mid", int(fim.Middle)}, {"fim_pad", int(fim.Pad)},
		{"fim_rep", named(repositoryTokens)}, {"fim_sep", named(fileTokens)},
	} {
		if s.id >= 0 {
			m = append(m, KV{"tokenizer.ggml." + s.key + "_token_id", uint32(s.id)})
		}
	}
	if end < 0 {
		notes = append(notes, "neither tokenizer nor model name an end-of-text token: llama.cpp takes token 11 for it")
	}
	return append(m, KV{"tokenizer.ggml.add_bos_token", false}, KV{"tokenizer.ggml.add_eos_token", false}), notes, nil
}
