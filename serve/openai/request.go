package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// defaultMaxTokens is OpenAI's.
const defaultMaxTokens = 16

// maxPrompts bounds a request.
const maxPrompts = 128

// completionRequest is the body of POST /v1/completions.
type completionRequest struct {
	options
	prompts   []infer.Prompt
	maxTokens int
	echo      bool
	logprobs  *int
	reuse     bool // an extension: the answer may be the rest of a suggestion shown before
}

// parseCompletion reads a body. Unknown fields are ignored and null is absence, as clients of many servers need it; a field
// of the wrong type is an error that names it.
func parseCompletion(f *wire.Fields) (*completionRequest, error) {
	r := &completionRequest{
		options:  readOptions(f),
		echo:     f.Boolean("echo", false),
		logprobs: logprobsField(f),
		reuse:    f.Boolean("reuse", false),
	}
	r.maxTokens = f.Whole("max_tokens", max(defaultMaxTokens, r.minTokens), 0, math.MaxInt32)
	r.readPrompts(f)
	if best := f.Whole("best_of", r.n, 1, maxChoices); best > r.n {
		f.Fail(wire.BadField("best_of", "found %d, expected at most n, which is %d: choosing among more completions is not supported", best, r.n))
	}
	if r.n*len(r.prompts) > maxChoices {
		f.Fail(wire.BadField("n", "found %d for %d prompts, expected at most %d completions in all", r.n, len(r.prompts), maxChoices))
	}
	return r, f.Err()
}

// logprobsField reads how many alternatives are wanted beside each token's log-probability; nil: none of it. false is nil.
func logprobsField(f *wire.Fields) *int {
	raw, ok := f.Get("logprobs")
	if !ok || string(bytes.TrimSpace(raw)) == "false" {
		return nil
	}
	n := f.Whole("logprobs", 0, 0, 20)
	return &n
}

// requests returns one request per choice, in the order of the choices' indexes. shape is that of completions with a suffix.
func (r *completionRequest) requests(shape infer.Shape) ([]infer.Request, error) {
	all := make([]infer.Request, 0, r.n*len(r.prompts))
	for _, p := range r.prompts {
		s := infer.Shape{}
		if p.Suffix != "" || p.FIM == infer.FIMAlways {
			s = shape
		}
		s = r.fields.Shape(s)
		q := infer.Request{Prompt: p, MaxTokens: r.maxTokens, Shape: s, Reuse: r.reuse}
		if r.maxTokens == 0 && !r.echo {
			q.Class = infer.Background // only puts the prompt into the cache
		}
		if r.logprobs != nil {
			q.Logprobs, q.Top, q.PromptLogprobs = true, *r.logprobs, r.echo
		}
		all = append(all, r.choices(q)...)
	}
	return all, r.fields.Err()
}

// readPrompts reads prompt (a string, an array of strings, of token ids, or of arrays of token ids), suffix and truncate.
func (r *completionRequest) readPrompts(f *wire.Fields) {
	whole := false
	if raw, ok := f.Get("truncate"); ok && wire.KindOf(raw) == "a boolean" {
		whole = !f.Boolean("truncate", true)
	}
	suffix := f.Text("suffix", "")
	raw, ok := f.Get("prompt")
	if !ok {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "prompt", "missing_required_parameter", "prompt: missing, expected a string, an array of strings or an array of token ids"))
		return
	}
	const expected = "a string, an array of strings, an array of token ids or an array of such arrays"
	var one string
	var many []json.RawMessage
	switch {
	case json.Unmarshal(raw, &one) == nil:
		r.prompts = []infer.Prompt{{Prefix: one}}
	case json.Unmarshal(raw, &many) != nil:
		f.Wrong("prompt", raw, expected)
		return
	case len(many) == 0:
		f.Fail(wire.BadField("prompt", "found an empty array, expected at least one element"))
		return
	default:
		if ids, ok := wire.TokenIDs(raw); ok {
			r.prompts = []infer.Prompt{{IDs: ids}}
			break
		}
		if len(many) > maxPrompts {
			f.Fail(wire.BadField("prompt", "found %d prompts, expected at most %d", len(many), maxPrompts))
			return
		}
		for i, raw := range many {
			var p infer.Prompt
			if ids, ok := wire.TokenIDs(raw); ok && wire.KindOf(raw) == "an array" {
				p.IDs = ids
			} else if wire.KindOf(raw) != "a string" || json.Unmarshal(raw, &p.Prefix) != nil {
				f.Fail(wire.BadField("prompt", "element %d: found %s, expected %s", i, wire.KindOf(raw), expected))
				return
			}
			r.prompts = append(r.prompts, p)
		}
	}
	for i := range r.prompts {
		p := &r.prompts[i]
		// What is echoed must be what was run.
		p.Suffix, p.Whole = suffix, whole || r.echo
		switch {
		case p.IDs == nil:
			f.Context(p)
		case suffix != "":
			f.Fail(wire.BadField("suffix", "found with token ids, expected only with a text prompt: ids are run as they are"))
		}
	}
	if suffix != "" && r.echo {
		f.Fail(wire.BadField("echo", "found together with suffix, expected one of them"))
	}
}
