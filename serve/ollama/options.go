package ollama

import (
	"math"
	"strings"

	"autodev/infer"
	"autodev/serve/wire"
)

// Ollama's values where a request names none. The temperature differs from its 0.8: whoever completes code wants the most probable text, and the same
// request is to give the same answer.
const (
	defaultTemperature  = 0
	defaultTopK         = 40
	defaultTopP         = 0.9
	defaultPenaltyLastN = 64
)

// options are the fields that bodies of completions and of chat have in common.
type options struct {
	model     string
	stream    bool
	maxTokens int
	sampling  infer.Sampling
	stop      []string
	logprobs  bool
	top       int
	fields    *wire.Fields
}

// readOptions reads them. Unknown fields and options are ignored and null is absence; a field of the wrong type is an error that names it.
func readOptions(f *wire.Fields) options {
	o := options{
		model:    modelName(f),
		stream:   f.Boolean("stream", true),
		logprobs: f.Boolean("logprobs", false),
		top:      f.Whole("top_logprobs", 0, 0, 20),
		fields:   f,
	}
	inner := f.Object("options")
	o.maxTokens = inner.Whole("num_predict", -1, math.MinInt32, math.MaxInt32)
	if o.maxTokens < 0 { // −1 and −2: as much as the context holds
		o.maxTokens = math.MaxInt32
	}
	o.stop = inner.Stops("stop")
	o.sampling = readSampling(inner)
	f.Join("options", inner)

	if raw, ok := f.Get("format"); ok && string(raw) != `""` {
		f.Fail(wire.BadField("format", "found %s, expected none: answers cannot be bound to a form here", wire.KindOf(raw)))
	}
	if raw, ok := f.Get("think"); ok && string(raw) != "false" && string(raw) != `""` {
		f.Fail(wire.BadField("think", "found %s, expected false: no model here thinks before it answers", wire.KindOf(raw)))
	}
	if f.Filled("images") {
		f.Fail(wire.BadField("images", "found images, expected none: no model here sees"))
	}
	return o
}

// modelName reads the name of a model, which older clients call name.
func modelName(f *wire.Fields) string { return f.Text("model", f.Text("name", "")) }

// readSampling reads the options that say how tokens are chosen.
func readSampling(f *wire.Fields) infer.Sampling {
	s := infer.Sampling{
		Temperature:      max(0, f.Number("temperature", defaultTemperature)),
		TopK:             max(0, f.Whole("top_k", defaultTopK, math.MinInt32, math.MaxInt32)), // 0 and less are all
		TopP:             f.Number("top_p", defaultTopP),
		MinP:             f.Number("min_p", 0),
		PresencePenalty:  f.Number("presence_penalty", 0),
		FrequencyPenalty: f.Number("frequency_penalty", 0),
		Seed:             f.Seed("seed"),
	}
	last, penalty := f.Whole("repeat_last_n", defaultPenaltyLastN, -1, math.MaxInt32), f.Number("repeat_penalty", 1)
	if last != 0 {
		s.RepetitionPenalty, s.RepetitionWindow = penalty, max(0, last) // −1 is the whole context
	}
	return s
}

// request completes r, whose prompt is known, with what the options say.
func (o *options) request(r infer.Request) infer.Request {
	r.MaxTokens, r.Sampling, r.Stop = o.maxTokens, o.sampling, append(r.Stop, o.stop...)
	if o.logprobs {
		r.Logprobs, r.Top = true, o.top
	}
	return r
}

// tagged is how Ollama's clients know a model.
func tagged(id string) string {
	if strings.Contains(id[strings.LastIndexByte(id, '/')+1:], ":") {
		return id
	}
	return id + ":latest"
}

// named is what m is called in an answer: as the client called it, if that is m's name.
func (o *options) named(m wire.Model) string {
	if strings.TrimSuffix(o.model, ":latest") == m.ID {
		return o.model
	}
	return tagged(m.ID)
}
