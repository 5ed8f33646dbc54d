package fim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"autodev/data"
	"autodev/data/numpyrng"
)

// pairs is a tokenizer for tests whose tokens depend on where a text is cut, as those of byte-pair encoding do: two equal
// bytes in a row are one token (256 + byte).
type pairs struct{}

func (pairs) Encode(s string) []int32 {
	var ids []int32
	for i := 0; i < len(s); i++ {
		if i+1 < len(s) && s[i] == s[i+1] {
			ids = append(ids, 256+int32(s[i]))
			i++
		} else {
			ids = append(ids, int32(s[i]))
		}
	}
	return ids
}

func (pairs) decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteByte(byte(id))
		if id >= 256 {
			b.WriteByte(byte(id))
		}
	}
	return b.String()
}

var sentinels = Sentinels{Prefix: 1000, Middle: 1001, Suffix: 1002, Pad: 1003, EOT: 1004}

// restore gives prefix, middle and suffix of an example back.
func restore(t testing.TB, ex Example) (p, m, s []int32) {
	t.Helper()
	ids := ex.IDs
	if ex.Kind == Plain {
		if n := len(ids); n > 0 && ids[n-1] == sentinels.EOT {
			ids = ids[:n-1]
		}
		return ids, nil, nil
	}
	if ids[len(ids)-1] != sentinels.EOT {
		t.Fatalf("no EOT behind %v", ex)
	}
	ids = ids[:len(ids)-1]
	suf, mid := slices.Index(ids, sentinels.Suffix), slices.Index(ids, sentinels.Middle)
	if ids[0] != sentinels.Prefix || suf < 0 || mid < suf {
		t.Fatalf("sentinels out of order: %v", ex)
	}
	s, m = ids[suf+1:mid], ids[ex.Middle:]
	if ex.Kind == SPM {
		if suf != 1 {
			t.Fatalf("SPM with a prefix before the suffix: %v", ex)
		}
		p = ids[mid+1 : ex.Middle]
	} else {
		p = ids[1:suf]
		if ex.Middle != mid+1 {
			t.Fatalf("PSM: middle at %d: %v", ex.Middle, ex)
		}
	}
	return p, m, s
}

