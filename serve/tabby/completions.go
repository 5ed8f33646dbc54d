package tabby

import (
	"autodev/infer"
	"autodev/serve/wire"
)

// completion is an answer.
type completion struct {
	ID      string     `json:"id"`
	Choices []choice   `json:"choices"`
	Debug   *debugData `json:"debug_data,omitempty"`
	Mode    string     `json:"mode,omitempty"` // where the request named one
}

type choice struct {
	Index int    `json:"index"`
	Text  string `json:"text"`
}

// debugData is what a request asked to see.
type debugData struct {
	Snippets *[]snippet `json:"snippets,omitempty"`
	Prompt   *string    `json:"prompt,omitempty"`
}

// completions answers POST /v1/completions.
func completions(c *wire.Call, recorder Recorder) error {
	req, m, release, err := wire.Ask(c, parseCompletion, func(r *completionRequest) string { return r.model })
	if err != nil {
		return err
	}
	defer release()
	q, err := req.request(m, func(raw string) infer.Prompt { return c.RawPrompt(m, raw) })
	if err != nil {
		return err
	}
	c.Language = req.language
	if !req.isRaw {
		c.Around = &req.prompt // what the engine is asked may have a suffix that the file has not
	}
	results, err := c.Complete(m, []infer.Request{q}, nil)
	if err != nil {
		return err
	}
	a := completion{ID: c.CompletionID("cmpl-"), Choices: []choice{}, Mode: req.mode}
	for i, r := range results {
		a.Choices = append(a.Choices, choice{i, r.Text})
	}
	if req.returnSnippets || req.returnPrompt {
		a.Debug = &debugData{}
		if req.returnSnippets {
			all := append([]snippet{}, req.snippets...)
			a.Debug.Snippets = &all
		}
		if req.returnPrompt && len(results) > 0 {
			text := m.Engine.Decode(results[0].PromptIDs)
			a.Debug.Prompt = &text
		}
	}
	c.ServerTiming(results)
	return c.JSON(a)
}
