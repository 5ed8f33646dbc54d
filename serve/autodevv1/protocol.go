package autodevv1

import (
	"html"
	"net/http"
	"strings"

	"autodev/serve/wire"
)

// Content types. The plugin shows an answer as HTML when its type says so.
const (
	plain = "text/plain; charset=utf-8"
	hyper = "text/html; charset=utf-8"
)

// New returns the protocol. a answers for the functions; nil: there are none.
func New(a Assist) *wire.Protocol {
	p := &wire.Protocol{Name: "autodev1", Fault: wire.OpenAIFault, Refusal: refusal}
	p.Routes = append(p.Routes, wire.Route{Method: http.MethodPost, Path: "/autocomplete", Handle: complete})
	for _, fn := range functions {
		if !fn.streamOnly {
			p.Routes = append(p.Routes, wire.Route{Method: http.MethodPost, Path: "/fn/" + fn.path, Handle: func(c *wire.Call) error { return fn.whole(c, a) }})
		}
		p.Routes = append(p.Routes, wire.Route{Method: http.MethodPost, Path: "/fn/stream/" + fn.path, Handle: func(c *wire.Call) error { return fn.stream(c, a) }})
	}
	return p
}

// refusal returns what a call that failed is answered, beside its status.
func refusal(c *wire.Call, e *wire.Error) (contentType, body string) {
	fn, ok := functionOf(strings.TrimPrefix(strings.TrimPrefix(c.Record.Route, "/fn/"), "stream/"))
	switch {
	case !ok:
		return plain, ""
	case fn.replaces:
		f, err := readForm(c)
		if err != nil {
			return plain, ""
		}
		return plain, f["code"]
	case fn.html:
		return hyper, "<p>" + html.EscapeString(e.Message) + "</p>\n"
	}
	return plain, e.Message + "\n"
}
