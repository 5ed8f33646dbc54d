package infer

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"autodev/tokenizer"
)

// Healing: a cursor in the middle of a word splits it into other tokens than the model has seen the word as. So the last tokens of the
// prefix are left out where a longer token may begin with their text, and the completion has to begin with that text, whatever tokens
// spell it; it is not shown again.

// Bounds of what is left out.
const (
	maxHealTokens = 4
	maxHealBytes  = 48
)

// tokenIndex are the tokens of a vocabulary, but for control tokens, in the order of their bytes.
type tokenIndex struct {
	once   sync.Once
	tokens []indexed
}

type indexed struct {
	bytes string
	id    int32
}

// fill builds the index, the first time.
func (x *tokenIndex) fill(tok *tokenizer.Tokenizer) *tokenIndex {
	x.once.Do(func() {
		x.tokens = make([]indexed, 0, tok.VocabSize())
		for id := range int32(tok.VocabSize()) {
			if b := tok.TokenBytes(id); len(b) > 0 && !tok.IsSpecial(id) {
				x.tokens = append(x.tokens, indexed{string(b), id})
			}
		}
		slices.SortFunc(x.tokens, func(a, b indexed) int { return cmp.Or(strings.Compare(a.bytes, b.bytes), cmp.Compare(a.id, b.id)) })
	})
	return x
}

// from returns the tokens that begin with s.
func (x *tokenIndex) from(s string) []indexed {
	at, _ := slices.BinarySearchFunc(x.tokens, s, func(t indexed, s string) int { return strings.Compare(t.bytes, s) })
	n := 0
	for n < len(x.tokens)-at && strings.HasPrefix(x.tokens[at+n].bytes, s) {
		n++
	}
	return x.tokens[at : at+n]
}

// longer says whether a token begins with s and is longer.
func (x *tokenIndex) longer(s string) bool {
	all := x.from(s)
	return len(all) > 0 && len(all[len(all)-1].bytes) > len(s)
}

// beginning appends to dst the tokens with which a text that begins with s can begin: those that begin with s, and beginnings of s behind
// which others can spell the rest.
func (x *tokenIndex) beginning(dst []int32, s string) []int32 {
	// spelled[i] says that tokens can spell s from the i-th byte on.
	spelled := make([]bool, len(s)+1)
	spelled[len(s)] = true
	for i := len(s) - 1; i >= 0; i-- {
		spelled[i] = len(x.from(s[i:])) > 0
		for j := i + 1; j < len(s) && !spelled[i]; j++ {
			spelled[i] = spelled[j] && len(x.exact(s[i:j])) > 0
		}
	}
	for j := 1; j < len(s); j++ {
		if spelled[j] {
			for _, t := range x.exact(s[:j]) {
				dst = append(dst, t.id)
			}
		}
	}
	for _, t := range x.from(s) {
		dst = append(dst, t.id)
	}
	return dst
}

// exact returns the tokens whose bytes are s.
func (x *tokenIndex) exact(s string) []indexed {
	at, _ := slices.BinarySearchFunc(x.tokens, s, func(t indexed, s string) int { return strings.Compare(t.bytes, s) })
	n := 0
	for n < len(x.tokens)-at && x.tokens[at+n].bytes == s {
		n++
	}
	return x.tokens[at : at+n]
}

// heal leaves out of a prompt the last tokens before the cursor, as many as a longer token may begin with. Something to go on from stays.
func (m *Model) heal(p budgeted) budgeted {
	if m.tok == nil || p.maxNew == 0 || p.prefix == 0 {
		return p
	}
	x := m.tokens.fill(m.tok)
	most := min(p.prefix, maxHealTokens)
	if p.prefix == len(p.ids) {
		most = min(most, len(p.ids)-1)
	}
	text, drop := "", 0
	for n := 1; n <= most; n++ {
		s := string(m.tok.DecodeBytes(p.ids[p.cursor-n : p.cursor]))
		if len(s) > maxHealBytes {
			break
		}
		if utf8.ValidString(s) && x.longer(s) {
			text, drop = s, n
		}
	}
	if drop == 0 {
		return p
	}
	p.ids = slices.Delete(slices.Clone(p.ids), p.cursor-drop, p.cursor)
	p.heal, p.healedNew = text, p.maxNew
	p.cursor, p.prefix = p.cursor-drop, p.prefix-drop
	p.maxNew += drop
	return p
}

// constraint lets a text begin only as it must.
type constraint struct {
	index *tokenIndex
	tok   *tokenizer.Tokenizer
	rest  string // still to be spelled
	ids   []int32
	kept  []float32
}

// apply takes away the logits of all tokens that cannot come next.
func (c *constraint) apply(logits []float32) {
	c.ids = c.index.beginning(c.ids[:0], c.rest)
	c.kept = c.kept[:0]
	for _, id := range c.ids {
		c.kept = append(c.kept, logits[id])
	}
	for i := range logits {
		logits[i] = never
	}
	for i, id := range c.ids {
		logits[id] = c.kept[i]
	}
}

// take notes the token that was chosen.
func (c *constraint) take(id int32) {
	c.rest = c.rest[min(len(c.rest), len(c.tok.TokenBytes(id))):]
}
