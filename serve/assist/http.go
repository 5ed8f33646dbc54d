package assist

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"autodev/infer"
	"autodev/infer/chat"
	"autodev/serve/wire"
)

// maxSelection bounds the text that a function is applied to, in bytes; what is around it is shortened by itself.
const maxSelection = 256 << 10

// Protocol returns the routes for editors.
//
// GET /v1/assist lists the functions: {"functions":[{"name","title","output":"prose"|"code","place"?:"replace"|"below"|"new","backend"}]}.
//
// POST /v1/assist/{name} applies one:
//
//	{"selection": the code (required), "language"?, "file"?: path, "before"?, "after"?: the file around the selection or as much as there is,
//	 "range"?: {"start":{"line","character"},"end":{…}} of the selection, which the edit names; "instruction"?: what the user wants beside,
//	 "stream"?: false, "format"?: "text"|"html" of prose, "backend"?: in place of the function's, "model"?: of the local backend, "seed"?}
//
// Whole, the answer is {"text", "edit"?, "usage", "finish_reason":"stop"|"length", "model"}. As a stream it is server-sent events: {"delta": text} as the
// text becomes certain, then one {"edit"?, "usage", "finish_reason", "model"} or {"error":{"message","type","code","param"}}. The deltas joined are text.
// Of functions with output "code" they are code as it will stand in the file, and edit is {"place","range"?,"file"?,"newText"}: newText takes the
// place of range, whole or not at all; of place "new" file is a name for the file it is for. Without an edit nothing may be changed. Closing the
// connection cancels.
//
// Failures have OpenAI's form. 422 with the code no_code, truncated, repetitive or code_changed: the model has answered without (complete) code, or not with what was asked for. 429 with budget_exceeded: what
// the configuration allows for today is used up. 502 and 504: the service behind the function has failed.
func (s *Service) Protocol() *wire.Protocol {
	return &wire.Protocol{Name: "assist", Fault: wire.OpenAIFault, Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/v1/assist", Handle: func(c *wire.Call) error { return c.JSON(map[string]any{"functions": s.List()}) }},
		{Method: http.MethodPost, Path: "/v1/assist/{name}", Handle: func(c *wire.Call) error { return failure(s.answer(c)) }},
	}}
}

// ending is the last event of a stream, and what a whole answer has beside its text.
type ending struct {
	Edit   *Edit  `json:"edit,omitempty"`
	Usage  Usage  `json:"usage"`
	Finish Finish `json:"finish_reason"`
	Model  string `json:"model"`
}

type whole struct {
	Text string `json:"text"`
	ending
}

func (s *Service) answer(c *wire.Call) error {
	f := s.Function(c.R.PathValue("name"))
	if f == nil {
		return wire.Errorf(http.StatusNotFound, wire.Invalid, "name", "function_not_found", "there is no such function, expected one of %s", strings.Join(s.names(), ", "))
	}
	fields, err := c.Fields()
	if err != nil {
		return err
	}
	r := Request{
		Language: fields.Text("language", ""), File: fields.Text("file", ""), Selection: fields.Text("selection", ""),
		Before: fields.Text("before", ""), After: fields.Text("after", ""), Instruction: fields.Text("instruction", ""), Range: rangeOf(fields),
	}
	stream := fields.Boolean("stream", false)
	format := wire.Choice(fields, "format", Text, map[string]Format{"text": Text, "html": HTML}, "text or html")
	backend, model, seed := fields.Text("backend", ""), fields.Text("model", ""), fields.Seed("seed")
	if err := fields.Err(); err != nil {
		return err
	}
	if len(r.Selection)+len(r.Instruction) > maxSelection {
		return wire.BadField("selection", "found %d bytes with the instruction, expected at most %d", len(r.Selection)+len(r.Instruction), maxSelection)
	}
	b, release, err := s.callBackend(c, f, backend, model)
	if err != nil {
		return err
	}
	defer release()
	if !stream {
		a, err := f.Run(c.Context(), b, r, format, seed, nil)
		if err != nil {
			return err
		}
		return c.JSON(whole{a.Text, ending{a.Edit, a.Reply.Usage, a.Reply.Finish, a.Model}})
	}
	out := c.Stream(wire.SSE, "")
	a, err := f.Run(c.Context(), b, r, format, seed, func(text string) error {
		return out.Send(struct {
			Delta string `json:"delta"`
		}{text})
	})
	if err != nil {
		return err
	}
	return out.Send(ending{a.Edit, a.Reply.Usage, a.Reply.Finish, a.Model})
}

