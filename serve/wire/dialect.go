package wire

import (
	"cmp"

	"autodev/infer"
)

// RawPrompt returns what a text means that a client sends as a whole prompt. Where it spells the fill-in-the-middle markers of some family of
// models and m can fill in, that is a prefix and a suffix for m to encode in its own way, and the answer's header X-AutoDev-FIM says "translated"
// and from which family. It must come before the answer.
func (c *Call) RawPrompt(m Model, text string) infer.Prompt {
	p, family, ok := infer.ParseDialect(text)
	if !ok || !m.Engine.Info().FIM {
		return infer.Prompt{Prefix: text}
	}
	c.W.Header().Set("X-AutoDev-FIM", "translated "+family)
	return p
}

// TranslateRaw is RawPrompt for a prompt of which more is known than its text, which is its prefix. One with a suffix or with token ids
// is no raw prompt.
func (c *Call) TranslateRaw(m Model, p *infer.Prompt) {
	if p.Suffix != "" || p.IDs != nil {
		return
	}
	q := c.RawPrompt(m, p.Prefix)
	p.Prefix, p.Suffix, p.FIM = q.Prefix, q.Suffix, q.FIM
	p.Filename, p.Files = cmp.Or(p.Filename, q.Filename), append(q.Files, p.Files...)
}
