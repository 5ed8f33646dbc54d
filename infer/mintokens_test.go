package infer

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMinTokens: against a model that wants to end at once, and a loop that takes the most probable token but no stop token as long as it may not.
func TestMinTokens(t *testing.T) {
	m := textModel(t, nil, 2)
	ids := m.tok.Encode("def add(a, b):\n    return a + b\n\ndef add(a, b):\n    return")
	letter := func(s string) int32 {
		id, ok := m.tok.ID(s)
		if !ok {
			t.Fatalf("no token %q", s)
		}
		return id
	}
	a, b := letter("a"), letter("b")
	wants := map[int32]float64{m.stops[0]: 100, a: 60, b: 55}
	naive := func(least, most int, stops []int32) (out []int32, reason FinishReason) {
		for len(out) < most {
			all := allLogits(t, m, slices.Concat(ids, out), len(ids)+len(out))
			logits := all[len(all)-1]
			best := int32(-1)
			for id := range int32(m.vocab) {
				switch {
				case slices.Contains(m.masked, id), len(out) < least && slices.Contains(stops, id):
				case best < 0 || logits[id]+float32(wants[id]) > logits[best]+float32(wants[best]):
					best = id
				}
			}
			if slices.Contains(stops, best) {
				return out, FinishStop
			}
			out = append(out, best)
		}
		return out, FinishLength
	}
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	for _, c := range []struct {
		least, most int
		stops       []int32
	}{{0, 9, nil}, {1, 9, nil}, {5, 9, nil}, {9, 9, nil}, {4, 9, []int32{a}}, {3, 9, []int32{a, b}}} {
		want, reason := naive(c.least, c.most, append(slices.Clone(m.stops), c.stops...))
		for _, how := range []Speculate{SpeculateOff, SpeculateAlways} {
			r := Request{Prompt: Prompt{IDs: ids}, MaxTokens: c.most, MinTokens: c.least, StopIDs: c.stops, Speculate: how, Sampling: Sampling{Bias: wants}, Reuse: true}
			for name, run := range map[string]func() (Result, error){
				"alone":     func() (Result, error) { return m.Generate(t.Context(), r, nil) },
				"an engine": func() (Result, error) { all, err := e.Complete(t.Context(), []Request{r, r}, nil); return all[1], err },
			} {
				if got, err := run(); err != nil || !slices.Equal(got.IDs, want) || got.FinishReason != reason {
					t.Errorf("%d to %d tokens, stops %v, %s: %v, %s (%v); expected %v, %s", c.least, c.most, c.stops, name, got.IDs, got.FinishReason, err, want, reason)
				}
			}
		}
	}
	for _, least := range []int{-1, 10} {
		var option *OptionError
		if _, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 9, MinTokens: least}, nil); !errors.As(err, &option) || option.Option != "min_tokens" {
			t.Errorf("min_tokens %d: %v", least, err)
		}
	}
}

// TestIgnoreEOS: against a model that wants to end, and a loop that takes the most probable token but no end of the model's, unless it was asked to
// stop there.
func TestIgnoreEOS(t *testing.T) {
	m := textModel(t, nil, 2)
	const text = "def add(a, b):\n    return a + b\n\ndef add(a, b):\n    return"
	ids := m.tok.Encode(text)
	end := m.stops[0]
	letter, _ := m.tok.ID("a")
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	for _, c := range []struct {
		name        string
		stops       []int32
		least, most int
		bias        map[int32]float64
	}{
		{"to the bound", nil, 0, 9, map[int32]float64{end: 100, m.stops[1]: 90}},
		{"as it comes", nil, 0, 9, nil}, // which a device may choose itself
		{"to a token", []int32{letter}, 0, 9, map[int32]float64{end: 100, m.stops[1]: 90, letter: 60}},
		{"to a token that ends anyway", []int32{end}, 0, 9, map[int32]float64{end: 100, letter: 60}},
		{"to that behind the least", []int32{end}, 3, 9, map[int32]float64{end: 100, letter: 60}},
	} {
		var want []int32
		reason := FinishLength
		for len(want) < c.most {
			all := allLogits(t, m, slices.Concat(ids, want), len(ids)+len(want))
			logits := all[len(all)-1]
			best := int32(-1)
			for id := range int32(m.vocab) {
				stops := slices.Contains(c.stops, id)
				switch {
				case slices.Contains(m.masked, id), slices.Contains(m.stops, id) && !stops, stops && len(want) < c.least:
				case best < 0 || logits[id]+float32(c.bias[id]) > logits[best]+float32(c.bias[best]):
					best = id
				}
			}
			if slices.Contains(c.stops, best) {
				reason = FinishStop
				break
			}
			want = append(want, best)
		}
		for _, how := range []Speculate{SpeculateOff, SpeculateAlways} {
			r := Request{
				Prompt: Prompt{Prefix: text}, MaxTokens: c.most, MinTokens: c.least, IgnoreEOS: true, StopIDs: c.stops, Speculate: how,
				Sampling: Sampling{Bias: c.bias}, Reuse: true,
			}
			ended := r
			ended.IgnoreEOS, ended.MinTokens = false, 0
			for name, run := range map[string]func() (Result, error){
				"alone": func() (Result, error) { return m.Generate(t.Context(), r, nil) },
				"an engine": func() (Result, error) {
					completed(t, e, ended) // which is no answer to r
					return completed(t, e, r), nil
				},
			} {
				if got, err := run(); err != nil || !slices.Equal(got.IDs, want) || got.FinishReason != reason {
					t.Errorf("%s, %s: %v, %s (%v); expected %v, %s", c.name, name, got.IDs, got.FinishReason, err, want, reason)
				}
			}
		}
	}
}

