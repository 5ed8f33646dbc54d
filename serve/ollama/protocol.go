package ollama

import (
	"net/http"

	"autodev/serve/wire"
)

// spoken is the version of Ollama whose API this is: clients compare it to find out what the server can do.
const spoken = "0.17.4"

// New returns the protocol.
func New() *wire.Protocol {
	p := &wire.Protocol{Name: "ollama", Fault: fault, Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/{$}", Handle: func(c *wire.Call) error { return c.Text("text/plain; charset=utf-8", "Ollama is running") }},
		{Method: http.MethodGet, Path: "/api/version", Handle: func(c *wire.Call) error { return c.JSON(map[string]string{"version": spoken}) }},
		{Method: http.MethodGet, Path: "/api/tags", Handle: tags},
		{Method: http.MethodGet, Path: "/api/ps", Handle: ps},
		{Method: http.MethodPost, Path: "/api/show", Handle: show},
		{Method: http.MethodPost, Path: "/api/generate", Handle: generate},
		{Method: http.MethodPost, Path: "/api/chat", Handle: chat},
		{Method: http.MethodPost, Path: "/api/pull", Handle: pull},
	}}
	for _, r := range []struct{ method, path, what string }{
		{http.MethodPost, "/api/embed", "embeddings"},
		{http.MethodPost, "/api/embeddings", "embeddings"},
		{http.MethodPost, "/api/push", "pushing models"},
		{http.MethodPost, "/api/create", "creating models"},
		{http.MethodPost, "/api/copy", "copying models"},
		{http.MethodDelete, "/api/delete", "deleting models"},
	} {
		p.Routes = append(p.Routes, wire.Route{Method: r.method, Path: r.path, Handle: func(*wire.Call) error {
			return wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "", "not_supported", "this server does not support %s", r.what)
		}})
	}
	return p
}

// fault is a failure as Ollama tells it.
func fault(e *wire.Error) any {
	return struct {
		Error string `json:"error"`
	}{e.Message}
}
