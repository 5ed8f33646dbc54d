package llamacpp

import (
	"net/http"

	"autodev/serve/wire"
)

// New returns the protocol.
func New() *wire.Protocol {
	s := &server{}
	return &wire.Protocol{
		Name:  "llama.cpp",
		Fault: fault,
		Routes: []wire.Route{
			{Method: http.MethodPost, Path: "/infill", Handle: s.infill},
			{Method: http.MethodPost, Path: "/completion", Handle: s.completion},
			{Method: http.MethodPost, Path: "/tokenize", Handle: tokenize},
			{Method: http.MethodPost, Path: "/detokenize", Handle: detokenize},
			{Method: http.MethodPost, Path: "/apply-template", Handle: applyTemplate},
			{Method: http.MethodGet, Path: "/health", Handle: health},
			{Method: http.MethodGet, Path: "/props", Handle: props},
			{Method: http.MethodGet, Path: "/slots", Handle: s.slots},
			{Method: http.MethodPost, Path: "/slots/{id}", Handle: slotAction},
			{Method: http.MethodGet, Path: "/lora-adapters", Handle: s.listAdapters},
			{Method: http.MethodPost, Path: "/lora-adapters", Admin: true, Handle: s.setAdapters},
		},
	}
}

// server is what requests leave for later ones.
type server struct {
	adapters adapters
	running  running
}

// fault is a failure as llama.cpp's server tells it.
func fault(e *wire.Error) any {
	type body struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Type    string `json:"type"`
	}
	kind := string(e.Kind)
	switch {
	case e.Code == "context_length_exceeded":
		kind = "exceed_context_size_error"
	case e.Kind == wire.Invalid && e.Status == http.StatusNotFound:
		kind = "not_found_error"
	case e.Kind == wire.Overload:
		kind = "unavailable_error"
	}
	return struct {
		Error body `json:"error"`
	}{body{e.Status, e.Message, kind}}
}
