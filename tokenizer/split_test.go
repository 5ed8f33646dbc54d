package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// oracles are the published regular expressions, run by a backtracking engine.
var oracles = func() (res [len(regexes)]*regexp2.Regexp) {
	for i, r := range regexes {
		res[i] = regexp2.MustCompile(r, regexp2.None)
	}
	return res
}()

// oracleSplit is the slow way to split, as the file format describes it.
func oracleSplit(t interface{ Fatal(...any) }, p splitter, s string) (words []string) {
	parts := []string{s}
	if p.digits != digitsJoined {
		parts = parts[:0]
		start := 0
		for i := 0; i < len(s); {
			n := numericAt(s, i)
			if n == 0 {
				_, n = utf8.DecodeRuneInString(s[i:])
				i += n
				continue
			}
			if start < i {
				parts = append(parts, s[start:i])
			}
			start = i
			i += n
			for p.digits == digitsContiguous && i < len(s) && numericAt(s, i) > 0 {
				i += numericAt(s, i)
			}
			parts = append(parts, s[start:i])
			start = i
		}
		if start < len(s) {
			parts = append(parts, s[start:])
		}
	}
	for _, part := range parts {
		m, err := oracles[p.pattern].FindStringMatch(part)
		for ; m != nil && err == nil; m, err = oracles[p.pattern].FindNextMatch(m) {
			words = append(words, m.String())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return words
}

func splitAll(p splitter, s string) (words []string) {
	for i := 0; i < len(s); {
		end := p.next(s, i)
		words = append(words, s[i:end])
		i = end
	}
	return words
}

var splitters = []splitter{
	{patternGPT2, digitsJoined}, {patternGPT2, digitsIndividual}, {patternGPT2, digitsContiguous},
	{patternQwen, digitsJoined}, {patternLlama3, digitsJoined},
}

// known returns s as valid UTF-8 without the characters that Go's tables do not know yet: the oracle cannot
// class those.
func known(s string) string {
	return strings.Map(func(r rune) rune {
		if k := runeClass(r); (k == letter || k == number) && !unicode.IsLetter(r) && !unicode.IsNumber(r) || numericAt(string(r), 0) > 0 && k != number {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func checkSplit(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, s string) {
	for _, p := range splitters {
		got := splitAll(p, s)
		if strings.Join(got, "") != s {
			t.Fatalf("%+v: words of %q are %q", p, s, got)
		}
		valid := known(s)
		if got, want := splitAll(p, valid), oracleSplit(t, p, valid); !slices.Equal(got, want) {
			t.Fatalf("%+v: %q\n got %q\nwant %q", p, valid, got, want)
		}
	}
}

var splitPieces = []string{"'s", "'S", "'ll", "'LL", "'Re", "'", "ſ", "'ſt", " ", "  ", "\t", "\n", "\r\n", "\u00A0", "\u2028", "\u0085", "a", "Zz", "é", "日本", "0", "42", "½", "٣",
	"Ⅷ", "!", "--", "_", "(", "\uFFFD", "\xff", "\xe2\x82", "😀", "e\u0301", "\x00", "K"}

func TestSplitEqualsRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkSplit(t, strings.Join(rapid.SliceOfN(rapid.SampledFrom(splitPieces), 0, 12).Draw(t, "pieces"), ""))
	})
	rapid.Check(t, func(t *rapid.T) { checkSplit(t, rapid.String().Draw(t, "text")) })
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "it's 42  x\n\n  y", "a\t\tb \r\n", "'ſ ½½ 日本\u00A0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkSplit(t, s) })
}

// testdata/classes.py made classes.json with the Hugging Face package.
func TestClassesEqualHuggingFace(t *testing.T) {
	content, err := os.ReadFile("testdata/classes.json")
	if err != nil {
		t.Fatal(err)
	}
	var ranges map[string][][2]rune
	if err := json.Unmarshal(content, &ranges); err != nil {
		t.Fatal(err)
	}
	want := make([]class, utf8.MaxRune+1)
	digit := make([]bool, utf8.MaxRune+1)
	for name, k := range map[string]class{"L": letter, "N": number, "S": space} {
		if len(ranges[name]) == 0 {
			t.Fatalf("no %s", name)
		}
		for _, r := range ranges[name] {
			for c := r[0]; c <= r[1]; c++ {
				want[c] = k
			}
		}
	}
	for _, r := range ranges["D"] {
		for c := r[0]; c <= r[1]; c++ {
			digit[c] = true
		}
	}
	bad := 0
	for c := range rune(utf8.MaxRune + 1) {
		if !utf8.ValidRune(c) {
			continue
		}
		s := string(c)
		if k, n := classAt(s, 0); k != want[c] || n != len(s) || (numericAt(s, 0) > 0) != digit[c] {
			if bad++; bad < 10 {
				t.Errorf("%U: class %d, digit %v; want %d, %v", c, k, numericAt(s, 0) > 0, want[c], digit[c])
			}
		}
	}
}

// testdata/classes.py made nfc.json with the Hugging Face package.
func TestNFCEqualsHuggingFace(t *testing.T) {
	content, err := os.ReadFile("testdata/nfc.json")
	if err != nil {
		t.Fatal(err)
	}
	var pairs [][2]string
	if err := json.Unmarshal(content, &pairs); err != nil {
		t.Fatal(err)
	}
	for _, p := range pairs {
		if got := nfc(p[0]); got != p[1] {
			t.Errorf("%+q: got %+q, want %+q", p[0], got, p[1])
		}
	}
}

func TestNFCEqualsNorm(t *testing.T) {
	marks := rapid.SampledFrom([]rune("aeo\u0301\u0323\u0302\u0327\u1100\u1161\u11A8가\u0DD9\u0DCF\u0DCAéế \n"))
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOfN(marks, 0, 20).Draw(t, "text")) + rapid.SampledFrom([]string{"", "\xff", "\xe2\x82a\u0301"}).Draw(t, "end")
		if got, want := nfc(s), norm.NFC.String(s); got != want {
			t.Fatalf("%+q: got %+q, want %+q", s, got, want)
		}
	})
}

