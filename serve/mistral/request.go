package mistral

import (
	"math"
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// defaultMaxTokens stands for Mistral's "as many as fit": room that is kept free for a completion is taken from the prompt.
const defaultMaxTokens = 256

// request is the body of POST /v1/fim/completions.
type request struct {
	model  string
	infer  infer.Request // but for Shape
	stream bool
	fields *wire.Fields // for what depends on the model
}

func parse(f *wire.Fields) (*request, error) {
	r := &request{model: f.Text("model", ""), stream: f.Boolean("stream", false), fields: f}
	p := infer.Prompt{Prefix: f.Text("prompt", ""), Suffix: f.Text("suffix", "")}
	if _, ok := f.Get("prompt"); !ok {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "prompt", "missing", "prompt: missing, expected a string"))
	}
	f.Context(&p)
	least := f.Whole("min_tokens", 0, 0, math.MaxInt32)
	r.infer = infer.Request{
		Prompt:    p,
		MaxTokens: f.Whole("max_tokens", f.Whole("max_completion_tokens", max(defaultMaxTokens, least), 0, math.MaxInt32), 0, math.MaxInt32),
		MinTokens: least,
		Sampling: infer.Sampling{
			Temperature:      f.Number("temperature", 0),
			TopP:             f.Number("top_p", 1),
			PresencePenalty:  f.Number("presence_penalty", 0),
			FrequencyPenalty: f.Number("frequency_penalty", 0),
			Seed:             seed(f),
			Bias:             f.Bias("logit_bias"),
		},
		Stop:  f.Stops("stop"),
		Reuse: f.Boolean("reuse", false),
	}
	if r.infer.MaxTokens == 0 {
		r.infer.Class = infer.Background // only puts the prompt into the cache
	}
	return r, f.Err()
}

// seed reads Mistral's field, or OpenAI's.
func seed(f *wire.Fields) uint64 {
	if _, ok := f.Get("random_seed"); ok {
		return f.Seed("random_seed")
	}
	return f.Seed("seed")
}

// request returns what the engine is asked for. shape is that of completions with a suffix.
func (r *request) request(shape infer.Shape) (infer.Request, error) {
	q := r.infer
	if q.Prompt.Suffix == "" && q.Prompt.FIM != infer.FIMAlways {
		shape = infer.Shape{}
	}
	q.Shape = r.fields.Shape(shape)
	return q, r.fields.Err()
}
