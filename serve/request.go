package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"autodev/infer"
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
	maxStops   = 64
)

// completionRequest is the body of POST /v1/completions.
type completionRequest struct {
	prompts      []infer.Prompt
	n            int
	maxTokens    int
	sampling     infer.Sampling
	seeded       bool
	stop         []string
	stopIDs      []int32
	stream       bool
	includeUsage bool
	echo         bool
	logprobs     *int
}

// parseCompletion reads a body. Unknown fields are ignored and null is absence, as clients of many servers need it; a field
// of the wrong type is an error that names it.
func parseCompletion(body []byte) (*completionRequest, error) {
	f := fields{}
	if err := json.Unmarshal(body, &f.raw); err != nil {
		return nil, jsonError(body, err)
	}
	if f.raw == nil {
		return nil, newError(http.StatusBadRequest, typeInvalid, "", "invalid_json", "body: found null, expected an object")
	}
	r := &completionRequest{
		n:         f.whole("n", 1, 1, maxChoices),
		maxTokens: f.whole("max_tokens", defaultMaxTokens, 0, math.MaxInt32),
		sampling: infer.Sampling{
			Temperature:      f.number("temperature", defaultTemperature),
			TopP:             f.number("top_p", 1),
			TopK:             max(0, f.whole("top_k", 0, -1, math.MaxInt32)), // −1 is how some clients say all
			PresencePenalty:  f.number("presence_penalty", 0),
			FrequencyPenalty: f.number("frequency_penalty", 0),
		},
		stream:   f.boolean("stream"),
		echo:     f.boolean("echo"),
		stop:     f.stops(),
		stopIDs:  f.ids("stop_token_ids"),
		logprobs: f.logprobs(),
	}
	f.text("model", "")
	f.seed(r)
	f.bias(r)
	f.streamOptions(r)
	f.prompts(r)
	if best := f.whole("best_of", r.n, 1, maxChoices); best > r.n {
		f.fail(badField("best_of", "found %d, expected at most n, which is %d: choosing among more completions is not supported", best, r.n))
	}
	if r.n*len(r.prompts) > maxChoices {
		f.fail(badField("n", "found %d for %d prompts, expected at most %d completions in all", r.n, len(r.prompts), maxChoices))
	}
	if f.err != nil {
		return nil, f.err
	}
	return r, nil
}

// requests returns one request per choice, in the order of the choices' indexes.
func (r *completionRequest) requests() []infer.Request {
	all := make([]infer.Request, 0, r.n*len(r.prompts))
	for _, p := range r.prompts {
		for choice := range r.n {
			q := infer.Request{Prompt: p, MaxTokens: r.maxTokens, Sampling: r.sampling, Stop: r.stop, StopIDs: r.stopIDs}
			q.Sampling.Choice = uint64(choice)
			if r.logprobs != nil {
				q.Logprobs, q.Top, q.PromptLogprobs = true, *r.logprobs, r.echo
			}
			all = append(all, q)
		}
	}
	return all
}

// jsonError says where a body stops being JSON.
func jsonError(body []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return newError(http.StatusBadRequest, typeInvalid, "", "invalid_json", "body: malformed JSON at byte %d of %d: %v", syntax.Offset, len(body), syntax)
	}
	return newError(http.StatusBadRequest, typeInvalid, "", "invalid_json", "body: found %s, expected an object", kindOf(body))
}

// kindOf names a JSON value without repeating it: errors are logged, and values may be somebody's code.
func kindOf(raw []byte) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch c := raw[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case len(raw) <= 24:
		return string(raw)
	}
	return "a number"
}

// fields reads the members of a JSON object one by one and remembers the first error.
type fields struct {
	raw map[string]json.RawMessage
	err error
}

func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// get returns a field that is there and not null.
func (f *fields) get(name string) (json.RawMessage, bool) {
	raw, ok := f.raw[name]
	return raw, ok && kindOf(raw) != "null"
}

func (f *fields) wrong(name string, raw json.RawMessage, expected string) {
	f.fail(badField(name, "found %s, expected %s", kindOf(raw), expected))
}

func (f *fields) number(name string, absent float64) float64 {
	raw, ok := f.get(name)
	if !ok {
		return absent
	}
	var v float64
	if json.Unmarshal(raw, &v) != nil {
		f.wrong(name, raw, "a number")
	}
	return v
}

// whole reads a whole number, which may be written as 16.0.
func (f *fields) whole(name string, absent, low, high int) int {
	raw, ok := f.get(name)
	if !ok {
		return absent
	}
	var v float64
	if json.Unmarshal(raw, &v) != nil || v != math.Trunc(v) || v < float64(low) || v > float64(high) {
		f.wrong(name, raw, fmt.Sprintf("a whole number from %d to %d", low, high))
		return absent
	}
	return int(v)
}

func (f *fields) boolean(name string) bool {
	raw, ok := f.get(name)
	var v bool
	if ok && json.Unmarshal(raw, &v) != nil {
		f.wrong(name, raw, "true or false")
	}
	return v
}

func (f *fields) text(name, absent string) string {
	raw, ok := f.get(name)
	if !ok {
		return absent
	}
	v := absent
	if json.Unmarshal(raw, &v) != nil {
		f.wrong(name, raw, "a string")
	}
	return v
}

