package chat

import (
	"strings"

	"autodev/tokenizer"
)

// The fallback for models without a template is ChatML where the vocabulary has its control tokens, as those of many base models do; a plain format
// with headings where it has not. Base models know neither from training, but go on with both: text under headings occurs in every corpus of code.
//
//	### Instruction:
//	{system, an empty line, and the user's text}
//
//	### Response:
//	{the assistant's text}
const (
	chatmlStart, chatmlEnd = "<|im_start|>", "<|im_end|>"
	headInstruction        = "### Instruction:\n"
	headResponse           = "### Response:\n"
)

// chatML says whether the vocabulary has ChatML's control tokens.
func chatML(tok *tokenizer.Tokenizer) bool {
	if tok == nil {
		return false
	}
	start, hasStart := tok.ID(chatmlStart)
	end, hasEnd := tok.ID(chatmlEnd)
	return hasStart && hasEnd && tok.IsSpecial(start) && tok.IsSpecial(end)
}

// fallbackStops are texts that end an answer of a model without a template.
func fallbackStops(tok *tokenizer.Tokenizer) []string {
	if chatML(tok) {
		return []string{chatmlEnd}
	}
	return []string{"\n### Instruction:", "\n### Response:"}
}

// fallback returns the prompt and which of its bytes are the messages'.
func fallback(tok *tokenizer.Tokenizer, messages []Message, generation bool) (string, []tokenizer.Range) {
	var b strings.Builder
	var user []tokenizer.Range
	content := func(s string) {
		if from := b.Len(); s != "" {
			b.WriteString(s)
			user = append(user, tokenizer.Range{From: from, To: b.Len()})
		}
	}
	if chatML(tok) {
		for _, m := range messages {
			b.WriteString(chatmlStart + m.Role + "\n")
			content(m.Content)
			b.WriteString(chatmlEnd + "\n")
		}
		if generation {
			b.WriteString(chatmlStart + "assistant\n")
		}
		return b.String(), user
	}
	asked := false // under the heading of an instruction
	for _, m := range messages {
		switch {
		case m.Role == "assistant":
			b.WriteString(headResponse)
			asked = false
		case !asked:
			b.WriteString(headInstruction)
			asked = true
		}
		content(strings.TrimSpace(m.Content))
		b.WriteString("\n\n")
	}
	if generation {
		b.WriteString(headResponse)
	}
	return b.String(), user
}
