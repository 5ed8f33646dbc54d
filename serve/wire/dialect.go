package wire

import "autodev/infer"

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
