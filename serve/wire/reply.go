package wire

import (
	"cmp"

	"autodev/infer"
)

// Form makes the objects of an answer. What it returns is sent as Stream.Send does.
type Form interface {
	// Whole returns the answer as one object: a result for every request.
	Whole(results []infer.Result) any
	// Events returns what a chunk of request i is in a stream. The last chunk of a request has a FinishReason.
	Events(i int, c infer.Chunk) []any
	// End returns how a stream ends that has not failed.
	End(results []infer.Result) []any
}

// Reply has m's engine complete reqs and answers in the form of f, whole or as server-sent events.
func (c *Call) Reply(m Model, reqs []infer.Request, stream bool, f Form) error {
	return c.ReplyFramed(m, reqs, stream, SSE, f)
}

// ReplyFramed is Reply with streams in a framing of the protocol's own.
func (c *Call) ReplyFramed(m Model, reqs []infer.Request, stream bool, framing Framing, f Form) error {
	if !stream {
		results, err := c.Complete(m, reqs, nil)
		if err != nil {
			return err
		}
		c.ServerTiming(results)
		return c.JSON(f.Whole(results))
	}
	s := c.Stream(framing, "")
	send := func(events []any) error {
		for _, e := range events {
			if err := s.Send(e); err != nil {
				return err
			}
		}
		return nil
	}
	ended := make([]bool, len(reqs))
	results, err := c.Complete(m, reqs, func(i int, chunk infer.Chunk) error {
		ended[i] = ended[i] || chunk.FinishReason != ""
		return send(f.Events(i, chunk))
	})
	if err != nil {
		return err
	}
	for i, r := range results {
		if !ended[i] {
			if err := send(f.Events(i, infer.Chunk{FinishReason: cmp.Or(r.FinishReason, infer.FinishCancel)})); err != nil {
				return err
			}
		}
	}
	return send(f.End(results))
}

// FinishReason is r in OpenAI's words, nil as long as there is none. A completion that was ended before its time is as long as it is.
func FinishReason(r infer.FinishReason) *string {
	if r == infer.FinishCancel {
		r = infer.FinishLength
	}
	return Optional(string(r))
}