// TestIgnoreEOSOnCards: a device, which knows the usual tokens that are never chosen and no others, does not choose.
func TestIgnoreEOSOnCards(t *testing.T) {
	m := textModel(t, nil, 1)
	for _, r := range []Request{{IgnoreEOS: true}, {IgnoreEOS: true, StopIDs: slices.Concat(m.masked, m.stops[len(m.masked):])}} {
		r.Prompt.Prefix = "x"
		j, err := m.prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		if m.sampler(j).unchanged() {
			t.Errorf("with %d stop ids the device may choose", len(r.StopIDs))
		}
	}
}

// TestMinTokensText: what would end a text does not within the first tokens, and what it looks at begins behind them.
func TestMinTokensText(t *testing.T) {
	m := textModel(t, nil, 1)
	for _, c := range []struct {
		name, first, then, want string
		r                       Request
		reason                  FinishReason
		rule                    StopRule
		stop                    string
	}{
		{"stop text", "a;b;", "c;d", "a;b;c", Request{Stop: []string{";"}}, FinishStop, "", ";"},
		{"stop text that begins in the first tokens", "a;b;", ";c", "a;b", Request{Stop: []string{";;"}}, FinishStop, "", ";;"},
		{"stop text within what another holds back", "xab", "q ab", "xabq ", Request{Stop: []string{"xaby", "ab"}}, FinishStop, "", "ab"},
		{"no stop text follows", "a;b;", "c", "a;b;c", Request{Stop: []string{";"}}, FinishLength, "", ""},
		{"line", "a\nb\n", "c\nd", "a\nb\nc", Request{Shape: Shape{Lines: OneLine}}, FinishStop, StopLine, ""},
		{"line that the first tokens begin", "a\nb", "c\nd", "a\nbc", Request{Shape: Shape{Lines: OneLine}}, FinishStop, StopLine, ""},
		{"block that the first tokens open", "if a:\n", "        b\n        c\n    d", "if a:\n        b\n        c", Request{Prompt: Prompt{Prefix: "def f():\n    "}, Shape: Shape{Lines: Block}}, FinishStop, StopBlock, ""},
		{"suffix", "a)", ")", "a)", Request{Prompt: Prompt{Prefix: "f(f(", Suffix: ")\n"}, Shape: Shape{NoOverlap: true}}, FinishStop, StopSuffix, ""},
		{"indentation", "a\nb", "\nc\nd", "a\nb", Request{Shape: Shape{MinIndent: 4}}, FinishStop, StopIndent, ""},
		{"loop", strings.Repeat("x = 1\n", 30), "y\n", strings.Repeat("x = 1\n", 30) + "y\n", Request{Shape: Shape{NoLoops: true}}, FinishLength, "", ""},
		{"CRLF", "a\nb", "\nc\nd", "a\r\nb", Request{Prompt: Prompt{Prefix: "x\r\ny"}, Shape: Shape{Lines: OneLine}}, FinishStop, StopLine, ""},
		{"stop text with CRLF", "a\n\nb", "\n\nd", "a\r\n\r\nb", Request{Prompt: Prompt{Prefix: "x\r\ny"}, Stop: []string{"\r\n\r\n"}}, FinishStop, "", "\r\n\r\n"},
	} {
		first := m.tok.Encode(c.first)
		c.r.MinTokens, c.r.Replay, c.r.Logprobs = len(first), slices.Concat(first, m.tok.Encode(c.then)), true
		c.r.MaxTokens = len(c.r.Replay)
		if c.r.Prompt.Prefix == "" {
			c.r.Prompt.Prefix = "x = "
		}
		streamed, tokens, ends := "", 0, 0
		got, err := m.Generate(t.Context(), c.r, func(ch Chunk) error {
			streamed += ch.Text
			tokens += len(ch.Tokens)
			if ch.FinishReason != "" {
				ends++
			}
			return nil
		})
		if err != nil || got.Text != c.want || streamed != c.want || got.FinishReason != c.reason || got.StopRule != c.rule || got.StopText != c.stop || ends != 1 {
			t.Errorf("%s: %q (streamed %q, ended %d times), %s by rule %q or %q (%v); expected %q", c.name, got.Text, streamed, ends, got.FinishReason, got.StopRule, got.StopText, err, c.want)
		}
		if c.reason == FinishLength && tokens != len(got.IDs) {
			t.Errorf("%s: %d tokens streamed of %d", c.name, tokens, len(got.IDs))
		}
	}
}

