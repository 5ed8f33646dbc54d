package tokenizer

import (
	"math"
	"strings"
	"sync"
	"unicode/utf8"
)

// Tokenizer is one vocabulary with its rules. Load, LoadFS, Parse and Train make one.
type Tokenizer struct {
	words        splitter
	nfc          bool
	ignoreMerges bool

	ids     map[string]int32 // token as the vocabulary file spells it → id
	tokens  []token          // by id; the zero token where an id is unused
	merges  []merge          // by rank
	table   mergeTable       // merges that Encode may make
	bytes   [256]int32       // token of each byte, -1 where the vocabulary lacks it
	whole   map[string]int32 // words that are tokens without merging; only when ignoreMerges
	lacking bool             // some byte has no token

	added      []addedToken
	raw        matcher // added tokens that are searched before normalisation
	normalized matcher // added tokens that are searched after it

	fim                FIM
	bos, eos, pad, unk int32

	encoders sync.Pool // of *encoder
}

type token struct {
	text    string // as the vocabulary file spells it
	bytes   string // what it decodes to
	used    bool
	special bool
}

// encoder is the state of one Encode call.
type encoder struct {
	cache wordCache
	merge merger
}

// Encode returns the token ids of text. Nothing in text is taken for an added token and no special token is produced.
func (t *Tokenizer) Encode(text string) []int32 {
	return t.AppendEncode(make([]int32, 0, len(text)/3+8), text)
}

// AppendEncode appends the ids that Encode returns to dst.
func (t *Tokenizer) AppendEncode(dst []int32, text string) []int32 {
	if t.nfc {
		text = nfc(text)
	}
	return t.appendWords(dst, text)
}

// EncodeSpecial is Encode for text that the caller vouches for: added tokens spelled out in it ("<fim-prefix>") become
// those tokens. Never call it on text of a user.
func (t *Tokenizer) EncodeSpecial(text string) []int32 { return t.EncodeMixed(text, nil) }

// Range is a range of bytes, [From, To).
type Range struct{ From, To int }

// EncodeMixed is EncodeSpecial for text of which a user wrote parts: no byte of the given ranges, which are ascending and disjoint, becomes part of an
// added token. The ids are those of EncodeSpecial where the user spelled none out.
func (t *Tokenizer) EncodeMixed(text string, user []Range) []int32 {
	var dst []int32
	t.raw.split(text, user, func(part string, at int, id int32) {
		if id >= 0 {
			dst = append(dst, id)
			return
		}
		own := within(user, at, at+len(part))
		if t.nfc {
			part, own = nfcMixed(part, own)
		}
		t.normalized.split(part, own, func(part string, _ int, id int32) {
			if id >= 0 {
				dst = append(dst, id)
				return
			}
			dst = t.appendWords(dst, part)
		})
	})
	return dst
}

// within returns the parts of ranges in [from, to), counted from there.
func within(ranges []Range, from, to int) []Range {
	var out []Range
	for _, r := range ranges {
		if r = (Range{max(r.From, from) - from, min(r.To, to) - from}); r.From < r.To {
			out = append(out, r)
		}
	}
	return out
}

// nfcMixed normalises s and moves the ranges along with their bytes. What changes in a text with ranges is normalised piece by piece: a combining
// mark of a user does not change what stands before it.
func nfcMixed(s string, ranges []Range) (string, []Range) {
	whole := nfc(s)
	if whole == s || len(ranges) == 0 {
		return whole, ranges
	}
	var b strings.Builder
	moved := make([]Range, len(ranges))
	at := 0
	for i, r := range ranges {
		b.WriteString(nfc(s[at:r.From]))
		moved[i].From = b.Len()
		b.WriteString(nfc(s[r.From:r.To]))
		moved[i].To = b.Len()
		at = r.To
	}
	b.WriteString(nfc(s[at:]))
	return b.String(), moved
}

func (t *Tokenizer) appendWords(dst []int32, text string) []int32 {
	if t.lacking {
		text = t.replaceLacking(text)
	}
	e, _ := t.encoders.Get().(*encoder)
	if e == nil {
		e = new(encoder)
	}
	for i := 0; i < len(text); {
		end := t.words.next(text, i)
		dst = t.appendWord(dst, text[i:end], e)
		i = end
	}
	e.merge.trim()
	t.encoders.Put(e)
	return dst
}

