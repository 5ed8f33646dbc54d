package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// addedToken is an entry of added_tokens in tokenizer.json. The field names are the file's.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // not inside a word
	LStrip     bool   `json:"lstrip"`      // takes the white space on its left
	RStrip     bool   `json:"rstrip"`      // and on its right
	Normalized bool   `json:"normalized"`  // searched in the normalised text
	Special    bool   `json:"special"`
}

// matcher finds added tokens in a text, leftmost first and longest first: a trie over their bytes.
type matcher struct {
	nodes  []matchNode
	tokens []addedToken
}

type matchNode struct {
	next  map[byte]int32
	token int32 // 1 + index of the token that ends here, or 0
}

func newMatcher(tokens []addedToken) matcher {
	m := matcher{nodes: make([]matchNode, 1), tokens: tokens}
	for i, t := range tokens {
		at := int32(0)
		for _, c := range []byte(t.Content) {
			to, ok := m.nodes[at].next[c]
			if !ok {
				to = int32(len(m.nodes))
				if m.nodes[at].next == nil {
					m.nodes[at].next = make(map[byte]int32)
				}
				m.nodes[at].next[c] = to
				m.nodes = append(m.nodes, matchNode{})
			}
			at = to
		}
		if at != 0 {
			m.nodes[at].token = int32(i) + 1
		}
	}
	return m
}

// longest returns the index and the end of the longest token of s at i; index is -1 when there is none.
func (m *matcher) longest(s string, i int) (index, end int) {
	index = -1
	for at, ok := m.nodes[0].next[s[i]]; ok; at, ok = m.nodes[at].next[s[i]] {
		i++
		if k := m.nodes[at].token; k > 0 {
			index, end = int(k)-1, i
		}
		if i == len(s) {
			break
		}
	}
	return index, end
}

// split calls emit with the parts of s in order and where they begin: an added token with its id, or text between them with id -1. No token has a
// byte of the plain ranges, which are ascending and disjoint, but one that takes white space may take theirs.
func (m *matcher) split(s string, plain []Range, emit func(part string, at int, id int32)) {
	done := 0
	for i := 0; len(m.tokens) > 0 && i < len(s); {
		for len(plain) > 0 && plain[0].To <= i {
			plain = plain[1:]
		}
		limit := len(s)
		if len(plain) > 0 {
			limit = min(limit, plain[0].From)
		}
		if limit <= i {
			i = min(plain[0].To, len(s))
			continue
		}
		index, end := m.longest(s[:limit], i)
		if index < 0 {
			i++
			continue
		}
		t := &m.tokens[index]
		start := i
		i = end
		if t.SingleWord && (wordBefore(s[:start]) || wordAfter(s[end:])) {
			continue
		}
		if t.LStrip {
			for start > done {
				r, n := utf8.DecodeLastRuneInString(s[:start])
				if !unicode.IsSpace(r) {
					break
				}
				start -= n
			}
			start = max(start, done)
		}
		if t.RStrip {
			for end < len(s) {
				r, n := utf8.DecodeRuneInString(s[end:])
				if !unicode.IsSpace(r) {
					break
				}
				end += n
			}
			i = end
		}
		if done < start {
			emit(s[done:start], done, -1)
		}
		emit(s[start:end], start, int32(t.ID))
		done = end
	}
	if done < len(s) {
		emit(s[done:], done, -1)
	}
}

func wordBefore(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func wordAfter(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Unicode regular expressions (UTS 18).
func isWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.In(r, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
