package openai

import (
	"net/http"

	"autodev/serve/wire"
)

// New returns the protocol. The paths without /v1, and LM Studio's, DeepSeek's and Tabby's, are those that clients with a fixed idea of a base address
// ask for.
func New() *wire.Protocol {
	p := &wire.Protocol{Name: "openai", Fault: wire.OpenAIFault}
	for _, base := range []string{"/v1", "", "/api/v0"} {
		p.Routes = append(p.Routes,
			wire.Route{Method: http.MethodPost, Path: base + "/completions", Handle: completions},
			wire.Route{Method: http.MethodPost, Path: base + "/chat/completions", Handle: chat},
			wire.Route{Method: http.MethodGet, Path: base + "/models", Handle: models},
			wire.Route{Method: http.MethodGet, Path: base + "/models/{id...}", Handle: model},
		)
	}
	for _, path := range []string{"/beta/completions", "/v1/beta/completions"} {
		p.Routes = append(p.Routes, wire.Route{Method: http.MethodPost, Path: path, Handle: completions})
	}
	// Tabby's chat is OpenAI's.
	p.Routes = append(p.Routes, wire.Route{Method: http.MethodPost, Path: "/v1beta/chat/completions", Handle: chat})
	return p
}
