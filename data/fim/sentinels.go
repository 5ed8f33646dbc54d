package fim

import "autodev/tokenizer"

// SentinelsOf returns the special tokens of a vocabulary. Those it lacks are -1; New says so when one of them is needed.
func SentinelsOf(t *tokenizer.Tokenizer) Sentinels {
	f, ok := t.FIM()
	if !ok {
		f = tokenizer.FIM{Prefix: -1, Middle: -1, Suffix: -1, Pad: -1, EndOfText: -1}
	}
	s := Sentinels{Prefix: f.Prefix, Middle: f.Middle, Suffix: f.Suffix, Pad: f.Pad, EOT: f.EndOfText}
	if s.EOT < 0 {
		if id, ok := t.EOS(); ok {
			s.EOT = id
		}
	}
	if s.Pad < 0 {
		if id, ok := t.PAD(); ok {
			s.Pad = id
		}
	}
	return s
}
