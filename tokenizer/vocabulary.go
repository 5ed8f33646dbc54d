package tokenizer

import "iter"

// Rules says how a vocabulary cuts text into words, for file formats that name such rules instead of spelling them out.
type Rules struct {
	Pattern      string // "gpt2", "qwen2" or "llama3"
	Digits       string // a Digits step before the pattern: "" for none, "individual" or "contiguous"
	NFC          bool   // text is normalised first
	IgnoreMerges bool   // a word that is a token is not merged
}

// Rules returns the rules of the vocabulary.
func (t *Tokenizer) Rules() Rules {
	return Rules{
		Pattern:      [...]string{patternGPT2: "gpt2", patternQwen: "qwen2", patternLlama3: "llama3"}[t.words.pattern],
		Digits:       [...]string{digitsJoined: "", digitsIndividual: "individual", digitsContiguous: "contiguous"}[t.words.digits],
		NFC:          t.nfc,
		IgnoreMerges: t.ignoreMerges,
	}
}

// Merges yields the two parts of every merge as the vocabulary file spells them, by rank.
func (t *Tokenizer) Merges() iter.Seq2[string, string] {
	return func(yield func(left, right string) bool) {
		for _, m := range t.merges {
			if !yield(t.tokens[m.left].text, t.tokens[m.right].text) {
				return
			}
		}
	}
}

// Added yields the ids of the added tokens, special or not, in the order of the file.
func (t *Tokenizer) Added() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for _, a := range t.added {
			if !yield(int32(a.ID)) {
				return
			}
		}
	}
}