// TestMinTokensHealed: tokens that only spell the prompt again are none of them, and may be any.
func TestMinTokensHealed(t *testing.T) {
	m := textModel(t, nil, 1)
	healed := 0
	bias := map[int32]float64{m.stops[0]: 100}
	for id := range int32(m.tok.VocabSize()) {
		if len(m.tok.TokenBytes(id)) == 1 {
			bias[id] = 50 // so that words are spelled letter by letter
		}
	}
	for _, prefix := range []string{"def add(a, b):\n    retu", "x = retur", "if i", "é", "for"} {
		r := Request{Prompt: Prompt{Prefix: prefix, Heal: true}, MaxTokens: 8, MinTokens: 3, Sampling: Sampling{Bias: bias}}
		got, err := m.Generate(t.Context(), r, nil)
		if err != nil || len(got.IDs)-got.Healed != 3 || got.FinishReason != FinishStop {
			t.Errorf("%q: %d tokens behind the cursor, %s (%v), expected 3 and a stop token", prefix, len(got.IDs)-got.Healed, got.FinishReason, err)
		}
		healed += got.Healed
		// All letters end a text, but the word under the cursor is made of them.
		for id := range int32(m.tok.VocabSize()) {
			if !m.tok.IsSpecial(id) && string(m.tok.TokenBytes(id)) != "q" {
				r.StopIDs = append(r.StopIDs, id)
			}
		}
		got, err = m.Generate(t.Context(), r, nil)
		if err != nil || !strings.Contains(got.Text, "qq") {
			t.Errorf("%q where all tokens but one are stops: %q (%v)", prefix, got.Text, err)
		}
	}
	if healed == 0 {
		t.Error("no token only spelled the prompt again")
	}
}

// TestMinTokensReuse: no rest of a suggestion stands for an answer of so many tokens from the cursor on.
func TestMinTokensReuse(t *testing.T) {
	e := NewEngine(textModel(t, nil, 1), EngineOptions{})
	defer e.Close()
	r := reuseRequest("def add(", 12)
	shown := completed(t, e, r)
	r.MinTokens = 12
	if again := completed(t, e, r); again.Reused || len(again.IDs) != 12 {
		t.Errorf("%d tokens, reused %v, expected 12 of the model's; shown before: %q", len(again.IDs), again.Reused, shown.Text)
	}
}

// TestStopTextPass: by the definition, for any text of which a beginning cannot end it.
func TestStopTextPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 1, 4, -1)
		stops := rapid.SliceOfN(word, 0, 4).Draw(t, "stops")
		text := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 40, -1).Draw(t, "text")
		least := rapid.IntRange(0, len(text)).Draw(t, "least")
		want, hit := text, ""
		for end := least + 1; end <= len(text) && hit == ""; end++ {
			for _, s := range stops {
				if strings.HasSuffix(text[:end], s) && len(s) > len(hit) {
					want, hit = text[:end-len(s)], s
				}
			}
		}
		s, got := stopText{stops: stops}, ""
		for at := 0; at < len(text) && s.hit == ""; {
			limit, push := least, s.pass
			if at >= least {
				limit, push = len(text), s.push
			}
			n := rapid.IntRange(1, limit-at).Draw(t, "piece")
			got += push(text[at : at+n])
			at += n
			// What was shown cannot be taken back by a stop string that began in it.
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
