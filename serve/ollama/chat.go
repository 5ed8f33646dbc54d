package ollama

import (
	"time"

	"autodev/infer"
	"autodev/serve/wire"
)

// chatRequest is the body of POST /api/chat.
type chatRequest struct {
	options
	messages []wire.Message
}

// parseChat reads a body.
func parseChat(f *wire.Fields) (*chatRequest, error) {
	r := &chatRequest{options: readOptions(f), messages: f.Messages("messages")}
	for i, o := range f.Objects("messages") {
		if o.Filled("images") {
			f.Fail(wire.BadField("messages", "element %d: images: found images, expected none: no model here sees", i))
		}
	}
	if f.Filled("tools") {
		f.Fail(wire.BadField("tools", "found tools, expected none: this server does not support tools"))
	}
	return r, f.Err()
}

// chat answers POST /api/chat.
func chat(c *wire.Call) error {
	began := time.Now()
	r, m, release, err := wire.Ask(c, parseChat, func(r *chatRequest) string { return r.model })
	if err != nil {
		return err
	}
	defer release()
	if len(r.messages) == 0 {
		return c.JSON(conversed{Model: r.named(m), At: now(), Message: message{Role: "assistant"}, Done: true, DoneReason: "load"})
	}
	q, err := m.Converse(r.messages)
	if err != nil {
		return err
	}
	return c.ReplyFramed(m, []infer.Request{r.request(q)}, r.stream, wire.NDJSON, &answer{m: m, o: &r.options, began: began, chat: true})
}
