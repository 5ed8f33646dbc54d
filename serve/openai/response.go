package openai

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"autodev/infer"
	"autodev/serve/wire"
)

// completion is OpenAI's text_completion object, whole or one event of a stream.
type completion struct {
	ID      string      `json:"id"`
	Object  string      `json:"object"`
	Created int64       `json:"created"`
	Model   string      `json:"model"`
	Choices []choice    `json:"choices"`
	Usage   *wire.Usage `json:"usage,omitempty"`
	// Timings are not of OpenAI's but as llama.cpp's server gives them.
	Timings *wire.Timings `json:"timings,omitempty"`
}

type choice struct {
	Text         string    `json:"text"`
	Index        int       `json:"index"`
	Logprobs     *logprobs `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
	// Shortened says that the prompt was cut to fit the context. Not of OpenAI's; absent when false.
	Shortened bool `json:"prompt_shortened,omitempty"`
}

// logprobs holds one element per token in each of its lists. Offsets count characters of the choice's text.
type logprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

// newLogprobs returns empty lists, which JSON must not write as null.
func newLogprobs() *logprobs {
	return &logprobs{Tokens: []string{}, TokenLogprobs: []*float64{}, TopLogprobs: []map[string]float64{}, TextOffset: []int{}}
}

// offsets turns bytes of a text into characters, for bytes asked for in ascending order.
type offsets struct {
	text  string // not counted yet
	bytes int    // counted
	chars int
}

// at returns the number of characters in the first n bytes of the text.
func (o *offsets) at(n int) int {
	k := min(max(n-o.bytes, 0), len(o.text))
	o.chars += utf8.RuneCountInString(o.text[:k])
	o.text, o.bytes = o.text[k:], o.bytes+k
	return o.chars
}

// add appends tokens to l; base is the number of characters before the text o that they belong to.
func (l *logprobs) add(tokens []infer.Token, base int, o *offsets, text func(id int32) []byte) {
	for _, t := range tokens {
		l.TextOffset = append(l.TextOffset, base+o.at(t.Start))
		l.Tokens = append(l.Tokens, tokenString(t.Bytes))
		if !t.Scored() {
			l.TokenLogprobs, l.TopLogprobs = append(l.TokenLogprobs, nil), append(l.TopLogprobs, nil)
			continue
		}
		top := make(map[string]float64, len(t.Top)+1)
		for _, p := range t.Top {
			s := tokenString(text(p.ID))
			if _, ok := top[s]; !ok {
				top[s] = p.LogProb
			}
		}
		top[tokenString(t.Bytes)] = t.LogProb
		l.TokenLogprobs, l.TopLogprobs = append(l.TokenLogprobs, &t.LogProb), append(l.TopLogprobs, top)
	}
}

// tokenString writes a token as JSON can carry it; bytes that are not whole characters are spelled out as OpenAI does.
func tokenString(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	s.WriteString("bytes:")
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}
