package llamacpp

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"

	"autodev/infer"
	"autodev/serve/wire"
)

// answer makes the objects of one request's answer. It is a wire.Form.
type answer struct {
	m        wire.Model
	o        *options
	reqs     []infer.Request
	settings settings
	begun    bool  // a part of a stream was made
	tokens   []int // generated so far, of each request
}

func newAnswer(m wire.Model, o *options, reqs []infer.Request) *answer {
	return &answer{m: m, o: o, reqs: reqs, settings: o.settings(m, reqs[0]), tokens: make([]int, len(reqs))}
}

// final is the end of a completion: the whole answer, or the last event of a stream.
type final struct {
	Index         int           `json:"index"`
	Content       *string       `json:"content"`
	Tokens        []int32       `json:"tokens"`
	Slot          int           `json:"id_slot"`
	Stop          bool          `json:"stop"`
	Model         string        `json:"model"`
	Predicted     int           `json:"tokens_predicted"`
	Evaluated     int           `json:"tokens_evaluated"`
	Settings      settings      `json:"generation_settings"`
	Prompt        string        `json:"prompt"`
	HasNewLine    bool          `json:"has_new_line"`
	Truncated     bool          `json:"truncated"`
	StopType      string        `json:"stop_type"`
	StoppingWord  string        `json:"stopping_word"`
	Cached        int           `json:"tokens_cached"`
	Timings       *wire.Timings `json:"timings"`
	Probabilities []probability `json:"completion_probabilities,omitempty"`
}

// partial is an event of a stream before its last.
type partial struct {
	Index         int           `json:"index"`
	Content       string        `json:"content"`
	Tokens        []int32       `json:"tokens"`
	Stop          bool          `json:"stop"`
	Slot          int           `json:"id_slot"`
	Predicted     int           `json:"tokens_predicted"`
	Probabilities []probability `json:"completion_probabilities,omitempty"`
}

// probability is a token, how probable it was, and what else was.
type probability struct {
	ID      int32        `json:"id"`
	Token   string       `json:"token"`
	Bytes   []int        `json:"bytes"`
	LogProb float64      `json:"logprob"`
	Top     []topLogProb `json:"top_logprobs"`
}

type topLogProb struct {
	ID      int32   `json:"id"`
	Token   string  `json:"token"`
	Bytes   []int   `json:"bytes"`
	LogProb float64 `json:"logprob"`
}

// settings are the options that a completion was made with.
type settings struct {
	Context          int             `json:"n_ctx"`
	Seed             uint64          `json:"seed"`
	Temperature      float64         `json:"temperature"`
	TopK             int             `json:"top_k"`
	TopP             float64         `json:"top_p"`
	MinP             float64         `json:"min_p"`
	RepeatLastN      int             `json:"repeat_last_n"`
	RepeatPenalty    float64         `json:"repeat_penalty"`
	PresencePenalty  float64         `json:"presence_penalty"`
	FrequencyPenalty float64         `json:"frequency_penalty"`
	Stop             []string        `json:"stop"`
	MaxTokens        int             `json:"max_tokens"`
	Predict          int             `json:"n_predict"`
	Keep             int             `json:"n_keep"`
	IgnoreEOS        bool            `json:"ignore_eos"`
	Stream           bool            `json:"stream"`
	Probs            int             `json:"n_probs"`
	Indent           int             `json:"n_indent"`
	Samplers         []string        `json:"samplers"`
	LoRA             []scaledAdapter `json:"lora"`
}

type scaledAdapter struct {
	ID    int     `json:"id"`
	Scale float64 `json:"scale"`
}

// settings tells of a request with the options o.
func (o *options) settings(m wire.Model, r infer.Request) settings {
	s := r.Sampling
	t := settings{
		Context: m.Engine.Info().Context, Seed: s.Seed, Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, MinP: s.MinP,
		RepeatLastN: s.RepetitionWindow, RepeatPenalty: s.RepetitionPenalty, PresencePenalty: s.PresencePenalty, FrequencyPenalty: s.FrequencyPenalty,
		Stop: o.stop, MaxTokens: o.maxTokens, Keep: 0, IgnoreEOS: o.ignoreEOS, Stream: o.stream, Probs: o.probs, Indent: r.Shape.MinIndent,
		Samplers: o.sampling.samplers, LoRA: []scaledAdapter{},
	}
	if t.Stop == nil {
		t.Stop = []string{}
	}
	if o.unbounded {
		t.MaxTokens = -1
	}
	t.Predict = t.MaxTokens
	for _, l := range o.lora {
		t.LoRA = append(t.LoRA, scaledAdapter{l.id, l.scale})
	}
	return t
}

