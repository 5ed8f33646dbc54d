package openai

import (
	"time"
	"unicode/utf8"

	"autodev/infer"
	"autodev/serve/wire"
)

// completions answers POST /v1/completions.
func completions(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	req, err := parseCompletion(f)
	if err != nil {
		return err
	}
	m, release, err := c.Use(req.model)
	if err != nil {
		return err
	}
	defer release()
	reqs, err := req.requests(m.Shape)
	if err != nil {
		return err
	}
	a := &answer{
		engine: m.Engine, req: req, choices: make([]told, len(reqs)),
		head: completion{ID: wire.NewID("cmpl-"), Object: "text_completion", Created: time.Now().Unix(), Model: m.ID},
	}
	if req.echo {
		for i := range reqs {
			if a.choices[i].echo = reqs[i].Prompt.Prefix; reqs[i].Prompt.IDs != nil {
				a.choices[i].echo = m.Engine.Decode(reqs[i].Prompt.IDs)
			}
		}
	}
	if !req.stream {
		results, err := c.Complete(m, reqs, nil)
		if err != nil {
			return err
		}
		c.ServerTiming(results)
		return c.JSON(a.whole(results))
	}
	s := c.Stream(wire.SSE, "")
	results, err := c.Complete(m, reqs, func(i int, chunk infer.Chunk) error {
		if e := a.event(i, chunk); e != nil {
			return s.Send(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if req.includeUsage {
		e := a.head
		e.Choices, e.Usage, e.Timings = []choice{}, wire.UsageOf(results, req.n), wire.TimingsOf(results)
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return s.Send(wire.Done)
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

// whole returns the answer as one object.
func (a *answer) whole(results []infer.Result) completion {
	c := a.head
	c.Usage, c.Timings = wire.UsageOf(results, a.req.n), wire.TimingsOf(results)
	for i, r := range results {
		echo := a.choices[i].echo
		ch := choice{Text: echo + r.Text, Index: i, FinishReason: wire.Optional(string(r.FinishReason)), Shortened: r.Shortened}
		if a.req.logprobs != nil {
			ch.Logprobs = newLogprobs()
			ch.Logprobs.add(r.PromptTokens, 0, &offsets{text: echo}, a.engine.TokenText)
			ch.Logprobs.add(r.Tokens, utf8.RuneCountInString(echo), &offsets{text: r.Text}, a.engine.TokenText)
		}
		c.Choices = append(c.Choices, ch)
	}
	return c
}

// event returns a chunk of choice i as an event, nil when it says nothing.
func (a *answer) event(i int, chunk infer.Chunk) *completion {
	t := &a.choices[i]
	t.at.text += chunk.Text
	ch := choice{Text: chunk.Text, Index: i, FinishReason: wire.Optional(string(chunk.FinishReason)), Shortened: chunk.Shortened}
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
	return &c
}
