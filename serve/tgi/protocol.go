package tgi

import (
	"errors"
	"net/http"

	"autodev/serve/wire"
)

// New returns the protocol. The last route is how llm-ls calls Hugging Face's own service.
func New() *wire.Protocol {
	return &wire.Protocol{
		Name:  "tgi",
		Fault: func(e *wire.Error) any { return fault{e.Message, errorType(e)} },
		Routes: []wire.Route{
			{Method: http.MethodPost, Path: "/generate", Handle: numbered(whole)},
			{Method: http.MethodPost, Path: "/generate_stream", Handle: numbered(stream)},
			{Method: http.MethodPost, Path: "/{$}", Handle: numbered(compatible)},
			{Method: http.MethodPost, Path: "/models/{id...}", Handle: numbered(compatible)},
			{Method: http.MethodGet, Path: "/info", Handle: info},
			{Method: http.MethodPost, Path: "/tokenize", Claims: func(c *wire.Call) bool { return c.Has("inputs") }, Handle: numbered(tokenize)},
		},
	}
}

// fault is how a failure is told.
type fault struct {
	Error string `json:"error"`
	Type  string `json:"error_type"`
}

func errorType(e *wire.Error) string {
	switch e.Kind {
	case wire.Overload:
		return "overloaded"
	case wire.Fault:
		return "generation"
	case wire.Unauthorized:
		return "unauthorized"
	case wire.Forbidden:
		return "forbidden"
	}
	return "validation"
}

// numbered gives failures the statuses of TGI.
func numbered(handle func(*wire.Call) error) func(*wire.Call) error {
	return func(c *wire.Call) error {
		err := handle(c)
		if err == nil || errors.Is(err, wire.ErrShutdown) {
			return err
		}
		e := *wire.AsError(err)
		switch e.Status {
		case http.StatusBadRequest:
			e.Status = http.StatusUnprocessableEntity
		case http.StatusInternalServerError:
			e.Status = http.StatusFailedDependency
		default:
			return err
		}
		return &e
	}
}
