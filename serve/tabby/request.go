package tabby

import (
	"math"
	"net/http"
	"strings"

	"autodev/infer"
	"autodev/serve/wire"
)

// defaultMaxTokens is as in Tabby's server, whose clients do not say how long a completion may be.
const defaultMaxTokens = 64

// The modes of a request.
const (
	standard = "standard"
	nextEdit = "next_edit_suggestion"
)

// snippet is a piece of another file.
type snippet struct {
	Filepath string  `json:"filepath"`
	Body     string  `json:"body"`
	Score    float64 `json:"score"`
}

// completionRequest is the body of POST /v1/completions.
type completionRequest struct {
	model    string // an extension: Tabby's clients name none
	language string
	mode     string // "" where none was named
	prompt   infer.Prompt
	raw      string // the whole prompt, instead
	isRaw    bool
	snippets []snippet
	sampling infer.Sampling
	tokens   int

	returnSnippets, returnPrompt bool

	fields *wire.Fields // for what depends on the model
}

// parseCompletion reads a body. What the clipboard and the edit history hold is not looked at, and neither is user: whose a request is, its key
// says.
func parseCompletion(f *wire.Fields) (*completionRequest, error) {
	r := &completionRequest{
		model:    f.Text("model", ""),
		language: f.Text("language", ""),
		mode:     f.Text("mode", ""),
		sampling: infer.Sampling{Temperature: f.Number("temperature", 0), Seed: f.Seed("seed")},
		tokens:   f.Whole("max_tokens", defaultMaxTokens, 0, math.MaxInt32),
		fields:   f,
	}
	debug := f.Object("debug_options")
	_, r.isRaw = debug.Get("raw_prompt")
	r.raw = debug.Text("raw_prompt", "")
	r.returnSnippets, r.returnPrompt = debug.Boolean("return_snippets", false), debug.Boolean("return_prompt", false)
	alone := debug.Boolean("disable_retrieval_augmented_code_completion", false)
	f.Join("debug_options", debug)
	_, segments := f.Get("segments")
	switch {
	case r.isRaw:
	case !segments:
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "segments", "missing_required_parameter", "segments: missing, expected an object with a prefix"))
	default:
		r.readSegments(f.Object("segments"), alone)
	}
	switch r.mode {
	case "", standard:
	case nextEdit:
		f.Fail(wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "mode", "not_supported", "mode: the model completes and does not predict edits, expected %s", standard))
	default:
		f.Fail(wire.BadField("mode", "found another word, expected %s", standard))
	}
	return r, f.Err()
}

// readSegments reads the text around the cursor and, unless it is to be completed alone, what the editor found for it.
func (r *completionRequest) readSegments(s *wire.Fields, alone bool) {
	if _, ok := s.Get("prefix"); !ok {
		s.Fail(wire.BadField("prefix", "missing, expected a string"))
	}
	r.prompt = infer.Prompt{Prefix: s.Text("prefix", ""), Suffix: s.Text("suffix", ""), Filename: s.Text("filepath", "")}
	for _, list := range []struct {
		name  string
		score float64 // where a snippet has none
	}{{"declarations", 1}, {"relevant_snippets_from_changed_files", 0}, {"relevant_snippets_from_recently_opened_files", 0}} {
		// The lists are in the order of what they are worth, and so is each.
		for _, o := range s.Objects(list.name) {
			p := snippet{Filepath: o.Text("filepath", ""), Body: o.Text("body", ""), Score: o.Number("score", list.score)}
			s.Join(list.name, o)
			if !alone && p.Body != "" {
				r.snippets = append(r.snippets, p)
			}
		}
	}
	r.fields.Join("segments", s)
}

// request returns what the engine of m is asked. raw translates a prompt that is ready, as its sender thinks.
func (r *completionRequest) request(m wire.Model, raw func(string) infer.Prompt) (infer.Request, error) {
	p := r.prompt
	if r.isRaw {
		p = raw(r.raw)
	} else if p.Suffix == "" && m.Engine.Info().FIM {
		// For Tabby the end of a file is a line's end: models were trained to end there and not to go on with another file.
		if p.Suffix = "\n"; strings.Contains(p.Prefix, "\r\n") {
			p.Suffix = "\r\n"
		}
	}
	for _, s := range r.snippets {
		p.Files = append(p.Files, infer.File{Name: s.Filepath, Text: s.Body})
	}
	r.fields.Context(&p)
	q := infer.Request{
		Prompt: p, MaxTokens: r.tokens, Sampling: r.sampling, Class: infer.Interactive, Shape: r.fields.Shape(m.Shape), Reuse: r.fields.Boolean("reuse", true),
	}
	q.Sampling.TopP = 1
	return q, r.fields.Err()
}
