package tgi

import (
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// whole answers POST /generate.
func whole(c *wire.Call) error { return generate(c, false, false, false) }

// stream answers POST /generate_stream.
func stream(c *wire.Call) error { return generate(c, false, true, false) }

// compatible answers POST /, which puts its answer into an array and streams where the body says so.
func compatible(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	return generate(c, true, f.Boolean("stream", false), true)
}

// generate answers a request for text. array and fullText are what the route does otherwise than others.
func generate(c *wire.Call, array, stream, fullText bool) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	req, err := parseGenerate(f, fullText)
	if err != nil {
		return err
	}
	if req.model == "" {
		req.model = c.R.PathValue("id")
	}
	switch {
	case stream && req.bestOf > 1:
		return refused("best_of", "found %d for a stream, expected 1", req.bestOf)
	case stream && req.prefill:
		return refused("decoder_input_details", "found true for a stream, expected false")
	}
	m, release, err := c.Use(req.model)
	if err != nil {
		return err
	}
	defer release()
	reqs, err := req.requests(m, req.details || req.prefill || stream, func(raw string) infer.Prompt { return c.RawPrompt(m, raw) })
	if err != nil {
		return err
	}
	return c.Reply(m, reqs, stream, &answer{engine: m.Engine, req: req, array: array})
}

// refused says that a parameter cannot be used.
func refused(name, format string, args ...any) error {
	return wire.Errorf(http.StatusBadRequest, wire.Invalid, "parameters", "invalid_value", "parameters: "+name+": "+format, args...)
}
