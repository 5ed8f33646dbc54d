package runtime

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"slices"
	"time"

	"autodev/infer"
	"autodev/internal/rng"
	"autodev/model"
	"autodev/tokenizer"
)

// Spec is what one process measures.
type Spec struct {
	Variant
	Model        string `json:"model"` // as Opener understands it
	PromptTokens int    `json:"prompt_tokens"`
	NewTokens    int    `json:"new_tokens"`
	Prompt       string `json:"prompt,omitempty"`     // text whose first PromptTokens tokens are the prompt; "" is DefaultPrompt
	HugePages    string `json:"huge_pages,omitempty"` // infer.HugePages
	LoadOnly     bool   `json:"load_only,omitempty"`
}

// Sample is one measurement. Times are seconds, sizes bytes.
type Sample struct {
	Load        float64     `json:"load_s"`           // opening the model until it can be asked
	FirstUse    float64     `json:"first_use_s"`      // opening the model until the first token of its first request
	FirstToken  float64     `json:"first_token_s"`    // of the measured request: until the prompt is evaluated
	Prefill     float64     `json:"prefill_tokens_s"` // prompt tokens a second
	Decode      float64     `json:"decode_tokens_s"`  // tokens a second after the first
	Request     float64     `json:"request_s"`        // the whole completion request
	PeakMemory  int64       `json:"peak_bytes"`       // of the process, 0 where the system does not say
	Resident    int64       `json:"resident_bytes"`   // after the request
	KVPerToken  int64       `json:"kv_bytes_per_token"`
	IDs         []int32     `json:"ids"`
	Drafted     int         `json:"drafted_tokens"`  // evaluated as guesses
	Accepted    int         `json:"accepted_tokens"` // guesses that were right
	Calibration Calibration `json:"calibration"`
}

// Opened is a model ready to be asked.
type Opened struct {
	Model      *infer.Model
	Tokenizer  *tokenizer.Tokenizer // nil: prompts are random token ids
	Config     model.Config
	KVPerToken int64 // bytes of the key/value cache, all layers
}

// Opener opens the model of s with its weights in the format s asks for, on s.Threads threads.
type Opener func(ctx context.Context, s Spec) (Opened, error)

//go:embed prompt.txt
var defaultPrompt string

// DefaultPrompt is source code of about 20 kB.
func DefaultPrompt() string { return defaultPrompt }

// Measure opens the model of s and completes one prompt twice: once for a single token, so that pages are mapped and memory
// is allocated, then for all s.NewTokens, measured.
func Measure(ctx context.Context, s Spec, open Opener) (Sample, error) {
	began := time.Now()
	o, err := open(ctx, s)
	if err != nil {
		return Sample{}, err
	}
	defer o.Model.Close()
	sample := Sample{Load: time.Since(began).Seconds(), KVPerToken: o.KVPerToken}
	if s.LoadOnly {
		return sample, nil
	}
	r, err := newRequest(o, s)
	if err != nil {
		return Sample{}, err
	}
	// The first request's prompt differs in its first token, so that nothing of it can serve the measured one.
	first := r
	first.prompt = append(slices.Clone(r.prompt[1:]), r.prompt[0])
	first.tokens = 1
	if _, err := first.complete(ctx, o.Model); err != nil {
		return Sample{}, err
	}
	sample.FirstUse = time.Since(began).Seconds()
	t, err := r.complete(ctx, o.Model)
	if err != nil {
		return Sample{}, err
	}
	if len(t.ids) != s.NewTokens {
		return Sample{}, fmt.Errorf("%s: %d tokens generated, expected %d", s.Variant, len(t.ids), s.NewTokens)
	}
	sample.FirstToken, sample.Request = t.prompt.Seconds(), (t.prompt + t.decode).Seconds()
	sample.Prefill = rate(s.PromptTokens, t.prompt)
	sample.Decode = rate(s.NewTokens-1, t.decode)
	sample.IDs, sample.Drafted, sample.Accepted = t.ids, t.drafted, t.accepted
	if s.Mode == Uncached {
		sample.KVPerToken = 0
	}
	sample.PeakMemory, sample.Resident = processMemory()
	sample.Calibration = Calibrate(s.Threads)
	return sample, nil
}

