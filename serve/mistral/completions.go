package mistral

import (
	"time"

	"autodev/infer"
	"autodev/serve/wire"
)

// complete answers POST /v1/fim/completions.
func complete(c *wire.Call) error {
	req, m, release, err := wire.Ask(c, parse, func(r *request) string { return r.model })
	if err != nil {
		return err
	}
	defer release()
	c.TranslateRaw(m, &req.infer.Prompt)
	q, err := req.request(m.Shape)
	if err != nil {
		return err
	}
	return c.Reply(m, []infer.Request{q}, req.stream, &answer{head: head{ID: c.CompletionID("cmpl-"), Object: "chat.completion", Created: time.Now().Unix(), Model: m.ID}})
}

// answer makes the objects of one answer.
type answer struct {
	head  head
	begun bool // there was an event
}

// Whole implements wire.Form.
func (a *answer) Whole(results []infer.Result) any {
	r := results[0]
	return completion{
		head:    a.head,
		Choices: []choice{{Message: message{"assistant", r.Text}, FinishReason: wire.FinishReason(r.FinishReason)}},
		Usage:   wire.UsageOf(results, 1),
	}
}

// Events implements wire.Form. The end is told with the usage.
func (a *answer) Events(_ int, c infer.Chunk) []any {
	if c.Text == "" {
		return nil
	}
	return []any{a.event(c.Text)}
}

// End implements wire.Form.
func (a *answer) End(results []infer.Result) []any {
	last := a.event("")
	last.Choices[0].FinishReason = wire.FinishReason(results[0].FinishReason)
	last.Usage = wire.UsageOf(results, 1)
	return []any{last, wire.Done}
}

func (a *answer) event(text string) chunk {
	e := chunk{head: a.head, Choices: []chunkChoice{{Delta: delta{Content: text}}}}
	e.Object = "chat.completion.chunk"
	if !a.begun {
		a.begun, e.Choices[0].Delta.Role = true, "assistant"
	}
	return e
}
