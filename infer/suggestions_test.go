package infer

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
)

// reuseRequest is a request that may be answered from what was shown.
func reuseRequest(prefix string, maxTokens int) Request {
	return Request{Prompt: Prompt{Prefix: prefix, Suffix: "\n\nprint(x)\n", Filename: "a.py"}, MaxTokens: maxTokens, Reuse: true}
}

// TestSuggestions: whoever types along a suggestion gets the rest of it, and the model does nothing; whoever types something else, asks
// for something else or does not allow it, does not.
func TestSuggestions(t *testing.T) {
	m := textModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{Reuse: ReuseShown})
	defer e.Close()
	const before = "def add(a, b):\n    "
	r := reuseRequest(before, 12)
	r.Sampling.Bias = noEnd(m)
	first := completed(t, e, r)
	if first.Reused || len(first.Text) < 8 || first.FinishReason != FinishLength {
		t.Fatalf("%q (%s), reused %v", first.Text, first.FinishReason, first.Reused)
	}
	passes := e.Stats().Passes
	typed := 0
	for i := range first.Text[:len(first.Text)/3] {
		r.Prompt.Prefix = before + first.Text[:i]
		var chunks []Chunk
		all, err := e.Complete(t.Context(), []Request{r}, func(_ int, c Chunk) error {
			chunks = append(chunks, c)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		res := all[0]
		if !res.Reused || res.Text != first.Text[i:] || len(chunks) != 1 || chunks[0].Text != res.Text || chunks[0].FinishReason != FinishLength || res.Cached != len(res.PromptIDs) || len(res.PromptIDs) == 0 {
			t.Errorf("%d bytes typed: %+v in %+v", i, res, chunks)
		}
		typed++
	}
	if s := e.Stats(); s.Passes != passes || s.Reused != int64(typed) || s.Completed != int64(typed)+1 {
		t.Errorf("%d passes for %d answers: %+v", s.Passes-passes, typed, s)
	}
	// The answers to what follows are suggestions too, which may go on where this one ends.
	r.Prompt.Prefix = before + first.Text
	if res := completed(t, e, r); res.Reused {
		t.Errorf("all of it typed: answered from what was shown: %q", res.Text)
	}
	for name, change := range map[string]func(*Request){
		"another text":            func(r *Request) { r.Prompt.Prefix = before + "Z" + first.Text[1:] },
		"another text before":     func(r *Request) { r.Prompt.Prefix = "\n" + before + first.Text[:2] },
		"another suffix":          func(r *Request) { r.Prompt.Suffix = "\n" },
		"another name":            func(r *Request) { r.Prompt.Filename = "b.py" },
		"another file":            func(r *Request) { r.Prompt.Files = []File{{"c.py", "x"}} },
		"another shape":           func(r *Request) { r.Shape.NoLoops = true },
		"another stop text":       func(r *Request) { r.Stop = []string{"Q"} },
		"another penalty":         func(r *Request) { r.Sampling.PresencePenalty = 0.1 },
		"other biases":            func(r *Request) { r.Sampling.Bias = nil },
		"drawn":                   func(r *Request) { r.Sampling.Temperature = 1 },
		"log-probabilities":       func(r *Request) { r.Logprobs = true },
		"not allowed":             func(r *Request) { r.Reuse = false },
		"more than there is left": func(r *Request) { r.MaxTokens = 40 },
	} {
		e.shown = newSuggestions(suggestionBytes) // what another case was answered is no suggestion here
		r := reuseRequest(before, 12)
		r.Sampling.Bias = noEnd(m)
		completed(t, e, r)
		r.Prompt.Prefix += first.Text[:2]
		change(&r)
		if res := completed(t, e, r); res.Reused {
			t.Errorf("%s: answered from what was shown: %q", name, res.Text)
		}
	}
	r = reuseRequest(before, 3)
	r.Sampling.Bias = noEnd(m)
	want, err := m.Generate(t.Context(), r, nil)
	if res := completed(t, e, r); err != nil || !res.Reused || !strings.HasPrefix(first.Text, res.Text) || res.Text == first.Text || res.FinishReason != FinishLength {
		t.Errorf("fewer tokens: %+v; the model gives %q", res, want.Text)
	}
}

// TestSuggestionsSame: for the same prompt the answer is the model's, in all that it says.
func TestSuggestionsSame(t *testing.T) {
	m := textModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{Reuse: ReuseShown})
	defer e.Close()
	for i := range 20 {
		r := reuseRequest(fmt.Sprintf("x = %d\n", i), 10)
		if r.Shape, r.Stop = (Shape{Lines: AutoLines, NoLoops: true, NoOverlap: true}), []string{"e"}; i%2 == 1 {
			// Broken characters, which the tokenizer would spell as more tokens than the model has.
			r.Shape, r.Stop = Shape{}, nil
			r.Sampling = Sampling{Bias: noEnd(m), FrequencyPenalty: 2, RepetitionPenalty: 50}
		}
		want, err := m.Generate(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		completed(t, e, r)
		got := completed(t, e, r)
		if got.Reused != (strings.TrimSpace(want.Text) != "") || got.Text != want.Text || got.FinishReason != want.FinishReason || got.StopText != want.StopText || got.StopRule != want.StopRule {
			t.Errorf("%+v, expected %+v", got, want)
		}
	}
}

// TestSuggestionsBound: the memory stays within its bound, and who is used least goes first.
func TestSuggestionsBound(t *testing.T) {
	tok := infertest.Tokenizer(t)
	m := newModel(t, infertest.Checkpoint(infertest.Config(tok.VocabSize())), tok, 1)
	job := func(i int) *job {
		j, err := m.prepare(reuseRequest(fmt.Sprintf("x%d = ", i), 5))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	const text = "a completion"
	x := newSuggestions(4 * (suggestionOverhead + int64(len(text))))
	for i := range 10 {
		x.add(job(i), Result{Text: text, FinishReason: FinishStop})
		if _, _, ok := x.find(job(0), (*suggestion).shows); !ok {
			t.Fatalf("what was used just now is forgotten, after %d", i)
		}
		if x.bytes > x.limit || x.order.Len() > 4 || len(x.byKey) != 1 {
			t.Fatalf("%d bytes of %d in %d", x.bytes, x.limit, x.order.Len())
		}
	}
	for i, want := range []bool{true, false, false, false, false, false, false, true, true, true} {
		if _, _, ok := x.find(job(i), (*suggestion).shows); ok != want {
			t.Errorf("suggestion %d is there: %v, expected %v", i, ok, want)
		}
	}
	x.add(job(9), Result{Text: "another", FinishReason: FinishStop})
	if s, _, ok := x.find(job(9), (*suggestion).shows); !ok || s.text != "another" || x.order.Len() != 4 {
		t.Errorf("%q, %d in all", s.text, x.order.Len())
	}
	for x.order.Len() > 0 {
		x.remove(x.order.Front())
	}
	if x.bytes != 0 || len(x.byKey) != 0 {
		t.Errorf("%d bytes and %d keys of nothing", x.bytes, len(x.byKey))
	}
}

// TestSuggestionsProperties: what is found goes on with what was typed.
func TestSuggestionsProperties(t *testing.T) {
	m := textModel(t, nil, 1)
	word := rapid.StringOfN(rapid.RuneFrom([]rune("abé\n")), 0, 4, -1)
	rapid.Check(t, func(t *rapid.T) {
		x := newSuggestions(1 << 16)
		type shown struct{ prefix, text string }
		var all []shown
		for range rapid.IntRange(1, 12).Draw(t, "requests") {
			prefix := word.Draw(t, "prefix")
			j, err := m.prepare(Request{Prompt: Prompt{Prefix: prefix}, MaxTokens: 4, Reuse: true})
			if err != nil {
				t.Fatal(err)
			}
			s, n, ok := x.find(j, (*suggestion).shows)
			fits := func(o shown) bool {
				return strings.HasPrefix(prefix, o.prefix) && strings.HasPrefix(o.prefix+o.text, prefix) && (prefix == o.prefix || strings.TrimSpace((o.prefix + o.text)[len(prefix):]) != "")
			}
			any := false
			for _, o := range all {
				any = any || fits(o)
			}
			if ok != any || ok && !fits(shown{prefix[:len(prefix)-n], s.text}) {
				t.Fatalf("%q: found %q after %d bytes (%v), of %q", prefix, s.text, n, ok, all)
			}
			text := word.Draw(t, "text")
			x.add(j, Result{Text: text, FinishReason: FinishStop})
			if strings.TrimSpace(text) == "" {
				continue
			}
			for i := len(all) - 1; i >= 0; i-- {
				if all[i].prefix == prefix {
					all = append(all[:i], all[i+1:]...)
				}
			}
			all = append(all, shown{prefix, text})
		}
	})
}

// TestSuggestionsFollowed: measurements that follow tokens find what was shown to others of them, and nobody else does.
func TestSuggestionsFollowed(t *testing.T) {
	m := textModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{Reuse: ReuseShown})
	defer e.Close()
	const before, text = "def add(a, b):\n    ", "return a + b"
	follow := func(typed int) Request {
		r := reuseRequest(before+text[:typed], 100)
		r.Replay = m.tok.Encode(text[typed:])
		return r
	}
	if res := completed(t, e, follow(0)); res.Reused || res.Text != text {
		t.Fatalf("%+v", res)
	}
	if res := completed(t, e, follow(3)); !res.Reused || res.Text != text[3:] {
		t.Errorf("typed along: %+v", res)
	}
	if res := completed(t, e, reuseRequest(before, 4)); res.Reused {
		t.Errorf("the model's own answer: %+v", res)
	}
}
