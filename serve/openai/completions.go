package openai

import (
	"time"
	"unicode/utf8"

	"autodev/infer"
	"autodev/serve/wire"
)

// completions answers POST /v1/completions.
func completions(c *wire.Call) error {
	req, m, release, err := wire.Ask(c, parseCompletion, func(r *completionRequest) string { return r.model })
	if err != nil {
		return err
	}
	defer release()
	if !req.echo {
		for i := range req.prompts {
			c.TranslateRaw(m, &req.prompts[i])
		}
	}
	reqs, err := req.requests(m.Shape)
	if err != nil {
		return err
	}
	a := &answer{
		engine: m.Engine, req: req, choices: make([]told, len(reqs)),
		head: completion{ID: c.CompletionID("cmpl-"), Object: "text_completion", Created: time.Now().Unix(), Model: m.ID},
	}
	if req.echo {
		for i := range reqs {
			if a.choices[i].echo = reqs[i].Prompt.Prefix; reqs[i].Prompt.IDs != nil {
				a.choices[i].echo = m.Engine.Decode(reqs[i].Prompt.IDs)
			}
		}
	}
	return c.Reply(m, reqs, req.stream, a)
}

// answer makes the objects of one request's answer.
type answer struct {
	engine  wire.Engine
	req     *completionRequest
	head    completion
	choices []told
}

// told is what a stream has told of a choice.
type told struct {
	echo  string // before its text
	begun bool   // it has had an event
	at    offsets
}

// Whole implements wire.Form.
func (a *answer) Whole(results []infer.Result) any {
	c := a.head
	c.Usage, c.Timings = wire.UsageOf(results, a.req.n), wire.TimingsOf(results)
	for i, r := range results {
		echo := a.choices[i].echo
		ch := choice{Text: echo + r.Text, Index: i, FinishReason: wire.FinishReason(r.FinishReason), Shortened: r.Shortened}
		if a.req.logprobs != nil {
			ch.Logprobs = newLogprobs()
			ch.Logprobs.add(r.PromptTokens, 0, &offsets{text: echo}, a.engine.TokenText)
			ch.Logprobs.add(r.Tokens, utf8.RuneCountInString(echo), &offsets{text: r.Text}, a.engine.TokenText)
		}
		c.Choices = append(c.Choices, ch)
	}
	return c
}

// Events implements wire.Form. A chunk that says nothing is none.
func (a *answer) Events(i int, chunk infer.Chunk) []any {
	t := &a.choices[i]
	t.at.text += chunk.Text
	ch := choice{Text: chunk.Text, Index: i, FinishReason: wire.FinishReason(chunk.FinishReason), Shortened: chunk.Shortened}
	if !t.begun {
		t.begun = true
		ch.Text = t.echo + ch.Text
	}
	if ch.Text == "" && ch.FinishReason == nil && a.req.logprobs == nil {
		return nil
	}
	if a.req.logprobs != nil {
		ch.Logprobs = newLogprobs()
		ch.Logprobs.add(chunk.Tokens, utf8.RuneCountInString(t.echo), &t.at, a.engine.TokenText)
	}
	c := a.head
	c.Choices = []choice{ch}
	return []any{c}
}

// End implements wire.Form.
func (a *answer) End(results []infer.Result) []any {
	if !a.req.includeUsage {
		return []any{wire.Done}
	}
	c := a.head
	c.Choices, c.Usage, c.Timings = []choice{}, wire.UsageOf(results, a.req.n), wire.TimingsOf(results)
	return []any{c, wire.Done}
}
