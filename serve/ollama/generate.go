package ollama

import (
	"regexp"
	"time"

	"autodev/infer"
	"autodev/serve/wire"
)

// generateRequest is the body of POST /api/generate.
type generateRequest struct {
	options
	prompt, suffix, system string
	raw                    bool
	unload                 bool // keep_alive is 0
	reuse                  bool // an extension: a completion between two texts may be the rest of a suggestion shown before
	context                []int32
}

// promptAlone is a template that adds nothing to the prompt.
var promptAlone = regexp.MustCompile(`^\s*\{\{-?\s*\.Prompt\s*-?\}\}\s*$`)

// parseGenerate reads a body.
func parseGenerate(f *wire.Fields) (*generateRequest, error) {
	r := &generateRequest{
		options: readOptions(f),
		prompt:  f.Text("prompt", ""),
		suffix:  f.Text("suffix", ""),
		system:  f.Text("system", ""),
		raw:     f.Boolean("raw", false),
		context: f.IDs("context"),
		reuse:   f.Boolean("reuse", false),
	}
	if raw, ok := f.Get("keep_alive"); ok {
		// A number of seconds, or a text such as "5m".
		switch s := string(raw); {
		case wire.KindOf(raw) == "a string":
			r.unload = s == `"0"` || s == `"0s"`
		default:
			r.unload = f.Number("keep_alive", 0) == 0
		}
	}
	template := f.Text("template", "")
	switch {
	case r.raw && (template != "" || r.system != "" || len(r.context) > 0):
		f.Fail(wire.BadField("raw", "raw mode does not support template, system, or context"))
	case promptAlone.MatchString(template):
		r.raw = true
	}
	if len(r.context) > 0 && r.suffix != "" {
		f.Fail(wire.BadField("context", "found together with suffix, expected one of them"))
	}
	return r, f.Err()
}

// generate answers POST /api/generate.
func generate(c *wire.Call) error {
	began := time.Now()
	r, m, release, err := wire.Ask(c, parseGenerate, func(r *generateRequest) string { return r.model })
	if err != nil {
		return err
	}
	defer release()
	if r.prompt == "" && r.suffix == "" {
		// The model is to be loaded, or unloaded; it stays.
		done := generated{Model: r.named(m), At: now(), Done: true, DoneReason: "load"}
		if r.unload {
			done.DoneReason = "unload"
		}
		return c.JSON(done)
	}
	if r.suffix != "" && !m.Engine.Info().FIM {
		return wire.BadField("suffix", "model %s does not support insert", m.ID)
	}
	req, err := r.request(m, func(text string) infer.Prompt { return c.RawPrompt(m, text) })
	if err != nil {
		return err
	}
	a := &answer{m: m, o: &r.options, began: began, keep: !r.raw}
	return c.ReplyFramed(m, []infer.Request{req}, r.stream, wire.NDJSON, a)
}

// request returns what the engine is asked for; raw says what a prompt means that is a text alone.
func (r *generateRequest) request(m wire.Model, raw func(text string) infer.Prompt) (infer.Request, error) {
	p := infer.Prompt{Prefix: r.prompt, Suffix: r.suffix}
	if r.suffix == "" && len(r.context) == 0 {
		p = raw(r.prompt)
	}
	q := infer.Request{Prompt: p}
	if fills := r.suffix != "" || p.FIM == infer.FIMAlways; fills {
		q.Shape, q.Reuse = m.Shape, r.reuse
	} else if !r.raw && m.Chat != nil && m.Chat.Template() != "" {
		messages := []wire.Message{{Role: "user", Content: r.prompt}}
		if r.system != "" {
			messages = append([]wire.Message{{Role: "system", Content: r.system}}, messages...)
		}
		var err error
		if q, err = m.Converse(messages); err != nil {
			return q, err
		}
	}
	if len(r.context) > 0 {
		q.Prompt = infer.Prompt{IDs: after(m.Engine, r.context, q.Prompt)}
	}
	if q.Class != infer.Chat {
		if q.Shape = r.fields.Shape(q.Shape); q.Prompt.IDs == nil {
			r.fields.Context(&q.Prompt)
		}
	}
	return r.options.request(q), r.fields.Err()
}

// after returns the tokens of a prompt that goes on where an answer before ended.
func after(e wire.Engine, context []int32, p infer.Prompt) []int32 {
	ids := p.IDs
	if ids == nil {
		ids = e.Encode(p.Prefix, false)
	}
	return append(append([]int32{}, context...), ids...)
}
