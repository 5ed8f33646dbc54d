package ollama

import (
	"strings"
	"time"

	"autodev/infer"
	"autodev/serve/wire"
)

// generated is an answer of POST /api/generate, or a part of one.
type generated struct {
	Model      string    `json:"model"`
	At         string    `json:"created_at"` // RFC 3339
	Response   string    `json:"response"`
	Done       bool      `json:"done"`
	DoneReason string    `json:"done_reason,omitempty"`
	Context    []int32   `json:"context,omitempty"` // prompt and answer, for the next request
	Logprobs   []logprob `json:"logprobs,omitempty"`
	*metrics
}

// conversed is an answer of POST /api/chat, or a part of one.
type conversed struct {
	Model      string    `json:"model"`
	At         string    `json:"created_at"`
	Message    message   `json:"message"`
	Done       bool      `json:"done"`
	DoneReason string    `json:"done_reason,omitempty"`
	Logprobs   []logprob `json:"logprobs,omitempty"`
	*metrics
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// metrics end an answer. Durations are in nanoseconds; a model is loaded before there is a server, so what a request waits for is its turn.
type metrics struct {
	Total          int64 `json:"total_duration"`
	Load           int64 `json:"load_duration"`
	PromptCount    int   `json:"prompt_eval_count"`
	PromptDuration int64 `json:"prompt_eval_duration"`
	Count          int   `json:"eval_count"`
	Duration       int64 `json:"eval_duration"`
}

// logprob is a token and how probable it was, with others at its place.
type logprob struct {
	tokenLogprob
	Top []tokenLogprob `json:"top_logprobs,omitempty"`
}

type tokenLogprob struct {
	Token   string  `json:"token"`
	LogProb float64 `json:"logprob"`
	Bytes   []int   `json:"bytes,omitempty"`
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// answer makes the objects of one request's answer. It is a wire.Form.
type answer struct {
	m     wire.Model
	o     *options
	began time.Time
	chat  bool
	keep  bool // the answer has a context
}

// Whole implements wire.Form.
func (a *answer) Whole(results []infer.Result) any { return a.end(results[0], results[0].Text) }

// Events implements wire.Form.
func (a *answer) Events(_ int, c infer.Chunk) []any {
	if c.Text == "" && !(a.o.logprobs && len(c.Tokens) > 0) {
		return nil
	}
	return []any{a.part(c.Text, a.logprobs(c.Tokens))}
}

// End implements wire.Form.
func (a *answer) End(results []infer.Result) []any {
	r := results[0]
	r.Tokens = nil // told with their text
	return []any{a.end(r, "")}
}

// part returns an object with a text.
func (a *answer) part(text string, l []logprob) any {
	if a.chat {
		return conversed{Model: a.o.named(a.m), At: now(), Message: message{"assistant", text}, Logprobs: l}
	}
	return generated{Model: a.o.named(a.m), At: now(), Response: text, Logprobs: l}
}

// end returns the last object of an answer, with the text that was not sent yet.
func (a *answer) end(r infer.Result, text string) any {
	m := &metrics{
		Total: time.Since(a.began).Nanoseconds(), Load: r.Timings.Queue.Nanoseconds(),
		PromptCount: len(r.PromptIDs), PromptDuration: r.Timings.Prompt.Nanoseconds(), Count: len(r.IDs), Duration: r.Timings.Decode.Nanoseconds(),
	}
	reason := string(r.FinishReason)
	if r.FinishReason == infer.FinishCancel {
		reason = string(infer.FinishLength)
	}
	if a.chat {
		c := a.part(text, a.logprobs(r.Tokens)).(conversed)
		c.Done, c.DoneReason, c.metrics = true, reason, m
		return c
	}
	g := a.part(text, a.logprobs(r.Tokens)).(generated)
	g.Done, g.DoneReason, g.metrics = true, reason, m
	if a.keep {
		g.Context = append(append([]int32{}, r.PromptIDs...), r.IDs...)
	}
	return g
}

// logprobs tells of tokens, if it was asked for.
func (a *answer) logprobs(tokens []infer.Token) []logprob {
	if !a.o.logprobs {
		return nil
	}
	all := make([]logprob, len(tokens))
	for i, t := range tokens {
		all[i].tokenLogprob = newLogprob(t.Bytes, t.LogProb)
		for _, p := range t.Top {
			all[i].Top = append(all[i].Top, newLogprob(a.m.Engine.TokenText(p.ID), p.LogProb))
		}
	}
	return all
}

func newLogprob(b []byte, p float64) tokenLogprob {
	t := tokenLogprob{Token: strings.ToValidUTF8(string(b), "\ufffd"), LogProb: max(p, -1e300)}
	for _, c := range b {
		t.Bytes = append(t.Bytes, int(c))
	}
	return t
}
