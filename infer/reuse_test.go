package infer_test

import (
	"testing"
	"unicode/utf8"

	"autodev/infer"
	"autodev/internal/edits"
	"autodev/internal/rng"
	"autodev/internal/sharedtest"
)

// TestReuseExact: people type along suggestions of a real model in real files. Every answer from an earlier suggestion is what the model says
// when it is asked, and with healing most need not be asked for.
func TestReuseExact(t *testing.T) {
	folder, tok := tiny(t)
	m, err := infer.Load(t.Context(), folder.Dir, folder.Config, folder, tok, infer.Options{Weights: infer.Int8})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	kept, asked := infer.NewEngine(m, infer.EngineOptions{}), infer.NewEngine(m, infer.EngineOptions{})
	defer kept.Close()
	defer asked.Close()
	complete := func(e *infer.Engine, r infer.Request) infer.Result {
		t.Helper()
		res, err := e.Complete(t.Context(), []infer.Request{r}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res[0]
	}
	same := func(a, b infer.Result) bool {
		return a.Text == b.Text && a.FinishReason == b.FinishReason && a.StopText == b.StopText && a.StopRule == b.StopRule
	}
	for _, heal := range []bool{true, false} {
		places := map[bool]int{true: 6, false: 2}[heal] // of a language
		keys, reused := 0, 0                            // while something was left of the suggestion
		for _, language := range edits.Languages() {
			n := 0
			err := edits.Files(t.Context(), sharedtest.Path(t, "corpus/test"), language, func(text string) bool {
				r := rng.New(1, "reuse", uint64(n), uint64(len(text)))
				if len(text) < 1500 || !utf8.ValidString(text) {
					return true
				}
				at := 200 + r.IntN(len(text)-1000)
				for !utf8.RuneStart(text[at]) {
					at++
				}
				before, after := text[max(0, at-400):at], text[at:min(len(text), at+150)]
				q := infer.Request{
					Prompt: infer.Prompt{Suffix: after, FIM: infer.FIMAlways, Heal: heal}, MaxTokens: []int{8, 24, 48}[n%3],
					Shape: infer.Shape{Lines: []infer.Lines{infer.AutoLines, infer.OneLine, infer.AllLines}[n%3], NoOverlap: n%2 == 0, NoLoops: true},
				}
				switch n % 4 {
				case 1:
					q.Stop = []string{";", ")"}
				case 2:
					q.Sampling.FrequencyPenalty = 1
				case 3:
					q.Sampling.RepetitionPenalty = 1.2
				}
				suggestion := ""
				for i := 0; ; i++ {
					q.Prompt.Prefix, q.Reuse = before, true
					got := complete(kept, q)
					q.Reuse = false
					want := complete(asked, q)
					if got.Reused {
						if reused++; !same(got, want) || got.IDs != nil || got.Cached != len(got.PromptIDs) {
							t.Errorf("heal %v, %s, place %d, %d bytes typed: %q (%s %q %s), the model says %q (%s %q %s)", heal, language, n, i,
								got.Text, got.FinishReason, got.StopText, got.StopRule, want.Text, want.FinishReason, want.StopText, want.StopRule)
						}
					} else if !same(got, want) {
						t.Errorf("heal %v, %s, place %d, %d bytes typed: %q, alone %q", heal, language, n, i, got.Text, want.Text)
					}
					if i > 0 {
						keys++
					}
					if suggestion == "" {
						if suggestion = got.Text; suggestion == "" {
							break
						}
					}
					_, size := utf8.DecodeRuneInString(suggestion)
					before, suggestion = before+suggestion[:size], suggestion[size:]
					if suggestion == "" || i == 100 {
						break
					}
				}
				n++
				return n < places
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("healing %v: %d of %d keystrokes answered without the model", heal, reused, keys)
		if least := map[bool]int{true: keys / 2, false: 1}[heal]; reused < least {
			t.Errorf("healing %v: %d of %d keystrokes answered without the model, expected at least %d", heal, reused, keys, least)
		}
	}
}
