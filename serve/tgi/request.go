package tgi

import (
	"math"
	"net/http"
	"unicode/utf8"

	"autodev/infer"
	"autodev/serve/wire"
)

// Limits and defaults of TGI's parameters.
const (
	defaultNewTokens = 100
	maxBestOf        = 8
	maxTop           = 20
	maxStops         = 64
)

// generateRequest is the body of a request for text.
type generateRequest struct {
	model    string // adapter_id, or model
	inputs   string
	fullText bool // the answer begins with the inputs
	details  bool
	prefill  bool // with the prompt's tokens
	bestOf   int
	top      int
	truncate int // tokens of the inputs, counted from their end; 0: all
	tokens   int
	stop     []string
	sampling infer.Sampling
	seed     *uint64 // in the answer: only where tokens were drawn

	fields     *wire.Fields
	parameters *wire.Fields
}

// parseGenerate reads a body. fullText says what return_full_text is where the request does not.
func parseGenerate(f *wire.Fields, fullText bool) (*generateRequest, error) {
	p := f.Object("parameters")
	r := &generateRequest{
		model:      p.Text("adapter_id", f.Text("model", "")),
		inputs:     f.Text("inputs", ""),
		fullText:   p.Boolean("return_full_text", fullText),
		details:    p.Boolean("details", false),
		prefill:    p.Boolean("decoder_input_details", false),
		bestOf:     p.Whole("best_of", 1, 1, maxBestOf),
		top:        p.Whole("top_n_tokens", 0, 0, maxTop),
		truncate:   p.Whole("truncate", 0, 1, math.MaxInt32),
		tokens:     p.Whole("max_new_tokens", defaultNewTokens, 0, math.MaxInt32),
		stop:       p.Stops("stop"),
		fields:     f,
		parameters: p,
	}
	if _, ok := f.Get("inputs"); !ok {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "inputs", "missing_required_parameter", "inputs: missing, expected a string"))
	}
	r.readSampling(p)
	if _, ok := p.Get("grammar"); ok {
		p.Fail(wire.BadField("grammar", "found a grammar, expected none: answers cannot be bound to one"))
	}
	if r.bestOf > 1 && r.seed == nil {
		p.Fail(wire.BadField("best_of", "found %d for tokens that are not drawn, expected do_sample or a temperature with it", r.bestOf))
	}
	f.Join("parameters", p)
	return r, f.Err()
}

// readSampling reads how tokens are chosen: the most probable ones, unless do_sample or any other parameter asks for them to be drawn, then at a
// temperature of 1 if none is named.
func (r *generateRequest) readSampling(p *wire.Fields) {
	temperature := p.Number("temperature", 1)
	r.sampling = infer.Sampling{
		TopK:              max(0, p.Whole("top_k", 0, -1, math.MaxInt32)),
		TopP:              p.Number("top_p", 1),
		RepetitionPenalty: p.Number("repetition_penalty", 0),
		FrequencyPenalty:  p.Number("frequency_penalty", 0),
		PresencePenalty:   p.Number("presence_penalty", 0), // not of TGI's
		Seed:              p.Seed("seed"),
	}
	if typical := p.Number("typical_p", 1); typical != 1 {
		p.Fail(wire.BadField("typical_p", "found a value other than 1, expected none: typical sampling is not supported"))
	}
	drawn := p.Boolean("do_sample", false) || temperature != 1 || r.sampling.TopK != 0 || r.sampling.TopP != 1 && r.sampling.TopP != 0
	if drawn && temperature != 0 {
		r.sampling.Temperature, r.seed = temperature, &r.sampling.Seed
	}
}

// prompt returns what the model goes on from. inputs are either text or have the control tokens of a model for filling in, spelled out, and those
// of another model than this one as often as not: they are put in order by the server, which knows its model.
func (r *generateRequest) prompt(m wire.Model, translate func(raw string) infer.Prompt) infer.Prompt {
	p := translate(r.inputs)
	if r.truncate > 0 && r.truncate < m.Engine.Info().Context {
		ids := m.Engine.Encode(p.Prefix, false)
		switch cut := len(ids) - r.truncate; {
		case cut <= 0:
		case p.FIM == infer.FIMAuto && p.Suffix == "" && len(p.Files) == 0:
			return infer.Prompt{IDs: ids[cut:]}
		default:
			p.Prefix = end(p.Prefix, ids[cut:], m.Engine)
		}
	}
	r.fields.Context(&p)
	return p
}

// end returns the end of a text that the given tokens are, in whole characters.
func end(text string, ids []int32, e wire.Engine) string {
	from := len(text)
	for _, id := range ids {
		from -= len(e.TokenText(id))
	}
	for from = max(0, from); from < len(text) && !utf8.RuneStart(text[from]); {
		from++
	}
	return text[from:]
}

// requests returns one request for each sequence of which the best is the answer.
func (r *generateRequest) requests(m wire.Model, logprobs bool, translate func(raw string) infer.Prompt) ([]infer.Request, error) {
	q := infer.Request{
		Prompt: r.prompt(m, translate), MaxTokens: r.tokens, Sampling: r.sampling, Stop: r.stop, Class: infer.Interactive,
		Logprobs: logprobs || r.bestOf > 1, Top: r.top, PromptLogprobs: r.prefill,
	}
	var shape infer.Shape
	if q.Prompt.Suffix != "" || q.Prompt.FIM == infer.FIMAlways {
		shape = m.Shape
	}
	q.Shape, q.Reuse = r.fields.Shape(shape), r.fields.Boolean("reuse", false)
	all := make([]infer.Request, r.bestOf)
	for i := range all {
		all[i] = q
		all[i].Sampling.Choice = uint64(i)
	}
	return all, r.fields.Err()
}
