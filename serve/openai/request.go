package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// Defaults of POST /v1/completions. Temperature differs from OpenAI's 1: code completion wants the most probable text, and
// the same request is to give the same answer.
const (
	defaultMaxTokens   = 16
	defaultTemperature = 0
)

// Limits of one request.
const (
	maxPrompts = 128
	maxChoices = 128 // prompts × n
)

// completionRequest is the body of POST /v1/completions.
type completionRequest struct {
	model        string
	prompts      []infer.Prompt
	n            int
	maxTokens    int
	sampling     infer.Sampling
	stop         []string
	stopIDs      []int32
	stream       bool
	includeUsage bool
	echo         bool
	logprobs     *int
	fields       *wire.Fields // for what depends on the model
}

// parseCompletion reads a body. Unknown fields are ignored and null is absence, as clients of many servers need it; a field
// of the wrong type is an error that names it.
func parseCompletion(f *wire.Fields) (*completionRequest, error) {
	r := &completionRequest{
		model:     f.Text("model", ""),
		n:         f.Whole("n", 1, 1, maxChoices),
		maxTokens: f.Whole("max_tokens", defaultMaxTokens, 0, math.MaxInt32),
		sampling:  sampling(f),
		stream:    f.Boolean("stream", false),
		echo:      f.Boolean("echo", false),
		stop:      f.Stops("stop"),
		stopIDs:   f.IDs("stop_token_ids"),
		logprobs:  logprobsField(f),
		fields:    f,
	}
	r.includeUsage = includeUsage(f)
	r.readPrompts(f)
	if best := f.Whole("best_of", r.n, 1, maxChoices); best > r.n {
		f.Fail(wire.BadField("best_of", "found %d, expected at most n, which is %d: choosing among more completions is not supported", best, r.n))
	}
	if r.n*len(r.prompts) > maxChoices {
		f.Fail(wire.BadField("n", "found %d for %d prompts, expected at most %d completions in all", r.n, len(r.prompts), maxChoices))
	}
	return r, f.Err()
}

// sampling reads the fields that say how tokens are chosen.
func sampling(f *wire.Fields) infer.Sampling {
	return infer.Sampling{
		Temperature:      f.Number("temperature", defaultTemperature),
		TopP:             f.Number("top_p", 1),
		TopK:             max(0, f.Whole("top_k", 0, -1, math.MaxInt32)), // −1 is how some clients say all
		PresencePenalty:  f.Number("presence_penalty", 0),
		FrequencyPenalty: f.Number("frequency_penalty", 0),
		Seed:             f.Seed("seed"),
		Bias:             f.Bias("logit_bias"),
	}
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

// includeUsage reads stream_options.
func includeUsage(f *wire.Fields) bool {
	o := f.Object("stream_options")
	include := o.Boolean("include_usage", false)
	f.Join("stream_options", o)
	return include
}

// requests returns one request per choice, in the order of the choices' indexes. shape is that of completions with a suffix.
func (r *completionRequest) requests(shape infer.Shape) ([]infer.Request, error) {
	all := make([]infer.Request, 0, r.n*len(r.prompts))
	for _, p := range r.prompts {
		s := infer.Shape{}
		if p.Suffix != "" {
			s = shape
		}
		s = r.fields.Shape(s)
		for choice := range r.n {
			q := infer.Request{Prompt: p, MaxTokens: r.maxTokens, Sampling: r.sampling, Stop: r.stop, StopIDs: r.stopIDs, Shape: s}
			q.Sampling.Choice = uint64(choice)
			if r.logprobs != nil {
				q.Logprobs, q.Top, q.PromptLogprobs = true, *r.logprobs, r.echo
			}
			all = append(all, q)
		}
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