func (t *Tokenizer) appendWord(dst []int32, w string, e *encoder) []int32 {
	if len(w) == 1 {
		if id := t.bytes[w[0]]; id >= 0 {
			dst = append(dst, id)
		}
		return dst
	}
	if len(w) > cacheWordBytes {
		return t.mergeWord(dst, w, e)
	}
	key := keyOf(w)
	entry := &e.cache.entries[key.slot()]
	if entry.key.equal(&key) {
		return append(dst, entry.ids[:entry.n]...)
	}
	start := len(dst)
	dst = t.mergeWord(dst, w, e)
	if n := len(dst) - start; n <= cacheWordIDs {
		entry.key, entry.n = key, uint8(n)
		copy(entry.ids[:], dst[start:])
	}
	return dst
}

func (t *Tokenizer) mergeWord(dst []int32, w string, e *encoder) []int32 {
	if t.whole != nil {
		if id, ok := t.whole[w]; ok {
			return append(dst, id)
		}
	}
	// The merger counts in int32; a word of more than 2 GiB is merged in parts.
	for ; len(w) > math.MaxInt32; w = w[math.MaxInt32:] {
		dst = e.merge.word(dst, w[:math.MaxInt32], &t.bytes, &t.table)
	}
	return e.merge.word(dst, w, &t.bytes, &t.table)
}

// replaceLacking writes U+FFFD for every byte that the vocabulary lacks and that is not part of valid UTF-8. Lacking
// bytes of valid characters stay, and are left out of the ids as the reference implementation does: the StarCoder
// vocabularies lack 0xF1, with which only unassigned characters begin.
func (t *Tokenizer) replaceLacking(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 && t.bytes[text[i]] < 0 {
			b.WriteRune(utf8.RuneError)
		} else {
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}

// VocabSize returns the number of ids, added tokens included: one more than the highest id. The embedding of a model
// may have more rows, as padding.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// ID returns the id of a token as the vocabulary file spells it ("Ġthe", "<fim-prefix>").
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Token returns the spelling of id in the vocabulary file; ok is false when the vocabulary has no such id.
func (t *Tokenizer) Token(id int32) (text string, ok bool) {
	if !t.has(id) {
		return "", false
	}
	return t.tokens[id].text, true
}

// TokenBytes returns a copy of the bytes that id decodes to, which need not be whole characters; nil when the
// vocabulary has no such id.
func (t *Tokenizer) TokenBytes(id int32) []byte {
	if !t.has(id) {
		return nil
	}
	return []byte(t.tokens[id].bytes)
}

// IsSpecial says whether id is a control token: one that the file flags as special, or a FIM, repository or file
// separator token (Qwen's files leave those unflagged).
func (t *Tokenizer) IsSpecial(id int32) bool { return t.has(id) && t.tokens[id].special }

// Specials returns the ids of all control tokens, ascending.
func (t *Tokenizer) Specials() []int32 {
	var ids []int32
	for id := range t.tokens {
		if t.tokens[id].special {
			ids = append(ids, int32(id))
		}
	}
	return ids
}

// BOS returns the beginning-of-sequence token. BOS, EOS, PAD and UNK are those that special_tokens_map.json or
// tokenizer_config.json beside the vocabulary name; without them EOS is the vocabulary's end-of-text token.
func (t *Tokenizer) BOS() (int32, bool) { return t.bos, t.bos >= 0 }

// EOS returns the end-of-sequence token; see BOS.
func (t *Tokenizer) EOS() (int32, bool) { return t.eos, t.eos >= 0 }

// PAD returns the padding token; see BOS.
func (t *Tokenizer) PAD() (int32, bool) { return t.pad, t.pad >= 0 }

// UNK returns the token for what the vocabulary lacks, which Encode never produces; see BOS.
func (t *Tokenizer) UNK() (int32, bool) { return t.unk, t.unk >= 0 }

func (t *Tokenizer) has(id int32) bool {
	return id >= 0 && int(id) < len(t.tokens) && t.tokens[id].used
}
