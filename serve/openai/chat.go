package openai

import (
	"time"

	"autodev/infer"
	"autodev/serve/wire"
)

// chat answers POST /v1/chat/completions.
func chat(c *wire.Call) error {
	req, m, release, err := wire.Ask(c, parseChat, func(r *chatRequest) string { return r.model })
	if err != nil {
		return err
	}
	defer release()
	reqs, err := req.requests(m)
	if err != nil {
		return err
	}
	return c.Reply(m, reqs, req.stream, &conversation{
		engine: m.Engine, req: req, begun: make([]bool, len(reqs)),
		head: chatHead{ID: c.CompletionID("chatcmpl-"), Object: "chat.completion", Created: time.Now().Unix(), Model: m.ID},
	})
}

// conversation makes the objects of one chat's answer.
type conversation struct {
	engine wire.Engine
	req    *chatRequest
	head   chatHead
	begun  []bool // choices that have had an event
}

// Whole implements wire.Form.
func (a *conversation) Whole(results []infer.Result) any {
	c := chatCompletion{chatHead: a.head, Choices: []chatChoice{}, Usage: wire.UsageOf(results, len(results)), Timings: wire.TimingsOf(results)}
	for i, r := range results {
		c.Choices = append(c.Choices, chatChoice{
			Index: i, Message: chatMessage{Role: "assistant", Content: r.Text},
			Logprobs: a.logprobs(r.Tokens), FinishReason: wire.FinishReason(r.FinishReason),
		})
	}
	return c
}

// Events implements wire.Form. Text and the end of a choice are events of their own, as OpenAI has them.
func (a *conversation) Events(i int, chunk infer.Chunk) (all []any) {
	event := func(d chatDelta, finish *string, l *chatLogprobs) {
		if !a.begun[i] {
			a.begun[i], d.Role = true, "assistant"
		}
		all = append(all, chatChunk{chatHead: a.chunkHead(), Choices: []chatChunkChoice{{Index: i, Delta: d, Logprobs: l, FinishReason: finish}}})
	}
	if chunk.Text != "" || a.req.logprobs && len(chunk.Tokens) > 0 {
		event(chatDelta{Content: &chunk.Text}, nil, a.logprobs(chunk.Tokens))
	}
	if finish := wire.FinishReason(chunk.FinishReason); finish != nil {
		event(chatDelta{}, finish, nil)
	}
	return all
}

// End implements wire.Form.
func (a *conversation) End(results []infer.Result) []any {
	if !a.req.includeUsage {
		return []any{wire.Done}
	}
	return []any{
		chatChunk{chatHead: a.chunkHead(), Choices: []chatChunkChoice{}, Usage: wire.UsageOf(results, len(results)), Timings: wire.TimingsOf(results)},
		wire.Done,
	}
}

func (a *conversation) chunkHead() chatHead {
	h := a.head
	h.Object = "chat.completion.chunk"
	return h
}

// logprobs returns the log-probabilities of tokens, nil when nobody has asked for them.
func (a *conversation) logprobs(tokens []infer.Token) *chatLogprobs {
	if !a.req.logprobs {
		return nil
	}
	l := &chatLogprobs{Content: []chatToken{}}
	for _, t := range tokens {
		token := chatToken{tokenLogprob: newTokenLogprob(t.Bytes, t.LogProb), Top: []tokenLogprob{}}
		for _, p := range t.Top {
			token.Top = append(token.Top, newTokenLogprob(a.engine.TokenText(p.ID), p.LogProb))
		}
		l.Content = append(l.Content, token)
	}
	return l
}
