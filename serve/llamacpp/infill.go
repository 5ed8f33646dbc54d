package llamacpp

import (
	"net/http"
	"slices"

	"autodev/infer"
	"autodev/serve/wire"
)

// infillRequest is the body of POST /infill.
type infillRequest struct {
	options
	prompt infer.Prompt
}

// parseInfill reads a body. prompt, the text of the line before the cursor, goes on where input_prefix ends, as in llama.cpp's program; its
// documentation differs. input_extra holds other texts, the newest last.
func parseInfill(f *wire.Fields) (*infillRequest, error) {
	r := &infillRequest{options: readOptions(f)}
	for _, name := range []string{"input_prefix", "input_suffix"} {
		if _, ok := f.Get(name); !ok {
			f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, name, "missing_required_parameter", "%s: missing, expected a string", name))
		}
	}
	r.prompt = infer.Prompt{
		Prefix: f.Text("input_prefix", "") + f.Text("prompt", ""),
		Suffix: f.Text("input_suffix", ""),
		FIM:    infer.FIMAlways,
	}
	for i, o := range f.Objects("input_extra") {
		if _, ok := o.Get("text"); !ok {
			o.Fail(wire.BadField("text", "missing, expected a string"))
		}
		r.prompt.Files = append(r.prompt.Files, infer.File{Name: o.Text("filename", ""), Text: o.Text("text", "")})
		if o.Err() != nil {
			f.Fail(wire.BadField("input_extra", "%s: %s", at(i), o.Err()))
		}
	}
	slices.Reverse(r.prompt.Files)
	f.Context(&r.prompt)
	return r, f.Err()
}

// infill answers POST /infill.
func (s *server) infill(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	r, err := parseInfill(f)
	if err != nil {
		return err
	}
	begun := false
	err = s.fillIn(c, r, &begun)
	if err == nil || begun || wire.AsError(err).Kind != wire.Overload {
		return err
	}
	c.Record.Err = err
	if r.stream {
		return c.Stream(wire.SSE, "").Send(wire.Verbatim(nothing))
	}
	return c.Text("application/json", nothing+"\n")
}

// nothing is the answer of a server that has no time for one. llama.vscode shows a box on any status but 200. The space keeps llama.vim, which
// looks for "content":", from remembering this as what is to be suggested here.
const nothing = `{"content": "","stop":true}`

// fillIn completes. begun says that a part of the answer was sent.
func (s *server) fillIn(c *wire.Call, r *infillRequest, begun *bool) error {
	m, release, err := s.use(c, &r.options)
	if err != nil {
		return err
	}
	defer release()
	if !m.Engine.Info().FIM {
		return wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "", "not_supported", "Infill is not supported by this model: its tokenizer has no fill-in-the-middle tokens")
	}
	shape := r.fields.Shape(m.Shape)
	reqs, err := r.requests(m, []infer.Prompt{r.prompt}, func(infer.Prompt) infer.Shape { return shape })
	if err != nil {
		return err
	}
	a := newAnswer(m, &r.options, reqs)
	defer s.running.enter()()
	err = c.Reply(m, reqs, r.stream, a)
	*begun = a.begun
	return err
}