// rate returns n per second, 0 for none.
func rate(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// request is a completion of a fixed number of tokens.
type request struct {
	prompt  []int32
	tokens  int
	mode    Mode
	control []int32 // tokens that would end the completion, or are no text: never chosen
}

type timedIDs struct {
	ids               []int32
	prompt, decode    time.Duration
	drafted, accepted int
}

func newRequest(o Opened, s Spec) (request, error) {
	r := request{tokens: s.NewTokens, mode: s.Mode}
	info := o.Model.Info()
	switch {
	case s.PromptTokens < 1 || s.NewTokens < 2:
		return r, fmt.Errorf("%d prompt and %d new tokens, expected at least 1 and 2", s.PromptTokens, s.NewTokens)
	case s.PromptTokens+s.NewTokens > info.Context:
		return r, fmt.Errorf("%d prompt and %d new tokens, expected at most the model's context of %d together", s.PromptTokens, s.NewTokens, info.Context)
	}
	for id := range int32(info.Vocab) {
		if slices.Contains(o.Config.EOS, int(id)) || o.Tokenizer != nil && (o.Tokenizer.IsSpecial(id) || o.Tokenizer.TokenBytes(id) == nil) {
			r.control = append(r.control, id)
		}
	}
	if o.Tokenizer == nil {
		stream := rng.New(0, "bench runtime", 0)
		for range s.PromptTokens {
			r.prompt = append(r.prompt, int32(stream.IntN(info.Vocab)))
		}
		return r, nil
	}
	text := s.Prompt
	if text == "" {
		text = defaultPrompt
	}
	ids := o.Tokenizer.Encode(text)
	if len(ids) < s.PromptTokens {
		return r, fmt.Errorf("the prompt's text has %d tokens, expected at least %d", len(ids), s.PromptTokens)
	}
	r.prompt = ids[:s.PromptTokens]
	return r, nil
}

// complete generates r.tokens tokens, the most probable each time.
func (r request) complete(ctx context.Context, m *infer.Model) (timedIDs, error) {
	if r.mode == Uncached {
		return r.uncached(ctx, m)
	}
	bias := make(map[int32]float64, len(r.control))
	for _, id := range r.control {
		bias[id] = -100
	}
	speculate := infer.SpeculateOff
	if r.mode == Speculative {
		speculate = infer.SpeculateAuto
	}
	res, err := m.Generate(ctx, infer.Request{
		Prompt: infer.Prompt{IDs: r.prompt}, MaxTokens: r.tokens, Sampling: infer.Sampling{Bias: bias}, Speculate: speculate,
	}, nil)
	return timedIDs{res.IDs, res.Timings.Prompt, res.Timings.Decode, res.Drafted, res.Accepted}, err
}

// uncached evaluates the whole sequence for every token.
func (r request) uncached(ctx context.Context, m *infer.Model) (t timedIDs, err error) {
	s := m.NewSession()
	defer s.Close()
	began := time.Now()
	ids := slices.Clone(r.prompt)
	for i := range r.tokens {
		s.Truncate(0)
		logits, err := s.Append(ctx, ids)
		if err != nil {
			return t, err
		}
		if i == 0 {
			t.prompt = time.Since(began)
		}
		for _, id := range r.control {
			logits[id] = float32(math.Inf(-1))
		}
		best := 0
		for id, x := range logits {
			if x > logits[best] {
				best = id
			}
		}
		t.ids = append(t.ids, int32(best))
		ids = append(ids, int32(best))
	}
	t.decode = time.Since(began) - t.prompt
	return t, nil
}