// The queue for long words and the scan for short ones must agree.
func TestLongWordsMergeAsShortOnes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A random table over the letters a to d: every merge makes a new token of two that exist.
		n := rapid.IntRange(1, 30).Draw(t, "merges")
		table := newMergeTable(n)
		for i := range n {
			left := rapid.Int32Range(0, int32(3+i)).Draw(t, "left")
			right := rapid.Int32Range(0, int32(3+i)).Draw(t, "right")
			if r, _ := table.get(left, right); r == noRank {
				table.put(merge{left, right, int32(4 + i)}, uint32(i))
			}
		}
		var bytes [256]int32
		for i := range bytes {
			bytes[i] = int32(i) - 'a'
		}
		w := rapid.StringOfN(rapid.SampledFrom([]rune("abcd")), 2, 300, -1).Draw(t, "word")
		var m merger
		prepare := func() {
			m.symbol, m.rank, m.result = nil, nil, nil
			for i := range len(w) {
				m.symbol = append(m.symbol, bytes[w[i]])
			}
			for i := range len(w) {
				r, id := uint32(noRank), int32(0)
				if i+1 < len(w) {
					r, id = table.get(m.symbol[i], m.symbol[i+1])
				}
				m.rank, m.result = append(m.rank, r), append(m.result, id)
			}
		}
		prepare()
		short := m.short(nil, &table)
		prepare()
		long := m.long(nil, &table)
		if !slices.Equal(short, long) {
			t.Fatalf("%q: short %v, long %v", w, short, long)
		}
		if got := m.word(nil, w, &bytes, &table); !slices.Equal(got, short) {
			t.Fatalf("%q: word %v, short %v", w, got, short)
		}
	})
}

// Words that differ anywhere must not share a cache key.
func TestWordKeysAreDistinct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(rapid.Byte(), 1, cacheWordBytes).Draw(t, "word")
		b := slices.Clone(a)
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		ka, kb, same := keyOf(string(a)), keyOf(string(b)), keyOf(string(a))
		if ka.equal(&kb) || !ka.equal(&same) || ka.slot() != same.slot() {
			t.Fatalf("%q and %q", a, b)
		}
	})
	zeros, shorter := keyOf(strings.Repeat("\x00", 20)), keyOf(strings.Repeat("\x00", 19))
	if zeros.equal(&shorter) {
		t.Error("the length is not part of the key")
	}
}
