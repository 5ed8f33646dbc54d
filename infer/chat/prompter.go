package chat

import (
	"slices"

	"autodev/infer"
	"autodev/tokenizer"
)

// Prompter makes prompts for one model: its template, or nil, with its tokenizer.
type Prompter struct {
	t     *Template
	tok   *tokenizer.Tokenizer
	stops []string
	ids   []int32
}

// NewPrompter returns the Prompter of a model.
func NewPrompter(t *Template, tok *tokenizer.Tokenizer) *Prompter {
	p := &Prompter{t: t, tok: tok}
	if t == nil {
		p.stops = fallbackStops(tok)
	}
	p.ids = p.endOfTurn()
	return p
}

// endOfTurn returns the control tokens that follow an assistant's message: what the model ends its answers with.
func (p *Prompter) endOfTurn() []int32 {
	const probe = "probe"
	ids, err := p.t.Encode(p.tok, []Message{{"user", probe}, {"assistant", probe}}, false)
	if err != nil {
		return nil
	}
	// The last message's end is the first control token after its last plain one.
	end := len(ids)
	for end > 0 && (p.tok.IsSpecial(ids[end-1]) || len(p.tok.TokenBytes(ids[end-1])) > 0 && blank(p.tok.TokenBytes(ids[end-1]))) {
		end--
	}
	for _, id := range ids[end:] {
		if p.tok.IsSpecial(id) {
			return []int32{id}
		}
	}
	return nil
}

func blank(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != ' ' && c != '\n' && c != '\t' && c != '\r' })
}

// Prompt returns the prompt that the model answers a conversation with, and texts that end its answer. No content is searched for control tokens.
func (p *Prompter) Prompt(messages []Message) (infer.Prompt, []string, error) {
	ids, err := p.t.Encode(p.tok, messages, true)
	if err != nil {
		return infer.Prompt{}, nil, err
	}
	return infer.Prompt{IDs: ids}, slices.Clone(p.stops), nil
}

// Render returns the prompt as text, control tokens spelled out.
func (p *Prompter) Render(messages []Message) (string, error) {
	return p.t.Render(p.tok, messages, true)
}

// Template returns the template's source, "" where the model has none of its own.
func (p *Prompter) Template() string { return p.t.Source() }

// Instruct says whether the model follows instructions, as far as its files tell: it has a template, or the control tokens of one.
func (p *Prompter) Instruct() bool { return p.t != nil || chatML(p.tok) }

// StopIDs returns the control tokens that end an answer.
func (p *Prompter) StopIDs() []int32 { return slices.Clone(p.ids) }
