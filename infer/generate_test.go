package infer

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
	"autodev/model"
)

// textModel returns a random model with a tokenizer and three padding rows in its embedding table.
func textModel(t testing.TB, change func(*model.Config), threads int) *Model {
	t.Helper()
	tok := infertest.Tokenizer(t)
	c := infertest.Config(tok.VocabSize())
	c.VocabSize += 3
	if change != nil {
		change(&c)
	}
	return newModel(t, infertest.Checkpoint(c), tok, threads)
}

// TestGenerateProperties: what is streamed is the result; it is whole characters, the text of the ids up to the first stop
// text; and its ids hold no control token and no padding row.
func TestGenerateProperties(t *testing.T) {
	m := textModel(t, nil, 2)
	texts := rapid.StringOfN(rapid.RuneFrom([]rune("abé日 \n=")), 0, 30, -1)
	rapid.Check(t, func(t *rapid.T) {
		r := Request{
			Prompt:    Prompt{Prefix: texts.Draw(t, "prefix"), Suffix: texts.Draw(t, "suffix")},
			MaxTokens: rapid.IntRange(0, 40).Draw(t, "max tokens"),
			Sampling:  Sampling{Temperature: rapid.SampledFrom([]float64{0, 1, 3}).Draw(t, "temperature"), Seed: rapid.Uint64().Draw(t, "seed")},
			// Frequent in random output: single letters, and the replacement character of broken bytes.
			Stop:     rapid.SliceOfN(rapid.SampledFrom([]string{"a", "re", "\ufffd\ufffd", "\n", "rn", "é"}), 0, 3).Draw(t, "stop"),
			Logprobs: rapid.Bool().Draw(t, "logprobs"), Top: 3,
		}
		var streamed strings.Builder
		var tokens []Token
		var reasons []FinishReason
		res, err := m.Generate(context.Background(), r, func(c Chunk) error {
			if !utf8.ValidString(c.Text) {
				t.Fatalf("chunk %q is not whole characters", c.Text)
			}
			streamed.WriteString(c.Text)
			tokens = append(tokens, c.Tokens...)
			reasons = append(reasons, c.FinishReason)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if streamed.String() != res.Text {
			t.Fatalf("streamed %q, expected the result %q", streamed.String(), res.Text)
		}
		if n := len(reasons); n == 0 || reasons[n-1] != res.FinishReason || slices.ContainsFunc(reasons[:n-1], func(f FinishReason) bool { return f != "" }) {
			t.Fatalf("finish reasons %q, expected %q once at the end", reasons, res.FinishReason)
		}
		for _, id := range res.IDs {
			if int(id) >= m.vocab || m.tok.IsSpecial(id) {
				t.Fatalf("generated id %d", id)
			}
		}
		want, hit := m.tok.Decode(res.IDs), ""
		if cut := firstStop(want, r.Stop); cut.stop != "" {
			want, hit = want[:cut.at], cut.stop
		}
		if res.Text != want || res.StopText != hit {
			t.Fatalf("text %q ended by %q, expected %q ended by %q", res.Text, res.StopText, want, hit)
		}
		switch {
		case len(res.IDs) > r.MaxTokens, res.FinishReason == FinishLength && len(res.IDs) != r.MaxTokens, hit != "" && res.FinishReason != FinishStop:
			t.Fatalf("%d of %d tokens, finished by %q", len(res.IDs), r.MaxTokens, res.FinishReason)
		}
		// Tokens are those of the text, each where it begins.
		var bytes []byte
		for i, tok := range tokens {
			if tok.ID != res.IDs[i] || tok.Scored() != r.Logprobs || tok.Start > len(res.Text) {
				t.Fatalf("token %d is %+v, expected id %d within %d bytes", i, tok, res.IDs[i], len(res.Text))
			}
			bytes = append(bytes, tok.Bytes...)
		}
		if shown := strings.ToValidUTF8(string(bytes), "\ufffd"); hit == "" && (len(tokens) != len(res.IDs) || shown != strings.ToValidUTF8(res.Text, "\ufffd") && utf8.Valid(bytes)) {
			t.Fatalf("tokens spell %q, expected %q", shown, res.Text)
		}
		if !r.Logprobs {
			return
		}
		if !slices.EqualFunc(tokens, res.Tokens, func(a, b Token) bool { return a.ID == b.ID && a.LogProb == b.LogProb }) {
			t.Fatal("streamed tokens are not those of the result")
		}
		nll, err := m.NLL(context.Background(), slices.Concat(res.PromptIDs, res.IDs), len(res.PromptIDs))
		if err != nil {
			t.Fatal(err)
		}
		for i, tok := range res.Tokens {
			if tok.LogProb != -nll[i] {
				t.Fatalf("log-probability of token %d is %v, scoring says %v", i, tok.LogProb, -nll[i])
			}
			if len(tok.Top) != 3 || tok.Top[0].LogProb < tok.Top[1].LogProb || tok.Top[0].LogProb < tok.LogProb {
				t.Fatalf("alternatives %v of a token with %v", tok.Top, tok.LogProb)
			}
		}
	})
}

type stopAt struct {
	at   int
	stop string
}

// firstStop finds the stop text that is complete first, the longest of those complete together.
func firstStop(text string, stops []string) (first stopAt) {
	end := math.MaxInt
	for _, s := range stops {
		if i := strings.Index(text, s); i >= 0 && (i+len(s) < end || i+len(s) == end && len(s) > len(first.stop)) {
			first, end = stopAt{i, s}, i+len(s)
		}
	}
	return first
}

func TestGenerateEnds(t *testing.T) {
	m := textModel(t, func(c *model.Config) { c.Positions = 40 }, 1)
	ids := m.tok.Encode("def add(a, b):")
	all, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 1000, Sampling: Sampling{Temperature: 1, Seed: 1, Bias: noEnd(m)}}, nil)
	if err != nil || all.FinishReason != FinishLength || len(all.IDs) != 40-len(ids) {
		t.Fatalf("%d tokens, %q, %v; expected %d to the end of the context", len(all.IDs), all.FinishReason, err, 40-len(ids))
	}
	stopped, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 1000, Sampling: Sampling{Temperature: 1, Seed: 1, Bias: noEnd(m)}, StopIDs: all.IDs[5:6]}, nil)
	if n := slices.Index(all.IDs, all.IDs[5]); err != nil || stopped.FinishReason != FinishStop || !slices.Equal(stopped.IDs, all.IDs[:n]) {
		t.Errorf("stop token: %v, %q, %v; expected %v", stopped.IDs, stopped.FinishReason, err, all.IDs[:n])
	}
	for _, name := range []string{"<|endoftext|>", "<fim_prefix>", "<file_sep>"} {
		end, _ := m.tok.ID(name)
		over, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 10, Sampling: Sampling{Bias: map[int32]float64{end: 100}}}, nil)
		if err != nil || over.FinishReason != FinishStop || len(over.IDs) != 0 || over.Text != "" {
			t.Errorf("%s: %+v, %v", name, over, err)
		}
	}
	// Other control tokens are never generated, however probable.
	never, _ := m.tok.ID("<jupyter_code>")
	res, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 10, Sampling: Sampling{Bias: map[int32]float64{never: 100}}}, nil)
	if err != nil || slices.Contains(res.IDs, never) {
		t.Errorf("control token: %v, %v", res.IDs, err)
	}
}