// Whole implements wire.Form: an object, or an array of several.
func (a *answer) Whole(results []infer.Result) any {
	all := make([]any, len(results))
	for i, r := range results {
		all[i] = a.final(i, r, r.Text)
	}
	if len(all) == 1 {
		return all[0]
	}
	return all
}

// Events implements wire.Form.
func (a *answer) Events(i int, c infer.Chunk) []any {
	a.tokens[i] += len(c.Tokens)
	if c.Text == "" && len(c.Tokens) == 0 {
		return nil
	}
	a.begun = true
	p := partial{Index: i, Content: c.Text, Tokens: make([]int32, len(c.Tokens)), Predicted: a.tokens[i]}
	for k, t := range c.Tokens {
		p.Tokens[k] = t.ID
	}
	if a.o.probs > 0 {
		p.Probabilities = a.probabilities(c.Tokens)
	}
	return []any{p}
}

// End implements wire.Form.
func (a *answer) End(results []infer.Result) []any {
	a.begun = true
	all := make([]any, len(results))
	for i, r := range results {
		all[i] = a.final(i, r, "")
	}
	return all
}

// final returns the end of completion i; content is the text that was not sent yet.
func (a *answer) final(i int, r infer.Result, content string) any {
	f := final{
		Index: i, Content: &content, Tokens: []int32{}, Stop: true, Model: a.m.ID, Predicted: len(r.IDs), Evaluated: len(r.PromptIDs),
		Settings: a.settings, HasNewLine: strings.Contains(r.Text, "\n"), Truncated: r.Shortened, StoppingWord: r.StopText,
		StopType: stopType(r), Cached: len(r.PromptIDs) + max(0, len(r.IDs)-1), Timings: wire.TimingsOf([]infer.Result{r}),
	}
	f.Settings.Temperature = a.reqs[i].Sampling.Temperature
	whole := !a.o.stream
	if whole && len(r.IDs) == 0 && r.FinishReason == infer.FinishLength && !r.Reused && !a.o.warmUp() {
		// The prompt took too long. llama.vim remembers a text, even an empty one, as what is to be suggested here; null it asks for again.
		f.Content = nil
	}
	if whole && a.o.ids {
		f.Tokens = append(f.Tokens, r.IDs...)
	}
	if whole && a.o.probs > 0 {
		f.Probabilities = a.probabilities(r.Tokens)
	}
	if len(a.o.response) == 0 {
		f.Prompt = a.m.Engine.Decode(r.PromptIDs)
		return f
	}
	if selects(a.o.response, "prompt") {
		f.Prompt = a.m.Engine.Decode(r.PromptIDs)
	}
	return selected(f, a.o.response)
}

// stopType says in llama.cpp's words what ended a completion.
func stopType(r infer.Result) string {
	switch {
	case r.StopText != "":
		return "word"
	case r.StopRule != "" || r.FinishReason == infer.FinishLength:
		return "limit"
	case r.FinishReason == infer.FinishStop:
		return "eos"
	}
	return "none"
}

// selects says whether one of the paths is a field, or inside it.
func selects(paths []string, field string) bool {
	for _, p := range paths {
		if first, _, _ := strings.Cut(p, "/"); first == field {
			return true
		}
	}
	return false
}

// selected returns an object of v's fields at the paths, each under its whole path; those that there are not are left out.
func selected(v any, paths []string) any {
	whole := encoded(v)
	fields := map[string]json.RawMessage{}
	for _, path := range paths {
		at := whole
		for _, name := range strings.Split(path, "/") {
			var object map[string]json.RawMessage
			if json.Unmarshal(at, &object) != nil {
				at = nil
				break
			}
			at = object[name]
		}
		if at != nil {
			fields[path] = at
		}
	}
	return fields
}

// encoded returns v as JSON, which nothing here fails to become.
func encoded(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	return b.Bytes()
}

// probabilities tells of tokens.
func (a *answer) probabilities(tokens []infer.Token) []probability {
	all := make([]probability, len(tokens))
	for i, t := range tokens {
		all[i] = probability{ID: t.ID, Token: text(t.Bytes), Bytes: numbers(t.Bytes), LogProb: finite(t.LogProb), Top: make([]topLogProb, len(t.Top))}
		for k, p := range t.Top {
			b := a.m.Engine.TokenText(p.ID)
			all[i].Top[k] = topLogProb{p.ID, text(b), numbers(b), finite(p.LogProb)}
		}
	}
	return all
}

// text returns the whole characters that a token begins with.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "") }

func numbers(b []byte) []int {
	all := make([]int, len(b))
	for i, c := range b {
		all[i] = int(c)
	}
	return all
}

// finite replaces what JSON has no word for.
func finite(x float64) float64 { return max(x, -math.MaxFloat32) }
