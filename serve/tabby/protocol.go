package tabby

import (
	"net/http"

	"autodev/serve/wire"
)

// New returns the protocol. r, which may be nil, gets what happened to suggestions.
func New(r Recorder) *wire.Protocol {
	if r == nil {
		r = nobody{}
	}
	return &wire.Protocol{
		Name:  "tabby",
		Fault: func(e *wire.Error) any { return fault{e.Message} },
		Routes: []wire.Route{
			{Method: http.MethodPost, Path: "/v1/completions", Claims: claims, Handle: func(c *wire.Call) error { return completions(c, r) }},
			{Method: http.MethodPost, Path: "/v1/events", Handle: func(c *wire.Call) error { return events(c, r) }},
			{Method: http.MethodGet, Path: "/v1/health", Handle: health},
			{Method: http.MethodPost, Path: "/v1/health", Handle: health},
			{Method: http.MethodGet, Path: "/v1beta/server_setting", Handle: setting},
			{Method: http.MethodGet, Path: "/v1beta/models", Handle: models},
		},
	}
}

// fault is how a failure is told.
type fault struct {
	Error string `json:"error"`
}

// claims says whether a completion is asked for in Tabby's way: in segments, or with fields that only Tabby has and no prompt.
func claims(c *wire.Call) bool {
	return c.Has("segments", "debug_options") || c.Has("language", "mode") && !c.Has("prompt")
}