// noEnd keeps a completion from ending by itself.
func noEnd(m *Model) map[int32]float64 {
	b := map[int32]float64{}
	for _, id := range m.stops {
		b[id] = -100
	}
	return b
}

func TestGeneratePromptLogprobs(t *testing.T) {
	m := textModel(t, nil, 2)
	ids := m.tok.Encode("def größe(a, b):\n    return a")
	plain, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 5, Logprobs: true, PromptLogprobs: true, Top: 2}, nil)
	if err != nil || !slices.Equal(res.IDs, plain.IDs) {
		t.Fatalf("%v, %v; expected %v as without log-probabilities", res.IDs, err, plain.IDs)
	}
	nll, err := m.NLL(t.Context(), ids, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := m.tok.Decode(ids)
	for i, tok := range res.PromptTokens {
		if tok.Scored() != (i > 0) || i > 0 && tok.LogProb != -nll[i-1] || utf8.Valid(tok.Bytes) && !strings.HasPrefix(text[tok.Start:], string(tok.Bytes)) {
			t.Errorf("prompt token %d: %+v", i, tok)
		}
	}
	if len(res.PromptTokens) != len(ids) {
		t.Errorf("%d prompt tokens, expected %d", len(res.PromptTokens), len(ids))
	}
	none, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 0, Logprobs: true, PromptLogprobs: true}, nil)
	if err != nil || len(none.IDs) != 0 || len(none.PromptTokens) != len(ids) || none.FinishReason != FinishLength {
		t.Errorf("scoring alone: %+v, %v", none, err)
	}
}

