package llamacpp

import (
	"net/http"
	"unicode/utf8"

	"autodev/serve/wire"
)

// tokenize answers POST /tokenize. Control tokens are recognised unless parse_special is false: the ids go back to the client and to no model.
// There is no token that a text of these models begins with, so add_special adds none.
func tokenize(c *wire.Call) error {
	if err := c.AtMost(wire.MaxTokenized); err != nil {
		return err
	}
	f, err := c.Fields()
	if err != nil {
		return err
	}
	special, withPieces := f.Boolean("parse_special", true), f.Boolean("with_pieces", false)
	f.Boolean("add_special", false)
	var pieces []piece
	if raw, ok := f.Get("content"); ok {
		if text, ok := element[string](raw); ok {
			pieces = []piece{{text: &text}}
		} else if pieces, ok = readPieces(f, "content", raw); !ok {
			return f.Err()
		}
	}
	m, release, err := use(c, f)
	if err != nil {
		return err
	}
	defer release()
	ids := encode(m.Engine, pieces, special)
	if !withPieces {
		return c.JSON(map[string]any{"tokens": append([]int32{}, ids...)})
	}
	type token struct {
		ID    int32 `json:"id"`
		Piece any   `json:"piece"` // a string, or bytes that are no whole characters
	}
	tokens := make([]token, len(ids))
	for i, id := range ids {
		b := m.Engine.TokenText(id)
		tokens[i] = token{id, string(b)}
		if !utf8.Valid(b) {
			tokens[i].Piece = numbers(b)
		}
	}
	return c.JSON(map[string]any{"tokens": tokens})
}

// detokenize answers POST /detokenize. Ids that are no tokens have no text.
func detokenize(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	ids := f.IDs("tokens")
	m, release, err := use(c, f)
	if err != nil {
		return err
	}
	defer release()
	return c.JSON(map[string]string{"content": m.Engine.Decode(ids)})
}

// applyTemplate answers POST /apply-template: the prompt that a conversation becomes.
func applyTemplate(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	if _, ok := f.Get("messages"); !ok {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "messages", "missing_required_parameter", "messages: missing, expected an array of messages"))
	}
	messages := f.Messages("messages")
	m, release, err := use(c, f)
	if err != nil {
		return err
	}
	defer release()
	if m.Chat == nil {
		return wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "", "not_supported", "model cannot converse: it has no chat template")
	}
	prompt, err := m.Chat.Render(messages)
	if err != nil {
		return wire.BadField("messages", "%s", err)
	}
	return c.JSON(map[string]string{"prompt": prompt})
}

// use returns the model that a body without options names.
func use(c *wire.Call, f *wire.Fields) (wire.Model, func(), error) {
	name := f.Text("model", "")
	if err := f.Err(); err != nil {
		return wire.Model{}, nil, err
	}
	return c.Use(name)
}
