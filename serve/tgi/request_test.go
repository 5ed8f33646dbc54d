package tgi

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"autodev/infer"
	"autodev/serve/wire"

	"pgregory.net/rapid"
)

// bytewise is an engine of which only the tokenizer is asked: a token for each n bytes.
type bytewise struct {
	wire.Engine
	text string
	n    int
}

func (bytewise) Info() infer.Info { return infer.Info{Context: 32, FIM: true} }

func (b bytewise) Encode(text string, _ bool) (ids []int32) {
	for i := 0; i < len(text); i += b.n {
		ids = append(ids, int32(i))
	}
	return ids
}

func (b bytewise) TokenText(id int32) []byte {
	if int(id) >= len(b.text) {
		return nil
	}
	return []byte(b.text[id:min(int(id)+b.n, len(b.text))])
}

func FuzzGenerateBody(f *testing.F) {
	for _, s := range []string{
		`{"inputs":"a","parameters":{"max_new_tokens":3,"temperature":0.2,"top_p":0.95,"do_sample":true,"stop":["x"],"seed":1,"return_full_text":false,"details":true}}`,
		`{"inputs":"größe","parameters":{"truncate":2,"adapter_id":"x","best_of":2,"do_sample":true,"top_n_tokens":3}}`,
		`{"inputs":null}`, `{"inputs":"a","parameters":[]}`, `{"inputs":"a","parameters":{"grammar":{"type":"json"}}}`, `[`, "\xff", `{"inputs":"\ud800","parameters":{"truncate":1}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		check := func(err error) {
			var own *wire.Error
			if err != nil && (!errors.As(err, &own) || own.Status != 400 || own.Message == "" || strings.ContainsAny(own.Message, "\n\r")) {
				t.Fatalf("%#v is not an answer to a bad request", err)
			}
		}
		f, err := wire.ParseFields(body)
		check(err)
		if err != nil {
			return
		}
		r, err := parseGenerate(f, false)
		check(err)
		if err != nil {
			return
		}
		for _, suffix := range []string{"", "s"} {
			all, err := r.requests(wire.Model{Engine: bytewise{text: r.inputs, n: 3}}, true, func(raw string) infer.Prompt { return infer.Prompt{Prefix: raw, Suffix: suffix} })
			check(err)
			if err == nil && (len(all) != r.bestOf || all[0].MaxTokens < 0 || !utf8.ValidString(all[0].Prompt.Prefix) || !strings.HasSuffix(r.inputs, all[0].Prompt.Prefix)) {
				t.Fatalf("accepted %+v", all)
			}
		}
	})
}

// TestPieces: whatever the chunks, the texts of a stream's events joined are the answer's, and there is an event for each token.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &answer{req: &generateRequest{}}
		var want, got string
		var tokens []infer.Token
		var events []any
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 3), 1, 8).Draw(t, "chunks") {
			c := infer.Chunk{}
			for range n {
				piece := rapid.SampledFrom([]string{"", "a", "bc", "é"}).Draw(t, "token")
				c.Tokens = append(c.Tokens, infer.Token{ID: int32(len(tokens)), Start: len(want)})
				tokens = append(tokens, c.Tokens[len(c.Tokens)-1])
				want += piece
				c.Text += piece
			}
			if rapid.Bool().Draw(t, "text without a token") {
				c.Text += "x"
				want += "x"
			}
			events = append(events, a.Events(0, c)...)
		}
		events = append(events, a.Events(0, infer.Chunk{FinishReason: infer.FinishStop})...)
		events = append(events, a.End([]infer.Result{{Text: want}})...)
		seen := 0
		for i, e := range events {
			e := e.(event)
			if got += e.Token.Text; e.Index != i+1 || (e.Text != nil) != (i == len(events)-1) {
				t.Fatalf("event %d: %+v", i, e)
			}
			if seen < len(tokens) && e.Token.ID == tokens[seen].ID {
				seen++
			}
		}
		if got != want || seen != len(tokens) || *events[len(events)-1].(event).Text != want {
			t.Fatalf("%q with %d of %d tokens, expected %q", got, seen, len(tokens), want)
		}
	})
}

func TestCharacters(t *testing.T) {
	const text = "aéb€c" // 1, 2, 1, 3 and 1 bytes
	for n, want := range map[int][]simpleToken{
		1: {{0, "a", 0, 1}, {1, "é", 1, 2}, {2, "é", 1, 2}, {3, "b", 2, 3}, {4, "€", 3, 4}, {5, "€", 3, 4}, {6, "€", 3, 4}, {7, "c", 4, 5}},
		2: {{0, "aé", 0, 2}, {2, "éb", 1, 3}, {4, "€", 3, 4}, {6, "€c", 3, 5}},
		8: {{0, text, 0, 5}},
	} {
		e := bytewise{text: text, n: n}
		got, ok := characters(text, e.Encode(text, false), e)
		if !ok || len(got) != len(want) {
			t.Fatalf("%d bytes a token: %v %v", n, got, ok)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%d bytes a token: %v, expected %v", n, got[i], want[i])
			}
		}
	}
	e := bytewise{text: "other", n: 1}
	if got, ok := characters(text, e.Encode(text, false), e); ok {
		t.Errorf("tokens of another text: %v", got)
	}
	if got, ok := characters("", nil, e); !ok || len(got) != 0 {
		t.Errorf("%v %v", got, ok)
	}
}