func TestGenerateErrors(t *testing.T) {
	m := textModel(t, nil, 1)
	p := Prompt{Prefix: "x"}
	for want, r := range map[string]Request{
		"temperature: found -1, expected 0 to 100":                   {Prompt: p, Sampling: Sampling{Temperature: -1}},
		"logprobs: found 21, expected 0 to 20":                       {Prompt: p, Top: 21},
		"logit_bias: found token 322, expected 0 to 321":             {Prompt: p, Sampling: Sampling{Bias: map[int32]float64{322: 1}}},
		"stop_token_ids: found token -1, expected 0 to 321":          {Prompt: p, StopIDs: []int32{-1}},
		"stop: found an empty text, expected at least one character": {Prompt: p, Stop: []string{""}},
		"max_tokens: found -1, expected 0 or more":                   {Prompt: p, MaxTokens: -1},
		"prompt: token 0: found id 324, expected 0 to 321":           {Prompt: Prompt{IDs: []int32{324}}},
		"prompt: found token ids and text, expected one of them":     {Prompt: Prompt{IDs: []int32{4}, Prefix: "x"}},
	} {
		if _, err := m.Generate(t.Context(), r, nil); errorText(err) != want {
			t.Errorf("%v, expected %s", err, want)
		}
	}
}

func TestGenerateCancel(t *testing.T) {
	m := textModel(t, nil, 2)
	r := Request{Prompt: Prompt{Prefix: "def add(a, b):"}, MaxTokens: 50, Sampling: Sampling{Temperature: 1, Bias: noEnd(m)}}
	gone := errors.New("receiver gone")
	n := 0
	res, err := m.Generate(t.Context(), r, func(Chunk) error {
		if n++; n == 4 {
			return gone
		}
		return nil
	})
	if !errors.Is(err, gone) || res.FinishReason != FinishCancel || len(res.IDs) == 0 || len(res.IDs) >= 50 {
		t.Errorf("receiver failed: %d tokens, %q, %v", len(res.IDs), res.FinishReason, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	n = 0
	res, err = m.Generate(ctx, r, func(Chunk) error {
		if n++; n == 4 {
			cancel(gone)
		}
		return nil
	})
	if !errors.Is(err, gone) || res.FinishReason != FinishCancel || n != 4 {
		t.Errorf("cancelled: %d chunks, %q, %v; expected none after the fourth", n, res.FinishReason, err)
	}
}

// TestGenerateTogether: requests that run at the same time get what they get alone, on any number of threads.
func TestGenerateTogether(t *testing.T) {
	alone, together := textModel(t, nil, 1), textModel(t, nil, 3)
	var reqs []Request
	for i := range 12 {
		reqs = append(reqs, Request{
			Prompt:    Prompt{Prefix: strings.Repeat("x = y\n", 3*i), Suffix: strings.Repeat("é", i%3)},
			MaxTokens: 20, Sampling: Sampling{Temperature: float64(i%3) / 2, Seed: uint64(i)},
		})
	}
	got := make([]Result, len(reqs))
	var wg sync.WaitGroup
	for i, r := range reqs {
		wg.Go(func() {
			var err error
			if got[i], err = together.Generate(context.Background(), r, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, r := range reqs {
		want, err := alone.Generate(t.Context(), r, nil)
		if err != nil || got[i].Text != want.Text || !slices.Equal(got[i].IDs, want.IDs) {
			t.Errorf("request %d: %q, expected %q (%v)", i, got[i].Text, want.Text, err)
		}
	}
}

func TestNewErrors(t *testing.T) {
	tok := infertest.Tokenizer(t)
	small := infertest.Checkpoint(infertest.Config(300))
	if _, err := New(small, tok, Options{}); err == nil || !strings.Contains(err.Error(), "model random: tokenizer of 322 tokens") {
		t.Errorf("tokenizer of another model: %v", err)
	}
	if _, err := New(small, nil, Options{Threads: -1}); errorText(err) != "threads: found -1, expected 0 or more" {
		t.Errorf("threads: %v", err)
	}
	broken := infertest.Checkpoint(infertest.Config(97))
	wide := infertest.Config(97)
	wide.Inner++
	broken.Config = wide
	if _, err := New(broken, nil, Options{}); err == nil || !strings.Contains(err.Error(), "tensor transformer.h.0.mlp.c_fc.weight: shape [80 48], expected [81 48]") {
		t.Errorf("weights of another shape: %v", err)
	}
}
