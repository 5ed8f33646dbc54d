package jinja

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Text is a string of which some bytes are a user's: they, and nothing computed from anything else, are marked. Every operation of a
// template keeps the marks of the bytes that it keeps.
type Text struct {
	s     string
	marks []Span // ascending, not empty, not touching
}

// Span is a range of bytes, [From, To).
type Span struct{ From, To int }

// Plain is text of the template or of the program.
func Plain(s string) Text { return Text{s: s} }

// User is text of a user.
func User(s string) Text {
	if s == "" {
		return Text{}
	}
	return Text{s, []Span{{0, len(s)}}}
}

func (t Text) String() string { return t.s }

// Marks returns the ranges that are a user's, in ascending order.
func (t Text) Marks() []Span { return t.marks }

// slice returns bytes [i, j).
func (t Text) slice(i, j int) Text {
	if i >= j {
		return Text{}
	}
	out := Text{s: t.s[i:j]}
	for _, m := range t.marks {
		if from, to := max(m.From, i), min(m.To, j); from < to {
			out.marks = append(out.marks, Span{from - i, to - i})
		}
	}
	return out
}

// with returns text s, which was computed from t letter by letter in a way that loses positions: a user's as a whole if any of t is.
func (t Text) with(s string) Text {
	if len(t.marks) > 0 {
		return User(s)
	}
	return Plain(s)
}

// builder joins texts.
type builder struct {
	b     strings.Builder
	marks []Span
}

func (b *builder) add(t Text) {
	at := b.b.Len()
	b.b.WriteString(t.s)
	for _, m := range t.marks {
		m.From, m.To = m.From+at, m.To+at
		if n := len(b.marks); n > 0 && b.marks[n-1].To == m.From {
			b.marks[n-1].To = m.To
		} else {
			b.marks = append(b.marks, m)
		}
	}
}

func (b *builder) text() Text { return Text{b.b.String(), slices.Clone(b.marks)} }

func concat(parts ...Text) Text {
	var b builder
	for _, p := range parts {
		b.add(p)
	}
	return b.text()
}

func (t Text) join(parts []Text) Text {
	var b builder
	for i, p := range parts {
		if i > 0 {
			b.add(t)
		}
		b.add(p)
	}
	return b.text()
}

// strip removes the characters of set, or white space when set is nil, from the sides.
func (t Text) strip(set *string, left, right bool) Text {
	drop := isSpace
	if set != nil {
		drop = func(r rune) bool { return strings.ContainsRune(*set, r) }
	}
	i, j := 0, len(t.s)
	if left {
		i = len(t.s) - len(strings.TrimLeftFunc(t.s, drop))
	}
	if right {
		j = max(i, len(strings.TrimRightFunc(t.s, drop)))
	}
	return t.slice(i, j)
}

// isSpace is Python's str.isspace of one character.
func isSpace(r rune) bool {
	switch {
	case r >= 0x09 && r <= 0x0d, r >= 0x1c && r <= 0x20, r == 0x85, r == 0xa0, r == 0x1680, r >= 0x2000 && r <= 0x200a,
		r == 0x2028, r == 0x2029, r == 0x202f, r == 0x205f, r == 0x3000:
		return true
	}
	return false
}

// split cuts t at every sep, limit times at most unless limit is negative, from the right if asked for.
func (t Text) split(sep string, limit int, fromRight bool) []Text {
	var cuts []int
	if fromRight {
		for end := len(t.s); limit < 0 || len(cuts) < limit; {
			i := strings.LastIndex(t.s[:end], sep)
			if i < 0 {
				break
			}
			cuts, end = append(cuts, i), i
		}
		slices.Reverse(cuts)
	} else {
		for from := 0; limit < 0 || len(cuts) < limit; {
			i := strings.Index(t.s[from:], sep)
			if i < 0 {
				break
			}
			cuts, from = append(cuts, from+i), from+i+len(sep)
		}
	}
	var out []Text
	from := 0
	for _, c := range cuts {
		out, from = append(out, t.slice(from, c)), c+len(sep)
	}
	return append(out, t.slice(from, len(t.s)))
}

// fields cuts t at white space, limit times at most unless limit is negative.
func (t Text) fields(limit int, fromRight bool) []Text {
	out := []Text{}
	if fromRight {
		rest := t.strip(nil, false, true)
		for rest.s != "" {
			i := strings.LastIndexFunc(rest.s, isSpace)
			if i < 0 || limit >= 0 && len(out) == limit {
				out = append(out, rest)
				break
			}
			_, n := utf8.DecodeRuneInString(rest.s[i:])
			out = append(out, rest.slice(i+n, len(rest.s)))
			rest = rest.slice(0, i).strip(nil, false, true)
		}
		slices.Reverse(out)
		return out
	}
	rest := t.strip(nil, true, false)
	for rest.s != "" {
		i := strings.IndexFunc(rest.s, isSpace)
		if i < 0 || limit >= 0 && len(out) == limit {
			return append(out, rest.strip(nil, false, i >= 0 && limit < 0))
		}
		out = append(out, rest.slice(0, i))
		rest = rest.slice(i, len(rest.s)).strip(nil, true, false)
	}
	return out
}

// lines cuts t at line ends.
func (t Text) lines(keepEnds bool) []Text {
	out := []Text{}
	from := 0
	for i := 0; i < len(t.s); {
		r, n := utf8.DecodeRuneInString(t.s[i:])
		i += n
		switch r {
		case '\n', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
		case '\r':
			if i < len(t.s) && t.s[i] == '\n' {
				i, n = i+1, n+1
			}
		default:
			continue
		}
		end := i - n
		if keepEnds {
			end = i
		}
		out, from = append(out, t.slice(from, end)), i
	}
	if from < len(t.s) {
		out = append(out, t.slice(from, len(t.s)))
	}
	return out
}

func (t Text) replace(old string, by Text, limit int) Text {
	if old != "" {
		return by.join(t.split(old, limit, false))
	}
	// Before every character and at the end.
	var b builder
	for i, c := range append(t.runes(), Text{}) {
		if limit < 0 || i < limit {
			b.add(by)
		}
		b.add(c)
	}
	return b.text()
}

// offsets returns where the characters of t begin, and its length.
func (t Text) offsets() []int {
	at := make([]int, 0, len(t.s)+1)
	for i := range t.s {
		at = append(at, i)
	}
	return append(at, len(t.s))
}

// runes returns the characters of t.
func (t Text) runes() []Text {
	at := t.offsets()
	out := make([]Text, len(at)-1)
	for i := range out {
		out[i] = t.slice(at[i], at[i+1])
	}
	return out
}
