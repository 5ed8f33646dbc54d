package autodevv1

import (
	"math"
	"net/http"

	"autodev/infer"
	"autodev/serve/wire"
)

// defaultMaxTokens is the original's.
const defaultMaxTokens = 32

// complete answers POST /autocomplete.
func complete(c *wire.Call) error {
	f, err := readForm(c)
	if err != nil {
		return err
	}
	fields, err := f.fields()
	if err != nil {
		return err
	}
	c.Interpret(fields)
	m, release, err := c.Use(fields.Text("model", ""))
	if err != nil {
		return err
	}
	defer release()
	q, err := completion(fields, m.Shape)
	if err != nil {
		return err
	}
	results, err := c.Complete(m, []infer.Request{q}, nil)
	if err != nil {
		return err
	}
	text := ""
	for _, r := range results {
		text += r.Text
	}
	c.ServerTiming(results)
	// The original's answer has the type of an HTML page, which nobody reads; a text that says it were one would be run by browsers.
	return c.Text(plain, text)
}

// completion reads what is to be completed.
func completion(f *wire.Fields, shape infer.Shape) (infer.Request, error) {
	if _, ok := f.Get("prefix"); !ok {
		f.Fail(wire.Errorf(http.StatusBadRequest, wire.Invalid, "prefix", "missing_required_parameter", "prefix: missing, expected a text"))
	}
	p := infer.Prompt{Prefix: f.Text("prefix", ""), Suffix: f.Text("suffix", "")}
	f.Context(&p)
	q := infer.Request{
		Prompt: p, MaxTokens: f.Whole("max_tokens", defaultMaxTokens, 0, math.MaxInt32), Sampling: infer.Sampling{TopP: 1},
		Class: infer.Interactive, Shape: f.Shape(shape), Reuse: f.Boolean("reuse", true),
	}
	return q, f.Err()
}
