package llamacpp

import (
	"encoding/json"
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// maxPrompts bounds the prompts of a request.
const maxPrompts = 128

const promptForms = "a string, an array of strings and token ids, or an array of such prompts"

// piece is a part of a prompt: a text or a token.
type piece struct {
	text *string
	id   int32
}

// completionRequest is the body of POST /completion.
type completionRequest struct {
	options
	prompts [][]piece
}

// parseCompletion reads a body.
func parseCompletion(f *wire.Fields) (*completionRequest, error) {
	r := &completionRequest{options: readOptions(f)}
	raw, ok := f.Get("prompt")
	if !ok {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "prompt", "missing_required_parameter", "prompt: missing, expected %s", promptForms))
		return r, f.Err()
	}
	parts, isArray := element[[]json.RawMessage](raw)
	switch {
	case !isArray:
		r.add(f, raw)
	case len(parts) == 0:
		f.Fail(wire.BadField("prompt", "found an empty array, expected at least one element"))
	case holdsIDs(parts):
		r.add(f, raw)
	case len(parts) > maxPrompts:
		f.Fail(wire.BadField("prompt", "found %d prompts, expected at most %d", len(parts), maxPrompts))
	default:
		for _, p := range parts {
			r.add(f, p)
		}
	}
	if n := r.n * len(r.prompts); n > maxPrompts {
		f.Fail(wire.BadField("n_cmpl", "found %d for %d prompts, expected at most %d completions in all", r.n, len(r.prompts), maxPrompts))
	}
	return r, f.Err()
}

// holdsIDs says whether an array is one prompt and no list of prompts.
func holdsIDs(parts []json.RawMessage) bool {
	for _, p := range parts {
		if _, ok := element[float64](p); ok {
			return true
		}
	}
	return false
}

// add reads one prompt: a text, or an array of texts and token ids.
func (r *completionRequest) add(f *wire.Fields, raw json.RawMessage) {
	if text, ok := element[string](raw); ok {
		r.prompts = append(r.prompts, []piece{{text: &text}})
		return
	}
	pieces, ok := readPieces(f, "prompt", raw)
	if ok {
		r.prompts = append(r.prompts, pieces)
	}
}

// readPieces reads an array of texts and token ids.
func readPieces(f *wire.Fields, name string, raw json.RawMessage) ([]piece, bool) {
	parts, ok := element[[]json.RawMessage](raw)
	if !ok {
		f.Wrong(name, raw, promptForms)
		return nil, false
	}
	if len(parts) == 0 {
		f.Fail(wire.BadField(name, "found no token ids, expected at least one"))
		return nil, false
	}
	pieces := make([]piece, len(parts))
	for i, p := range parts {
		if text, ok := element[string](p); ok {
			pieces[i].text = &text
		} else if pieces[i].id, ok = element[int32](p); !ok {
			f.Fail(wire.BadField(name, "%s: found %s, expected a string or a token id", at(i), wire.KindOf(p)))
			return nil, false
		}
	}
	return pieces, true
}

// encode returns the tokens of pieces.
func encode(e wire.Engine, pieces []piece, special bool) []int32 {
	var ids []int32
	for _, p := range pieces {
		if p.text == nil {
			ids = append(ids, p.id)
		} else {
			ids = append(ids, e.Encode(*p.text, special)...)
		}
	}
	return ids
}

// prompt returns what the engine completes. Of texts alone one is made, so that the engine may shorten it; raw says what it means.
func (r *completionRequest) prompt(e wire.Engine, pieces []piece, raw func(text string) infer.Prompt) infer.Prompt {
	text := ""
	for _, p := range pieces {
		if p.text == nil {
			return infer.Prompt{IDs: encode(e, pieces, false)}
		}
		text += *p.text
	}
	p := raw(text)
	r.fields.Context(&p)
	return p
}

// completion answers POST /completion.
func (s *server) completion(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	r, err := parseCompletion(f)
	if err != nil {
		return err
	}
	m, release, err := s.use(c, &r.options)
	if err != nil {
		return err
	}
	defer release()
	prompts := make([]infer.Prompt, len(r.prompts))
	for i, pieces := range r.prompts {
		prompts[i] = r.prompt(m.Engine, pieces, func(text string) infer.Prompt { return c.RawPrompt(m, text) })
	}
	reqs, err := r.requests(m, prompts, func(p infer.Prompt) infer.Shape {
		if p.FIM == infer.FIMAlways {
			return r.fields.Shape(m.Shape)
		}
		return r.fields.Shape(infer.Shape{})
	})
	if err != nil {
		return err
	}
	defer s.running.enter()()
	return c.Reply(m, reqs, r.stream, newAnswer(m, &r.options, reqs))
}
