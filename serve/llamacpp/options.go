package llamacpp

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"time"

	"autodev/infer"
	"autodev/serve/wire"
)

// maxChoices bounds the completions of one request.
const maxChoices = 32

// maxResponseFields bounds the fields that an answer may be asked for, each of which is looked for in all of it.
const maxResponseFields = 128

// options are the fields that the bodies of completions have in common.
type options struct {
	model      string
	n          int // completions of a prompt
	maxTokens  int
	unbounded  bool // maxTokens is what the context holds
	sampling   sampling
	stop       []string
	ignoreEOS  bool
	stream     bool
	ids        bool // token ids in the answer
	probs      int  // most probable tokens of each in the answer; 0: no probabilities
	promptTime time.Duration
	decodeTime time.Duration
	reuse      bool     // the answer may be the rest of a suggestion shown before
	response   []string // fields of the answer; none: all
	lora       []scaled
	fields     *wire.Fields // for what depends on the model
}

// readOptions reads what is the same for all routes. Unknown fields are ignored and null is absence; a field of the wrong type is an error that
// names it.
func readOptions(f *wire.Fields) options {
	o := options{
		model:      f.Text("model", ""),
		n:          choices(f),
		sampling:   readSampling(f),
		stop:       f.Stops("stop"),
		ignoreEOS:  f.Boolean("ignore_eos", false),
		stream:     f.Boolean("stream", false),
		ids:        f.Boolean("return_tokens", false),
		probs:      max(0, f.Whole("n_probs", 0, math.MinInt32, math.MaxInt32)),
		promptTime: milliseconds(f, "t_max_prompt_ms"),
		decodeTime: milliseconds(f, "t_max_predict_ms"),
		reuse:      f.Boolean("cache_prompt", false),
		response:   f.Texts("response_fields"),
		lora:       readLoRA(f),
		fields:     f,
	}
	if n := len(o.response); n > maxResponseFields {
		f.Fail(wire.BadField("response_fields", "found %d names, expected at most %d", n, maxResponseFields))
	}
	o.maxTokens = -1
	for _, name := range []string{"max_tokens", "max_completion_tokens", "n_predict"} {
		// −1 and −2 are llama.cpp's words for no bound but the context.
		o.maxTokens = f.Whole(name, o.maxTokens, -2, math.MaxInt32)
	}
	if o.unbounded = o.maxTokens < 0; o.unbounded {
		o.maxTokens = math.MaxInt32
	}
	for _, name := range []string{"grammar", "json_schema"} {
		if raw, ok := f.Get(name); ok && string(raw) != `""` && string(raw) != "{}" {
			f.Fail(wire.BadField(name, "found %s, expected none: completions cannot be bound to a grammar here", wire.KindOf(raw)))
		}
	}
	return o
}

// choices reads how many completions a prompt gets. llama.vscode looks for the beginning of the error's text.
func choices(f *wire.Fields) int {
	for _, name := range []string{"n_cmpl", "n"} {
		if _, ok := f.Get(name); !ok {
			continue
		}
		n := f.Whole(name, 1, math.MinInt32, math.MaxInt32)
		if n < 1 || n > maxChoices {
			f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, name, "invalid_value", "Field '%s': Value must be between 1 <= value <= %d, but got %d", name, maxChoices, n))
			return 1
		}
		return n
	}
	return 1
}

// milliseconds reads a time; what is not positive bounds nothing.
func milliseconds(f *wire.Fields, name string) time.Duration {
	const day = 24 * 60 * 60 * 1000
	ms := f.Number(name, 0)
	if !(ms > 0) {
		return 0
	}
	return time.Duration(min(ms, day) * float64(time.Millisecond))
}

// warmUp says whether the prompt is only to be put into the cache.
func (o *options) warmUp() bool { return o.maxTokens == 0 }

// requests returns one request for every choice of every prompt, in the order of the answer.
func (o *options) requests(m wire.Model, prompts []infer.Prompt, shape func(infer.Prompt) infer.Shape) ([]infer.Request, error) {
	bias, err := o.sampling.bias(m.Engine)
	if err != nil {
		return nil, err
	}
	var all []infer.Request
	for _, p := range prompts {
		for i := range o.n {
			r := infer.Request{
				Prompt: p, MaxTokens: o.maxTokens, Sampling: o.sampling.choice(i), Stop: o.stop, IgnoreEOS: o.ignoreEOS, Reuse: o.reuse,
				Shape: shape(p), PromptTime: o.promptTime, DecodeTime: o.decodeTime,
			}
			r.Sampling.Bias = bias
			if o.probs > 0 {
				r.Logprobs, r.Top = true, o.probs
			}
			if o.warmUp() {
				// Clients bound it to a millisecond, as llama.cpp's server does not honour that bound.
				r.Class, r.PromptTime = infer.Background, 0
			}
			all = append(all, r)
		}
	}
	return all, o.fields.Err()
}

// element reads one element of an array that a client sent.
func element[T any](raw json.RawMessage) (v T, ok bool) {
	ok = wire.KindOf(raw) != "null" && json.Unmarshal(raw, &v) == nil
	return v, ok
}

// at names an element of an array.
func at(i int) string { return fmt.Sprintf("element %d", i) }
