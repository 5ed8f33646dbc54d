package infer

import (
	"context"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// written lets a model write text, whatever it would choose itself.
func written(t interface {
	Helper()
	Fatal(...any)
}, m *Model, r Request, text string) (Result, []Chunk) {
	t.Helper()
	r.Replay = m.tok.Encode(text)
	r.MaxTokens, r.Logprobs = len(r.Replay), true
	var chunks []Chunk
	res, err := m.Generate(context.Background(), r, func(c Chunk) error {
		chunks = append(chunks, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return res, chunks
}

// TestWriterShapes: a rule ends the completion, says so, and what it cuts is neither shown nor among the tokens.
func TestWriterShapes(t *testing.T) {
	m := textModel(t, nil, 1)
	for _, c := range []struct {
		name, text, want string
		r                Request
		reason           FinishReason
		rule             StopRule
		stop             string
		whole            bool // all tokens were generated
	}{
		{"a line", "a + b\nreturn", "a + b", Request{Prompt: Prompt{Prefix: "x = "}, Shape: Shape{Lines: OneLine}}, FinishStop, StopLine, "", false},
		{"a stop text before", "a + b\n", "a ", Request{Prompt: Prompt{Prefix: "x = "}, Shape: Shape{Lines: OneLine}, Stop: []string{"+"}}, FinishStop, "", "+", false},
		{"a stop text behind", "a\nx + b\n", "a", Request{Prompt: Prompt{Prefix: "x = "}, Shape: Shape{Lines: OneLine}, Stop: []string{"+"}}, FinishStop, StopLine, "", false},
		{"an end that repeats", "a)", "a", Request{Prompt: Prompt{Prefix: "f(", Suffix: ")\n"}, Shape: Shape{NoOverlap: true}}, FinishStop, StopSuffix, "", true},
		{"nothing to cut", "a + b", "a + b", Request{Prompt: Prompt{Prefix: "x = "}, Shape: Shape{Lines: AutoLines, NoOverlap: true, NoLoops: true}}, FinishLength, "", "", true},
		{"a stop text and an end that repeats", "a)END", "a", Request{Prompt: Prompt{Prefix: "f(", Suffix: ")\n"}, Shape: Shape{NoOverlap: true}, Stop: []string{"END"}}, FinishStop, StopSuffix, "", true},
	} {
		res, chunks := written(t, m, c.r, c.text)
		var streamed strings.Builder
		for _, ch := range chunks {
			streamed.WriteString(ch.Text)
		}
		if res.Text != c.want || streamed.String() != c.want || res.FinishReason != c.reason || res.StopRule != c.rule || res.StopText != c.stop {
			t.Errorf("%s: %q (streamed %q), %s by rule %q or %q", c.name, res.Text, streamed.String(), res.FinishReason, res.StopRule, res.StopText)
		}
		if (len(res.IDs) == len(m.tok.Encode(c.text))) != c.whole {
			t.Errorf("%s: %d tokens generated of %d", c.name, len(res.IDs), len(m.tok.Encode(c.text)))
		}
		for _, tk := range res.Tokens {
			if tk.Start >= len(res.Text) {
				t.Errorf("%s: token %q from %d on in %q", c.name, tk.Bytes, tk.Start, res.Text)
			}
		}
	}
}

// TestNewlines: text with "\r\n" reaches the model with "\n", and the completion comes back with "\r\n", in whatever pieces, with
// tokens where they are. Mixed text is left as it is.
func TestNewlines(t *testing.T) {
	m := textModel(t, nil, 1)
	lf := Prompt{Prefix: "def add(a, b):\n\t", Suffix: "\n\nprint(i)\n"}
	crlf := Prompt{Prefix: strings.ReplaceAll(lf.Prefix, "\n", "\r\n"), Suffix: strings.ReplaceAll(lf.Suffix, "\n", "\r\n")}
	mixed := Prompt{Prefix: lf.Prefix, Suffix: crlf.Suffix}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"\n", "\n\n", "\r\n", "    return", "\t", "é", "a", "\r"}), 1, 12).Draw(t, "text"), "")
		stop := rapid.SampledFrom([][]string{nil, {"\n\n"}, {"\r\n\r\n"}, {"a"}}).Draw(t, "stop")
		want, _ := written(t, m, Request{Prompt: lf, Stop: bareStops(stop)}, text)
		got, chunks := written(t, m, Request{Prompt: crlf, Stop: stop}, text)
		if !slices.Equal(got.PromptIDs, want.PromptIDs) || !slices.Equal(got.IDs, want.IDs) {
			t.Fatalf("tokens %v and %v, expected %v and %v", got.PromptIDs, got.IDs, want.PromptIDs, want.IDs)
		}
		all := strings.ReplaceAll(strings.ReplaceAll(want.Text, "\r\n", "\n"), "\n", "\r\n")
		var streamed, bytes strings.Builder
		for _, c := range chunks {
			streamed.WriteString(c.Text)
		}
		for i, tk := range got.Tokens {
			if s := strings.ToValidUTF8(string(tk.Bytes), ""); tk.Start < len(got.Text) && len(s) == len(tk.Bytes) && got.StopText == "" && !strings.HasPrefix(got.Text[tk.Start:], s) {
				t.Fatalf("token %d is %q, expected what stands at %d of %q", i, tk.Bytes, tk.Start, got.Text)
			}
			bytes.Write(tk.Bytes)
		}
		if got.Text != all || streamed.String() != all || got.StopText == "" && bytes.String() != all {
			t.Fatalf("%q, streamed %q, tokens %q; expected %q", got.Text, streamed.String(), bytes.String(), all)
		}
		if got.StopText != "" && !slices.Contains(stop, got.StopText) {
			t.Fatalf("stopped by %q, expected one of %q", got.StopText, stop)
		}
		asIs, _ := written(t, m, Request{Prompt: mixed}, text)
		if asIs.Text != m.tok.Decode(asIs.IDs) {
			t.Fatalf("in mixed text %q, expected %q", asIs.Text, m.tok.Decode(asIs.IDs))
		}
	})
}

func bareStops(stops []string) []string {
	var out []string
	for _, s := range stops {
		out = append(out, strings.ReplaceAll(s, "\r\n", "\n"))
	}
	return out
}
