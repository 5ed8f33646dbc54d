package tokenizer

import "unicode/utf8"

// DecodeOption changes what Decode, DecodeBytes and NewStream give.
type DecodeOption uint8

// SkipSpecial leaves control tokens (see IsSpecial) out of the text.
const SkipSpecial DecodeOption = 1

const replacement = "\uFFFD"

// DecodeBytes returns the exact bytes of ids. Ids that the vocabulary does not have (padding rows of a model) are
// left out.
func (t *Tokenizer) DecodeBytes(ids []int32, options ...DecodeOption) []byte {
	skip := skips(options)
	out := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		out = append(out, t.text(id, skip)...)
	}
	return out
}

// Decode returns the text of ids as valid UTF-8: each maximal part of a broken character is U+FFFD, as in Python's and
// Rust's lossy decoding. Use DecodeBytes to get back bytes that are not UTF-8.
func (t *Tokenizer) Decode(ids []int32, options ...DecodeOption) string {
	b := t.DecodeBytes(ids, options...)
	if utf8.Valid(b) {
		return string(b)
	}
	out, rest := appendValid(make([]byte, 0, len(b)+8), b)
	if rest > 0 {
		out = append(out, replacement...)
	}
	return string(out)
}

func (t *Tokenizer) text(id int32, skipSpecial bool) string {
	if !t.has(id) || skipSpecial && t.tokens[id].special {
		return ""
	}
	return t.tokens[id].bytes
}

func skips(options []DecodeOption) bool {
	for _, o := range options {
		if o == SkipSpecial {
			return true
		}
	}
	return false
}

// Stream decodes ids as they come. What it gives out is always whole characters; joined together it is what Decode
// gives for all the ids. A Stream is for one goroutine at a time.
type Stream struct {
	tokenizer   *Tokenizer
	skipSpecial bool
	pending     []byte // beginning of a character, at most 3 bytes between calls
	out         []byte
}

// NewStream returns a Stream at the beginning of a text.
func (t *Tokenizer) NewStream(options ...DecodeOption) *Stream {
	return &Stream{tokenizer: t, skipSpecial: skips(options)}
}

// Push takes the next id and returns the text that became certain by it, often none.
func (s *Stream) Push(id int32) string {
	text := s.tokenizer.text(id, s.skipSpecial)
	if text == "" {
		return ""
	}
	if len(s.pending) == 0 && utf8.ValidString(text) {
		return text
	}
	s.pending = append(s.pending, text...)
	out, rest := appendValid(s.out[:0], s.pending)
	s.out = out
	s.pending = append(s.pending[:0], s.pending[len(s.pending)-rest:]...)
	return string(out)
}

// Flush ends the text: a character left incomplete is returned as U+FFFD. The Stream is then at the beginning of
// another text.
func (s *Stream) Flush() string {
	if len(s.pending) == 0 {
		return ""
	}
	s.pending = s.pending[:0]
	return replacement
}

// appendValid appends b to dst with U+FFFD for what is not UTF-8. rest is the number of bytes at the end of b that it
// left out because they may be the beginning of a character.
func appendValid(dst, b []byte) (_ []byte, rest int) {
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			dst = append(dst, b[0])
			b = b[1:]
			continue
		}
		if r, n := utf8.DecodeRune(b); r != utf8.RuneError || n > 1 {
			dst = append(dst, b[:n]...)
			b = b[n:]
			continue
		}
		n, open := brokenRune(b)
		if open {
			return dst, n
		}
		dst = append(dst, replacement...)
		b = b[n:]
	}
	return dst, 0
}

// brokenRune returns the length of the longest prefix of b that begins some character (Unicode Standard, table 3-7),
// at least 1. b does not start with a whole character. open says that b ends there, so that more bytes could complete
// the character.
func brokenRune(b []byte) (n int, open bool) {
	low, high := byte(0x80), byte(0xBF)
	size := 0
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		size = 2
	case c >= 0xE0 && c <= 0xEF:
		size = 3
		switch c {
		case 0xE0:
			low = 0xA0
		case 0xED:
			high = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		size = 4
		switch c {
		case 0xF0:
			low = 0x90
		case 0xF4:
			high = 0x8F
		}
	default:
		return 1, false
	}
	for n = 1; n < size; n++ {
		if n == len(b) {
			return n, true
		}
		if b[n] < low || b[n] > high {
			return n, false
		}
		low, high = 0x80, 0xBF
	}
	return n, false
}