func check(t testing.TB, text string, o Options, capacity int, seed, epoch, doc uint64) []Example {
	t.Helper()
	tr, err := New(o, pairs{}, sentinels, seed, capacity)
	if err != nil {
		t.Fatal(err)
	}
	d := &data.Document{Content: text}
	examples, err := tr.Examples(d, epoch, doc)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i, ex := range examples {
		p, m, s := restore(t, ex)
		if o.Level != Token && ex.Kind != Plain {
			for _, part := range [][]int32{p, m, s} {
				if text := (pairs{}).decode(part); utf8.ValidString(d.Content) && !utf8.ValidString(text) {
					t.Fatalf("cut inside a character: %q", text)
				} else if !slices.Equal(pairs{}.Encode(text), part) {
					t.Fatalf("part %q was not tokenised on its own: %v", text, part)
				}
			}
		}
		b.WriteString(pairs{}.decode(slices.Concat(p, m, s)))
		if o.Scope != Document && ex.Kind != Plain && (len(ex.IDs) > capacity || !ex.Whole) {
			t.Fatalf("FIM example of %d tokens, capacity %d", len(ex.IDs), capacity)
		}
		if last := ex.IDs[len(ex.IDs)-1] == sentinels.EOT; last != (ex.Kind != Plain || i == len(examples)-1) {
			t.Fatalf("example %d of %d, kind %d: EOT %v", i, len(examples), ex.Kind, last)
		}
	}
	if b.String() != text {
		t.Fatalf("text %q came back as %q", text, b.String())
	}
	return examples
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Repeat(rapid.String().Draw(rt, "text"), rapid.IntRange(0, 30).Draw(rt, "times"))
		o := Options{
			Rate:    rapid.Float64Range(0, 1).Draw(rt, "rate"),
			SPMRate: rapid.Float64Range(0, 1).Draw(rt, "spm"),
			Level:   rapid.SampledFrom([]Level{Char, Token, ""}).Draw(rt, "level"),
			Scope:   rapid.SampledFrom([]Scope{Context, Document, ""}).Draw(rt, "scope"),
		}
		capacity := rapid.IntRange(minCapacity, 300).Draw(rt, "capacity")
		seed, epoch, doc := rapid.Uint64().Draw(rt, "seed"), rapid.Uint64().Draw(rt, "epoch"), rapid.Uint64().Draw(rt, "doc")
		a := check(t, text, o, capacity, seed, epoch, doc)
		if b := check(t, text, o, capacity, seed, epoch, doc); fmt.Sprint(a) != fmt.Sprint(b) {
			rt.Fatal("the same document gave other examples")
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("func main() {}\n", uint64(1), 20, false)
	f.Add(strings.Repeat("aaab ünï\r\n", 50), uint64(2), 30, true)
	f.Fuzz(func(t *testing.T, text string, seed uint64, capacity int, token bool) {
		if capacity < minCapacity || capacity > 1<<20 || !utf8.ValidString(text) {
			return
		}
		o := Options{Rate: .8, SPMRate: .5}
		if token {
			o.Level = Token
		}
		check(t, text, o, capacity, seed, seed>>7, seed>>3)
	})
}

// TestRates checks the frequencies of the decisions and that cuts reach both ends.
func TestRates(t *testing.T) {
	o := Options{Rate: .3, SPMRate: .7}
	kinds := map[Kind]int{}
	const n = 20000
	emptyPrefix, emptySuffix := 0, 0
	for i := range uint64(n) {
		ex := check(t, "abcdefghi", o, 100, 7, 3, i)
		kinds[ex[0].Kind]++
		if ex[0].Kind != Plain {
			p, _, s := restore(t, ex[0])
			if len(p) == 0 {
				emptyPrefix++
			}
			if len(s) == 0 {
				emptySuffix++
			}
		}
	}
	fims := float64(kinds[PSM] + kinds[SPM])
	if got := fims / n; got < .29 || got > .31 {
		t.Errorf("rate %v, want .3", got)
	}
	if got := float64(kinds[SPM]) / fims; got < .68 || got > .72 {
		t.Errorf("SPM rate %v, want .7", got)
	}
	// With 9 characters the smaller of two cuts among 0 … 9 is 0 with probability 19/100.
	for _, e := range []int{emptyPrefix, emptySuffix} {
		if got := float64(e) / fims; got < .17 || got > .21 {
			t.Errorf("empty prefix or suffix: %v of FIM examples, want .19", got)
		}
	}
}

func TestReadyIDs(t *testing.T) {
	d := &data.Document{IDs: []int32{1, 2, 3}, Origin: data.Origin{File: "x.jsonl", Row: 4}}
	tr, err := New(Default(), nil, sentinels, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Examples(d, 0, 0); err == nil || !strings.Contains(err.Error(), "x.jsonl: row 4") {
		t.Errorf("char level on ready ids: %v", err)
	}
	tr, err = New(Options{}, nil, sentinels, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	ex, err := tr.Examples(d, 0, 0)
	if err != nil || len(ex) != 1 || !slices.Equal(ex[0].IDs, []int32{1, 2, 3, 1004}) {
		t.Errorf("%v, %v", ex, err)
	}
	if !slices.Equal(d.IDs, []int32{1, 2, 3}) {
		t.Errorf("the document's own ids were changed: %v", d.IDs)
	}
}

func TestNewRefuses(t *testing.T) {
	lacking := sentinels
	lacking.Middle = -1
	for _, c := range []struct {
		o    Options
		s    Sentinels
		n    int
		want string
	}{
		{Options{Rate: 1.5}, sentinels, 100, "fim rate 1.5"},
		{Options{SPMRate: -1}, sentinels, 100, "fim spm_rate -1"},
		{Options{Level: "line"}, sentinels, 100, `fim level "line": expected char or token`},
		{Options{Scope: "file"}, sentinels, 100, `fim scope "file"`},
		{Options{Rate: .5}, lacking, 100, "lacks a FIM token"},
		{Options{}, Sentinels{EOT: -1}, 100, "end-of-text"},
		{Options{}, sentinels, 5, "windows of 5 tokens"},
	} {
		if _, err := New(c.o, pairs{}, c.s, 0, c.n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v; want %q", c.o, err, c.want)
		}
	}
}

// TestPermute checks the original's transform against the decisions of the reference notes (RandomState(0), rates .5 and .5).
func TestPermute(t *testing.T) {
	r := numpyrng.NewRandomState(0)
	for _, c := range []struct {
		n, a, b int
		kind    Kind
	}{{10, 0, 5, SPM}, {100, 9, 83, SPM}, {1000, 0, 0, Plain}, {5000, 705, 3468, SPM}, {37, 17, 24, SPM}} {
		ids := make([]int32, c.n)
		for i := range ids {
			ids[i] = int32(i)
		}
		ex := Permute(ids, r, .5, .5, sentinels)
		if ex.Kind != c.kind {
			t.Fatalf("n=%d: kind %d, want %d", c.n, ex.Kind, c.kind)
		}
		if c.kind == Plain {
			if !slices.Equal(ex.IDs, ids) {
				t.Errorf("n=%d: changed", c.n)
			}
			continue
		}
		want := slices.Concat([]int32{1000, 1002}, ids[c.b:], []int32{1001}, ids[:c.b])
		if !slices.Equal(ex.IDs, want) || ex.Middle != 2+c.n-c.b+1+c.a {
			t.Errorf("n=%d: %v, middle %d", c.n, ex.IDs, ex.Middle)
		}
	}
}