// Apply applies a function to code and calls emit with its output as it becomes certain: escaped HTML if html, else text.
func (s *Service) Apply(c *wire.Call, name, code string, html bool, emit func(text string) error) error {
	f := s.Function(name)
	if f == nil {
		return wire.Errorf(http.StatusNotFound, wire.Invalid, "name", "function_not_found", "there is no function %.80q", name)
	}
	if len(code) > maxSelection {
		return wire.BadField("code", "found %d bytes, expected at most %d", len(code), maxSelection)
	}
	b, release, err := s.callBackend(c, f, "", "")
	if err != nil {
		return failure(err)
	}
	defer release()
	format := Text
	if html {
		format = HTML
	}
	_, err = f.Run(c.Context(), b, Request{Selection: code}, format, wire.NewSeed(), emit)
	return failure(err)
}

func rangeOf(fields *wire.Fields) *Range {
	if _, ok := fields.Get("range"); !ok {
		return nil
	}
	const most = 1<<31 - 1
	both := fields.Object("range")
	position := func(name string) Position {
		o := both.Object(name)
		p := Position{o.Whole("line", -1, 0, most), o.Whole("character", -1, 0, most)}
		both.Join(name, o)
		if o.Err() == nil && (p.Line < 0 || p.Character < 0) {
			both.Fail(wire.BadField(name, "missing, expected line and character"))
		}
		return p
	}
	r := &Range{position("start"), position("end")}
	if r.End.Line < r.Start.Line || r.End.Line == r.Start.Line && r.End.Character < r.Start.Character {
		both.Fail(wire.BadField("end", "found a place before the start"))
	}
	fields.Join("range", both)
	return r
}

// callBackend returns what answers a call, and what is to be called afterwards.
func (s *Service) callBackend(c *wire.Call, f *Function, backend, model string) (_ Backend, release func(), err error) {
	release = func() {}
	b, err := s.Backend(f, backend, func() (Backend, error) {
		m, done, err := c.Use(model)
		if err != nil {
			return nil, err
		}
		release = done
		l := &Local{Name: m.ID, Engine: callEngine{c, m}}
		if m.Chat != nil {
			l.Chat, l.Instruct = m.Chat, m.Chat.Template() != ""
			if known, ok := m.Chat.(interface{ Instruct() bool }); ok {
				l.Instruct = known.Instruct()
			}
		}
		return l, nil
	})
	return b, release, err
}

// callEngine is a model's engine, for one call.
type callEngine struct {
	c *wire.Call
	m wire.Model
}

func (e callEngine) Context() int { return e.m.Engine.Info().Context }

func (e callEngine) Complete(_ context.Context, r infer.Request, emit func(infer.Chunk) error) (infer.Result, error) {
	// Typing goes on while an answer is written: the completions of the editor's session must not end it.
	r.Session = wire.NewID("assist-")
	results, err := e.c.Complete(e.m, []infer.Request{r}, func(_ int, chunk infer.Chunk) error { return emit(chunk) })
	if len(results) == 0 {
		return infer.Result{FinishReason: infer.FinishCancel}, err
	}
	return results[0], err
}

// failure gives errors their status.
func failure(err error) error {
	var invalid *InvalidError
	var spent *BudgetError
	var service *ServiceError
	var tooLong *TooLongError
	var refused *chat.Error
	with := func(status int, kind wire.Kind, param, code string, after time.Duration) error {
		e := wire.Errorf(status, kind, param, code, "%s", err)
		e.RetryAfter = after
		return e
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid):
		return wire.BadField(invalid.Field, "%s", invalid.Text)
	case errors.As(err, &tooLong):
		return with(http.StatusBadRequest, wire.Invalid, "selection", "context_length_exceeded", 0)
	case errors.As(err, &refused):
		return with(http.StatusBadRequest, wire.Invalid, "", "template_error", 0)
	case errors.Is(err, ErrNoCode):
		return with(http.StatusUnprocessableEntity, wire.Fault, "", "no_code", 0)
	case errors.Is(err, ErrTruncated):
		return with(http.StatusUnprocessableEntity, wire.Fault, "", "truncated", 0)
	case errors.Is(err, ErrCircles):
		return with(http.StatusUnprocessableEntity, wire.Fault, "", "repetitive", 0)
	case errors.Is(err, ErrChanged):
		return with(http.StatusUnprocessableEntity, wire.Fault, "", "code_changed", 0)
	case errors.Is(err, ErrCancelled):
		return with(http.StatusConflict, wire.Overload, "", "superseded", 0)
	case errors.As(err, &spent):
		return with(http.StatusTooManyRequests, wire.Overload, "", "budget_exceeded", spent.RetryAfter)
	case errors.As(err, &service):
		switch {
		case service.Status == http.StatusTooManyRequests:
			return with(http.StatusTooManyRequests, wire.Overload, "", "backend_busy", service.RetryAfter)
		case errors.Is(err, errTimeout):
			return with(http.StatusGatewayTimeout, wire.Fault, "", "backend_timeout", 0)
		}
		return with(http.StatusBadGateway, wire.Fault, "", "backend_failed", 0)
	}
	return err
}
