package tokenizer

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// nfc returns s in Unicode normalisation form C; bytes that are not UTF-8 stay. norm.NFC alone will not do: it keeps
// to the Stream-Safe Text Format, which adds U+034F to long runs of combining marks, and so differs from the standard
// form that the reference implementation computes.
func nfc(s string) string {
	ascii := 0
	for ascii < len(s) && s[ascii] < utf8.RuneSelf {
		ascii++
	}
	if ascii == len(s) {
		return s
	}
	n := norm.NFC.QuickSpanString(s)
	if n == len(s) {
		return s
	}
	// Go back to a character that nothing before it can change.
	for n > 0 {
		_, size := utf8.DecodeLastRuneInString(s[:n])
		n -= size
		if norm.NFC.PropertiesString(s[n:]).BoundaryBefore() {
			break
		}
	}
	out := append(make([]byte, 0, len(s)+len(s)/8), s[:n]...)
	var run []mark // one starter with the marks after it, decomposed
	flush := func() {
		out = appendComposed(out, run)
		run = run[:0]
	}
	var buf []byte
	for i := n; i < len(s); {
		if s[i] < utf8.RuneSelf && i+1 < len(s) && s[i+1] < utf8.RuneSelf {
			flush()
			out = append(out, s[i])
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			flush()
			out = append(out, s[i])
			i++
			continue
		}
		buf = norm.NFD.AppendString(buf[:0], s[i:i+size])
		i += size
		for j := 0; j < len(buf); {
			p := norm.NFD.Properties(buf[j:])
			r, size := utf8.DecodeRune(buf[j:])
			j += size
			m := mark{r, p.CCC()}
			if m.ccc == 0 && len(run) > 0 && !joins(run, r) {
				flush()
			}
			run = append(run, m)
		}
	}
	flush()
	return string(out)
}

type mark struct {
	r   rune
	ccc uint8 // canonical combining class
}

// joins says whether the starter r may compose with what is before it (Hangul, and a few Indic vowel signs), so that
// the run must go on.
func joins(run []mark, r rune) bool {
	_, ok := compose(run[len(run)-1].r, r)
	if ok {
		return true
	}
	// The last rune may itself compose with its predecessor first: Hangul L, V, T.
	if len(run) >= 2 {
		if c, ok := compose(run[len(run)-2].r, run[len(run)-1].r); ok {
			_, ok = compose(c, r)
			return ok
		}
	}
	return false
}

// appendComposed orders the marks of run canonically, composes it (Unicode Standard, section 3.11) and appends it.
func appendComposed(dst []byte, run []mark) []byte {
	for i := 0; i < len(run); {
		if run[i].ccc == 0 {
			i++
			continue
		}
		j := i
		for j < len(run) && run[j].ccc != 0 {
			j++
		}
		slices.SortStableFunc(run[i:j], func(a, b mark) int { return int(a.ccc) - int(b.ccc) })
		i = j
	}
	starter, kept := -1, 0
	last := -1 // combining class of the last mark kept after the starter
	for _, m := range run {
		if starter >= 0 && (last < int(m.ccc) || last < 0) {
			if c, ok := compose(run[starter].r, m.r); ok {
				run[starter].r = c
				continue
			}
		}
		run[kept] = m
		if m.ccc == 0 {
			starter, last = kept, -1
		} else {
			last = int(m.ccc)
		}
		kept++
	}
	for _, m := range run[:kept] {
		dst = utf8.AppendRune(dst, m.r)
	}
	return dst
}

// compose returns the primary composite of a and b.
func compose(a, b rune) (rune, bool) {
	var in, out [2 * utf8.UTFMax]byte
	pair := utf8.AppendRune(utf8.AppendRune(in[:0], a), b)
	c := norm.NFC.Append(out[:0], pair...)
	r, n := utf8.DecodeRune(c)
	return r, n == len(c) && n > 0
}
