package tokenizer

// FIM holds the ids of the fill-in-the-middle tokens of a vocabulary. Suffix is the token in front of the suffix and
// Middle the one after which the model writes.
type FIM struct {
	Prefix, Middle, Suffix int32
	Pad                    int32 // -1 when the vocabulary has none
	EndOfText              int32 // ends a FIM example; -1 when the vocabulary has none
}

// fimSpellings lists the spellings in use. The vocabulary's first match counts.
var fimSpellings = []struct{ prefix, middle, suffix, pad, end string }{
	{"<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>", ""},         // SantaCoder
	{"<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", ""},         // StarCoder, StarCoder2
	{"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", ""}, // Qwen2.5-Coder, CodeGemma
	{"▁<PRE>", "▁<MID>", "▁<SUF>", "", "▁<EOT>"},                              // CodeLlama
	{"<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>", "", ""},                  // DeepSeek-Coder: the middle comes after "end", the suffix after "hole"
	{"[PREFIX]", "[MIDDLE]", "[SUFFIX]", "", ""},                              // Codestral
}

// endSpellings lists end-of-text tokens in order of preference.
var endSpellings = []string{"<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>", "<eos>"}

// separatorSpellings lists control tokens besides those of FIM that some files do not flag as special.
var separatorSpellings = []string{"<|repo_name|>", "<|file_sep|>", "<repo_name>", "<file_sep>", "<reponame>", "<filename>"}

// FIM returns the vocabulary's FIM tokens, found by name; ok is false when it has none.
func (t *Tokenizer) FIM() (fim FIM, ok bool) { return t.fim, t.fim.Prefix >= 0 }

// resolveControls finds FIM, end-of-text and separator tokens among the added tokens and marks them as special. Only
// added tokens count: a token that text can produce by merging controls nothing.
func (t *Tokenizer) resolveControls() {
	added := make(map[string]int32, len(t.added))
	for _, a := range t.added {
		added[a.Content] = int32(a.ID)
	}
	mark := func(name string) int32 {
		id, ok := added[name]
		if !ok {
			return -1
		}
		t.tokens[id].special = true
		return id
	}
	end := int32(-1)
	for _, name := range endSpellings {
		if end = mark(name); end >= 0 {
			break
		}
	}
	for _, name := range separatorSpellings {
		mark(name)
	}
	t.bos, t.eos, t.pad, t.unk = -1, end, -1, -1
	t.fim = FIM{-1, -1, -1, -1, -1}
	for _, s := range fimSpellings {
		f := FIM{Prefix: mark(s.prefix), Middle: mark(s.middle), Suffix: mark(s.suffix), Pad: mark(s.pad), EndOfText: end}
		if f.Prefix < 0 || f.Middle < 0 || f.Suffix < 0 || t.fim.Prefix >= 0 {
			continue
		}
		if id := mark(s.end); id >= 0 {
			f.EndOfText = id
		}
		t.fim = f
	}
}
