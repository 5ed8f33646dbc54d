package wire

import (
	"time"

	"autodev/infer"
)

// Timings tell where the time of an answer went, over all its choices, as llama.cpp's server tells it.
type Timings struct {
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

// TimingsOf adds up results.
func TimingsOf(results []infer.Result) *Timings {
	t := &Timings{}
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
	t.PromptMS, t.PredictedMS = Milliseconds(total.Prompt), Milliseconds(total.Decode)
	t.PromptTokenMS, t.PredictTokenMS = t.PromptMS/float64(max(1, t.Prompt)), t.PredictedMS/float64(max(1, t.Predicted))
	t.PromptRate, t.PredictedRate = total.PromptRate(t.Prompt), total.DecodeRate(t.Predicted)
	return t
}

// Milliseconds returns d in milliseconds, to the microsecond.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Usage counts tokens as OpenAI does.
type Usage struct {
	PromptTokens        int           `json:"prompt_tokens"`
	CompletionTokens    int           `json:"completion_tokens"`
	TotalTokens         int           `json:"total_tokens"`
	PromptTokensDetails PromptDetails `json:"prompt_tokens_details"`
}

// PromptDetails says more of a prompt's tokens.
type PromptDetails struct {
	CachedTokens int `json:"cached_tokens"` // that a request before had evaluated
}

// UsageOf adds up results; the n results of one prompt share it.
func UsageOf(results []infer.Result, n int) *Usage {
	u := &Usage{}
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
