package openai

import (
	"encoding/json"
	"math"
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// chatRequest is the body of POST /v1/chat/completions.
type chatRequest struct {
	options
	messages  []wire.Message
	maxTokens int // −1: as many as there is room for
	logprobs  bool
	top       int
}

// parseChat reads a body. Beside OpenAI's fields there are those that llama.vim sends to llama.cpp's server; id_slot, samplers, cache_prompt and
// response_fields among them ask for nothing that would change the answer.
func parseChat(f *wire.Fields) (*chatRequest, error) {
	r := &chatRequest{
		options:  readOptions(f),
		messages: f.Messages("messages"),
		logprobs: f.Boolean("logprobs", false),
		top:      f.Whole("top_logprobs", 0, 0, 20),
	}
	r.maxTokens = f.Whole("max_completion_tokens", f.Whole("max_tokens", f.Whole("n_predict", -1, -2, math.MaxInt32), -1, math.MaxInt32), -1, math.MaxInt32)
	r.logprobs = r.logprobs || r.top > 0
	if len(r.messages) == 0 {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "messages", "missing_required_parameter", "messages: missing, expected an array of at least one message"))
	}
	refuse(f)
	return r, f.Err()
}

// refuse fails where a request demands what no answer of this server has. What it merely allows, such as tools that the model may call, is
// ignored.
func refuse(f *wire.Fields) {
	for _, name := range []string{"tools", "functions"} {
		if raw, ok := f.Get(name); ok && wire.KindOf(raw) != "an array" {
			f.Wrong(name, raw, "an array")
		}
	}
	for _, name := range []string{"tool_choice", "function_call"} {
		raw, ok := f.Get(name)
		if !ok {
			continue
		}
		switch kind := wire.KindOf(raw); kind {
		case "a string":
			if word := f.Text(name, ""); word != "none" && word != "auto" && word != "" {
				unsupported(f, name, "found another word, expected none or auto: tools are not supported")
			}
		case "an object":
			unsupported(f, name, "found a certain tool, expected none or auto: tools are not supported")
		default:
			f.Wrong(name, raw, "a string or an object")
		}
	}
	format := f.Object("response_format")
	if kind := format.Text("type", "text"); kind != "text" {
		unsupported(f, "response_format", "found another type, expected text: other formats are not supported")
	}
	f.Join("response_format", format)
	for _, name := range []string{"grammar", "json_schema"} {
		if raw, ok := f.Get(name); ok && string(raw) != `""` {
			unsupported(f, name, "found one, expected none: constrained output is not supported")
		}
	}
	raw, ok := f.Get("modalities")
	var kinds []string
	switch {
	case !ok:
	case json.Unmarshal(raw, &kinds) != nil:
		f.Wrong("modalities", raw, "an array of strings")
	default:
		for _, k := range kinds {
			if k != "text" {
				unsupported(f, "modalities", "found another word, expected text alone")
			}
		}
	}
}

func unsupported(f *wire.Fields, name, problem string) {
	f.Fail(wire.Errorf(http.StatusBadRequest, wire.Unsupported, name, "unsupported_value", "%s: %s", name, problem))
}

// requests returns one request per choice.
func (r *chatRequest) requests(m wire.Model) ([]infer.Request, error) {
	q, err := m.Converse(r.messages)
	if err != nil {
		return nil, err
	}
	q.MaxTokens, q.Logprobs, q.Top = r.maxTokens, r.logprobs, r.top
	switch {
	case r.maxTokens < 0:
		q.MaxTokens = m.Engine.Info().Context
	case r.maxTokens == 0:
		q.Class = infer.Background // only puts the conversation into the cache
	}
	return r.choices(q), nil
}
