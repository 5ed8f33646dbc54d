package autodevv1

import (
	"net/http"
	"strings"

	"autodev/serve/wire"
)

// Assist applies assistance functions.
type Assist interface {
	// Apply applies a function to code and calls emit with its output, piece by piece and whole characters only: escaped HTML if html, else
	// text; of functions that replace code, the new code and nothing else.
	Apply(c *wire.Call, function, code string, html bool, emit func(text string) error) error
}

// function is one of the original's.
type function struct {
	path       string // after /fn/ and /fn/stream/
	name       string // for Assist
	html       bool   // its output is shown as a page
	replaces   bool   // its output takes the place of the code
	streamOnly bool
}

// functions are the original's, with the names that Assist has for them.
var functions = []function{
	{path: "add-docstrings", name: "document", replaces: true},
	{path: "potential-problems", name: "find-problems", html: true},
	{path: "review", name: "review", html: true},
	{path: "improve-code", name: "improve", replaces: true},
	{path: "explain", name: "explain", html: true},
	{path: "implement-tests", name: "write-tests"},
	{path: "input-checks", name: "add-input-checks", replaces: true, streamOnly: true},
}

func functionOf(path string) (function, bool) {
	for _, fn := range functions {
		if fn.path == path {
			return fn, true
		}
	}
	return function{}, false
}

func (fn function) contentType() string {
	if fn.html {
		return hyper
	}
	return plain
}

// apply calls emit with the function's output for a call's code.
func (fn function) apply(c *wire.Call, a Assist, emit func(text string) error) error {
	f, err := readForm(c)
	if err != nil {
		return err
	}
	code, ok := f["code"]
	switch {
	case !ok:
		return wire.Errorf(http.StatusBadRequest, wire.Invalid, "code", "missing_required_parameter", "code: missing, expected a text")
	case a == nil:
		return wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "", "not_supported", "assistance functions are not set up on this server")
	}
	return a.Apply(c, fn.name, code, fn.html, emit)
}

// whole answers POST /fn/….
func (fn function) whole(c *wire.Call, a Assist) error {
	var text strings.Builder
	err := fn.apply(c, a, func(piece string) error {
		text.WriteString(piece)
		return nil
	})
	if err != nil {
		return err
	}
	return c.Text(fn.contentType(), text.String())
}

// stream answers POST /fn/stream/…. What is sent is sent: a failure after it breaks the answer off.
func (fn function) stream(c *wire.Call, a Assist) error {
	s := c.Stream(wire.Raw, fn.contentType())
	begun := false
	err := fn.apply(c, a, func(piece string) error {
		if piece == "" {
			return nil
		}
		begun = true
		return s.Send(wire.Verbatim(piece))
	})
	if err == nil && !begun {
		return s.Send(wire.Verbatim(""))
	}
	return err
}
