package eval

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestWindowsByHand(t *testing.T) {
	for _, c := range []struct {
		p                      Protocol
		length, window, stride int
		want                   []Window
	}{
		{Exact, 5, 8, 4, []Window{{0, 1, 5}}},
		{Exact, 10, 4, 2, []Window{{0, 1, 4}, {2, 4, 6}, {4, 6, 8}, {6, 8, 10}}},
		{Exact, 1, 4, 2, nil},
		{Exact, 0, 4, 2, nil},
		{Original, 10, 6, 2, []Window{{0, 4, 6}, {2, 6, 8}, {4, 8, 10}}},
		{Original, 9, 6, 2, []Window{{0, 4, 6}, {2, 6, 8}, {4, 8, 9}}},
		{Original, 2, 6, 4, []Window{{0, 1, 2}}},
		{Original, 4, 6, 2, []Window{{0, 2, 4}}},
	} {
		if got := c.p.Windows(c.length, c.window, c.stride); !slices.Equal(got, c.want) {
			t.Errorf("%s.Windows(%d, %d, %d) = %v, expected %v", c.p, c.length, c.window, c.stride, got, c.want)
		}
	}
}

func TestExactScoresEveryTokenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		window := rapid.IntRange(2, 20).Draw(t, "window")
		stride := rapid.IntRange(1, window-1).Draw(t, "stride")
		length := rapid.IntRange(0, 100).Draw(t, "length")
		next := 1
		for _, w := range Exact.Windows(length, window, stride) {
			if w.Score != next || w.End-w.Begin > window || w.Begin >= w.Score {
				t.Fatalf("window %v after token %d", w, next)
			}
			next = w.End
		}
		if length > 1 && next != length {
			t.Fatalf("scored up to %d of %d", next, length)
		}
	})
}

// bytesEncoder makes one token of each byte.
type bytesEncoder struct{}

func (bytesEncoder) Encode(s string) (ids []int32) {
	for _, b := range []byte(s) {
		ids = append(ids, int32(b))
	}
	return ids
}
func (bytesEncoder) TokenBytes(id int32) []byte { return []byte{byte(id)} }

// bigram gives every token a loss that depends on it and its predecessor alone.
type bigram struct{ calls int }

func loss(prev, id int32) float64 { return float64(prev%7)/10 + float64(id%5)/4 }

func (m *bigram) NLL(_ context.Context, ids []int32, from int) (out []float64, err error) {
	m.calls++
	for i := max(1, from); i < len(ids); i++ {
		out = append(out, loss(ids[i-1], ids[i]))
	}
	return out, nil
}

func docsOf(texts ...string) (ds []Document) {
	for i, s := range texts {
		ds = append(ds, Document{Name: fmt.Sprint(i), Text: s})
	}
	return ds
}

func TestPerplexityByHand(t *testing.T) {
	docs := docsOf("abcdefghij", "", "x", "klmnopq")
	sum := func(s string, from, to int) (x float64) {
		for i := from; i < to; i++ {
			x += loss(int32(s[i-1]), int32(s[i]))
		}
		return x
	}
	joined := "abcdefghij\n\n\n\nx\n\nklmnopq"
	n := len(joined)
	for _, c := range []struct {
		p      Protocol
		want   float64
		tokens int
	}{
		{Exact, math.Exp((sum("abcdefghij", 1, 10) + sum("klmnopq", 1, 7)) / 15), 15},
		{Strided, math.Exp(sum(joined, 1, n) / float64(n-1)), n - 1},
		// windows of 8, stride 4: scored [4,8) [8,12) [12,16) [16,20) [20,24)
		{Original, math.Exp((sum(joined, 4, 8)/4 + sum(joined, 8, 12)/4 + sum(joined, 12, 16)/4 + sum(joined, 16, 20)/4 + sum(joined, 20, n)/float64(n-20)) / 5), n - 4},
	} {
		var ids []int32
		var nll float64
		res, err := Perplexity(t.Context(), &bigram{}, bytesEncoder{}, docs, Options{Protocol: c.p, Window: 8, Stride: 4,
			PerToken: func(_ int, _ string, i []int32, l []float64) error {
				ids = append(ids, i...)
				for _, x := range l {
					nll += x
				}
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(res.Perplexity-c.want) > 1e-12 || res.Tokens != c.tokens || res.Bytes != c.tokens {
			t.Errorf("%s: perplexity %v over %d tokens and %d bytes, expected %v over %d", c.p, res.Perplexity, res.Tokens, res.Bytes, c.want, c.tokens)
		}
		if len(ids) != c.tokens || math.Abs(nll-res.NLL) > 1e-9 {
			t.Errorf("%s: per-token records hold %d tokens and %v nats, expected %d and %v", c.p, len(ids), nll, c.tokens, res.NLL)
		}
	}
}

func TestStreamAttributesTokensToDocuments(t *testing.T) {
	docs := docsOf("aa", "bbbb", "c")
	got := map[int]string{}
	_, err := Perplexity(t.Context(), &bigram{}, bytesEncoder{}, docs, Options{Protocol: Strided, Window: 8, Stride: 4,
		PerToken: func(d int, _ string, ids []int32, _ []float64) error {
			for _, id := range ids {
				got[d] += string(rune(id))
			}
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	for d, want := range []string{"a\n\n", "bbbb\n\n", "c"} {
		if got[d] != want {
			t.Errorf("document %d was given tokens %q, expected %q", d, got[d], want)
		}
	}
}

type nan struct{}

func (nan) NLL(_ context.Context, ids []int32, from int) ([]float64, error) {
	out := make([]float64, len(ids)-max(1, from))
	out[0] = math.NaN()
	return out, nil
}

func TestPerplexityErrors(t *testing.T) {
	ok := Options{Protocol: Exact, Window: 8, Stride: 4}
	for _, c := range []struct {
		name string
		m    Scorer
		docs []Document
		o    Options
		want string
	}{
		{"window", &bigram{}, docsOf("abc"), Options{Protocol: Exact, Window: 1, Stride: 1}, "window 1, stride 1: expected a window of at least 2 tokens and a stride of at least 1 below it"},
		{"protocol", &bigram{}, docsOf("abc"), Options{Protocol: "best", Window: 8, Stride: 4}, `protocol "best": expected one of [exact strided original]`},
		{"empty", &bigram{}, docsOf("a", ""), ok, "2 documents hold no token to score: exact scores a sequence of at least 2 tokens"},
		{"not a number", nan{}, docsOf("abc"), ok, "document 0 (0): tokens 0 to 3: the model gives token 1 of the window a log-probability of NaN"},
		{"mixed", &bigram{}, []Document{{Text: "abc"}, {IDs: []int32{1, 2}}}, Options{Protocol: Original, Window: 8, Stride: 4}, "1 of 2 documents come as token ids: original needs all or none of them as text"},
	} {
		_, err := Perplexity(t.Context(), c.m, bytesEncoder{}, c.docs, c.o)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: error %v, expected %s", c.name, err, c.want)
		}
	}
}
