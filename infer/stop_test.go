package infer

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStopText(t *testing.T) {
	for _, c := range []struct {
		stops  []string
		pieces string // separated by |
		shown  string // what each piece shows, separated by |; then what the end shows
		hit    string
	}{
		{nil, "a|b", "a|b|", ""},
		{[]string{"\n\n"}, "a\n|b\n|\nc", "a|\nb|", "\n\n"},
		{[]string{"\n\n"}, "a\n", "a|\n", ""},
		{[]string{"END"}, "xE|N|yEN|D!", "x||ENy|", "END"},
		{[]string{"END"}, "xENEND", "xEN", "END"},
		{[]string{"aab"}, "aaa|b", "a|", "aab"},
		{[]string{"abcd", "bc"}, "abcd", "a", "bc"},      // complete first
		{[]string{"c", "abc"}, "xabc", "x", "abc"},       // complete together: the longest
		{[]string{"é"}, "caf|è|é", "caf|è|", "é"},        // characters that share a first byte
		{[]string{"x"}, "x", "", "x"},                    // nothing left
		{[]string{"aa", "b"}, "a|b", "|a", "b"},          // held back for one, ended by another
		{[]string{"</s>", "<eot>"}, "<|<|", "|<||<", ""}, // one of two may still come
	} {
		s := stopText{stops: c.stops}
		var shown []string
		for _, p := range strings.Split(c.pieces, "|") {
			shown = append(shown, s.push(p))
			if s.hit != "" {
				break
			}
		}
		if s.hit == "" {
			shown = append(shown, s.flush())
		}
		if got := strings.Join(shown, "|"); got != c.shown || s.hit != c.hit {
			t.Errorf("%q with stops %q: shows %q, ended by %q; expected %q and %q", c.pieces, c.stops, got, s.hit, c.shown, c.hit)
		}
	}
}

// TestStopTextProperties: however a text is cut into pieces, what is shown is the text up to the stop string that is complete
// first, and no piece shows the beginning of a stop string that then comes true.
func TestStopTextProperties(t *testing.T) {
	word := rapid.StringOfN(rapid.RuneFrom([]rune("abé")), 1, 4, -1)
	rapid.Check(t, func(t *rapid.T) {
		stops := rapid.SliceOfN(word, 0, 4).Draw(t, "stops")
		text := rapid.StringOfN(rapid.RuneFrom([]rune("abé")), 0, 40, -1).Draw(t, "text")
		// By the definition: read character by character until one of the stops is complete, then cut off the longest.
		want, hit := text, ""
	reading:
		for i, r := range text {
			end := i + len(string(r))
			for _, s := range stops {
				if strings.HasSuffix(text[:end], s) && len(s) > len(hit) {
					want, hit = text[:end-len(s)], s
				}
			}
			if hit != "" {
				break reading
			}
		}
		s := stopText{stops: stops}
		runes := []rune(text)
		got := ""
		for len(runes) > 0 && s.hit == "" {
			n := rapid.IntRange(1, len(runes)).Draw(t, "piece")
			got += s.push(string(runes[:n]))
			runes = runes[n:]
			if !strings.HasPrefix(want, got) {
				t.Fatalf("shown %q, which is not a beginning of %q", got, want)
			}
		}
		if s.hit == "" {
			got += s.flush()
		}
		if got != want || s.hit != hit {
			t.Fatalf("shown %q, ended by %q; expected %q and %q", got, s.hit, want, hit)
		}
	})
}
