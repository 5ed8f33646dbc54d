package mistral

import (
	"net/http"

	"autodev/serve/wire"
)

// New returns the protocol.
func New() *wire.Protocol {
	p := &wire.Protocol{Name: "mistral", Fault: fault}
	for _, path := range []string{"/v1/fim/completions", "/fim/completions"} {
		p.Routes = append(p.Routes, wire.Route{Method: http.MethodPost, Path: path, Handle: func(c *wire.Call) error { return unprocessable(complete(c)) }})
	}
	return p
}

// unprocessable gives mistakes in a body the status that Mistral's clients expect of them.
func unprocessable(err error) error {
	if err == nil {
		return nil
	}
	e := wire.AsError(err)
	if e.Status != http.StatusBadRequest {
		return err
	}
	other := *e
	other.Status = http.StatusUnprocessableEntity
	return &other
}

// failure is an error in every form that clients of the route look for: Mistral's own; for mistakes in the body FastAPI's list, which Mistral's
// packages and llm-ls read; and OpenAI's object, without which Continue takes a stream that failed for one that ended.
type failure struct {
	Object  string    `json:"object"`
	Message string    `json:"message"`
	Type    wire.Kind `json:"type"`
	Param   *string   `json:"param"`
	Code    *string   `json:"code"`
	Detail  []detail  `json:"detail,omitempty"`
	Error   inner     `json:"error"`
}

type detail struct {
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
	Type string   `json:"type"`
}

type inner struct {
	Message string    `json:"message"`
	Type    wire.Kind `json:"type"`
}

func fault(e *wire.Error) any {
	f := failure{
		Object: "error", Message: e.Message, Type: e.Kind, Param: wire.Optional(e.Param), Code: wire.Optional(e.Code),
		Error: inner{e.Message, e.Kind},
	}
	if e.Status == http.StatusUnprocessableEntity {
		loc := []string{"body"}
		if e.Param != "" {
			loc = append(loc, e.Param)
		}
		f.Detail = []detail{{loc, e.Message, e.Code}}
	}
	return f
}
