package serve

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"autodev/infer"
)

// completion is OpenAI's text_completion object, whole or one event of a stream.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
	// Timings are not of OpenAI's but as llama.cpp's server gives them.
	Timings *timings `json:"timings,omitempty"`
}

type choice struct {
	Text         string    `json:"text"`
	Index        int       `json:"index"`
	Logprobs     *logprobs `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
	// Shortened says that the prompt was cut to fit the context. Not of OpenAI's; absent when false.
	Shortened bool `json:"prompt_shortened,omitempty"`
}

type usage struct {
	PromptTokens        int           `json:"prompt_tokens"`
	CompletionTokens    int           `json:"completion_tokens"`
	TotalTokens         int           `json:"total_tokens"`
	PromptTokensDetails promptDetails `json:"prompt_tokens_details"`
}

type promptDetails struct {
	CachedTokens int `json:"cached_tokens"` // that a request before had evaluated
}

// usageOf adds up results; the n results of one prompt share it.
func usageOf(results []infer.Result, n int) *usage {
	u := &usage{}
	for i, r := range results {
		if i%n == 0 {
			u.PromptTokens += len(r.PromptIDs)
			u.PromptTokensDetails.CachedTokens += r.Cached
		}
		u.CompletionTokens += len(r.IDs)
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

// timings tell where the time of an answer went, over all its choices.
type timings struct {
	Cached         int     `json:"cache_n"`  // prompt tokens from the cache
	Prompt         int     `json:"prompt_n"` // evaluated
	PromptMS       float64 `json:"prompt_ms"`
	PromptTokenMS  float64 `json:"prompt_per_token_ms"`
	PromptRate     float64 `json:"prompt_per_second"`
	Predicted      int     `json:"predicted_n"`
	PredictedMS    float64 `json:"predicted_ms"`
	PredictTokenMS float64 `json:"predicted_per_token_ms"`
	PredictedRate  float64 `json:"predicted_per_second"`
	Drafted        int     `json:"draft_n"`
	Accepted       int     `json:"draft_n_accepted"`
}

func timingsOf(results []infer.Result) *timings {
	t := &timings{}
	var total infer.Timings
	for _, r := range results {
		t.Cached += r.Cached
		t.Prompt += len(r.PromptIDs) - r.Cached
		t.Predicted += len(r.IDs)
		t.Drafted += r.Drafted
		t.Accepted += r.Accepted
		total.Prompt += r.Timings.Prompt
		total.Decode += r.Timings.Decode
	}
	t.PromptMS, t.PredictedMS = milliseconds(total.Prompt), milliseconds(total.Decode)
	t.PromptTokenMS, t.PredictTokenMS = t.PromptMS/float64(max(1, t.Prompt)), t.PredictedMS/float64(max(1, t.Predicted))
	t.PromptRate, t.PredictedRate = total.PromptRate(t.Prompt), total.DecodeRate(t.Predicted)
	return t
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// logprobs holds one element per token in each of its lists. Offsets count characters of the choice's text.
type logprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
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

// modelList is the answer of GET /v1/models.
type modelList struct {
	Object string      `json:"object"`
	Data   []modelCard `json:"data"`
}

type modelCard struct {
	ID          string    `json:"id"`
	Object      string    `json:"object"`
	Created     int64     `json:"created"`
	OwnedBy     string    `json:"owned_by"`
	MaxModelLen int       `json:"max_model_len"`
	Meta        modelMeta `json:"meta"`
}

type modelMeta struct {
	ContextTrained int   `json:"n_ctx_train"`
	Vocab          int   `json:"n_vocab"`
	Parameters     int64 `json:"n_params"`
	FIM            bool  `json:"fim"`
}