func (f *fields) ids(name string) []int32 {
	raw, ok := f.get(name)
	if !ok {
		return nil
	}
	v, ok := tokenIDs(raw)
	if !ok {
		f.wrong(name, raw, "an array of token ids")
	}
	return v
}

// tokenIDs reads an array of whole numbers.
func tokenIDs(raw json.RawMessage) ([]int32, bool) {
	var v []*int32
	if json.Unmarshal(raw, &v) != nil {
		return nil, false
	}
	ids := make([]int32, len(v))
	for i, p := range v {
		if p == nil {
			return nil, false
		}
		ids[i] = *p
	}
	return ids, true
}

// texts reads an array of strings.
func texts(raw json.RawMessage) ([]string, bool) {
	var v []*string
	if json.Unmarshal(raw, &v) != nil {
		return nil, false
	}
	all := make([]string, len(v))
	for i, p := range v {
		if p == nil {
			return nil, false
		}
		all[i] = *p
	}
	return all, true
}

func (f *fields) stops() []string {
	raw, ok := f.get("stop")
	if !ok {
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		if one == "" {
			return nil
		}
		return []string{one}
	}
	all, ok := texts(raw)
	switch {
	case !ok:
		f.wrong("stop", raw, "a string or an array of strings")
	case len(all) > maxStops:
		f.fail(badField("stop", "found %d strings, expected at most %d", len(all), maxStops))
	}
	kept := all[:0]
	for _, s := range all {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

func (f *fields) logprobs() *int {
	raw, ok := f.get("logprobs")
	if !ok || string(bytes.TrimSpace(raw)) == "false" {
		return nil
	}
	n := f.whole("logprobs", 0, 0, 20)
	return &n
}

func (f *fields) seed(r *completionRequest) {
	raw, ok := f.get("seed")
	if !ok {
		return
	}
	var n int64
	if json.Unmarshal(raw, &n) != nil {
		f.wrong("seed", raw, "a whole number of 64 bits")
	}
	r.sampling.Seed, r.seeded = uint64(n), true
}

func (f *fields) bias(r *completionRequest) {
	raw, ok := f.get("logit_bias")
	if !ok {
		return
	}
	var byID map[string]float64
	if json.Unmarshal(raw, &byID) != nil {
		f.wrong("logit_bias", raw, "an object of token ids and numbers")
		return
	}
	r.sampling.Bias = make(map[int32]float64, len(byID))
	for key, v := range byID {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			f.fail(badField("logit_bias", "found a key that is no token id"))
			return
		}
		r.sampling.Bias[int32(id)] = v
	}
}

func (f *fields) streamOptions(r *completionRequest) {
	raw, ok := f.get("stream_options")
	if !ok {
		return
	}
	inner := fields{}
	if json.Unmarshal(raw, &inner.raw) != nil {
		f.wrong("stream_options", raw, "an object")
		return
	}
	r.includeUsage = inner.boolean("include_usage")
	if inner.err != nil {
		f.fail(badField("stream_options", "%s", inner.err))
	}
}

// prompts reads prompt (a string, an array of strings, of token ids, or of arrays of token ids), suffix and truncate.
func (f *fields) prompts(r *completionRequest) {
	whole := false
	if raw, ok := f.get("truncate"); ok {
		whole = kindOf(raw) == "a boolean" && !f.boolean("truncate")
	}
	suffix := f.text("suffix", "")
	raw, ok := f.get("prompt")
	if !ok {
		f.fail(newError(http.StatusBadRequest, typeInvalid, "prompt", "missing_required_parameter", "prompt: missing, expected a string, an array of strings or an array of token ids"))
		return
	}
	const expected = "a string, an array of strings, an array of token ids or an array of such arrays"
	var one string
	var many []json.RawMessage
	switch {
	case json.Unmarshal(raw, &one) == nil:
		r.prompts = []infer.Prompt{{Prefix: one}}
	case json.Unmarshal(raw, &many) != nil:
		f.wrong("prompt", raw, expected)
		return
	case len(many) == 0:
		f.fail(badField("prompt", "found an empty array, expected at least one element"))
		return
	default:
		if ids, ok := tokenIDs(raw); ok {
			r.prompts = []infer.Prompt{{IDs: ids}}
			break
		}
		if len(many) > maxPrompts {
			f.fail(badField("prompt", "found %d prompts, expected at most %d", len(many), maxPrompts))
			return
		}
		for i, raw := range many {
			var p infer.Prompt
			if ids, ok := tokenIDs(raw); ok && kindOf(raw) == "an array" {
				p.IDs = ids
			} else if kindOf(raw) != "a string" || json.Unmarshal(raw, &p.Prefix) != nil {
				f.fail(badField("prompt", "element %d: found %s, expected %s", i, kindOf(raw), expected))
				return
			}
			r.prompts = append(r.prompts, p)
		}
	}
	for i := range r.prompts {
		p := &r.prompts[i]
		// What is echoed must be what was run.
		p.Suffix, p.Whole = suffix, whole || r.echo
		if p.IDs != nil && suffix != "" {
			f.fail(badField("suffix", "found with token ids, expected only with a text prompt: ids are run as they are"))
		}
	}
	if suffix != "" && r.echo {
		f.fail(badField("echo", "found together with suffix, expected one of them"))
	}
}
