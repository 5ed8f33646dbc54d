package servetest

import (
	"errors"
	"strings"

	"autodev/infer"
	"autodev/serve/wire"
)

// Chat is a wire.Chat with a line for each message, "role: content", that ends answers at "\nuser:" and token 5, and refuses a conversation that begins with
// the assistant.
type Chat struct{}

// Prompt implements wire.Chat.
func (c Chat) Prompt(messages []wire.Message) (infer.Prompt, []string, error) {
	text, err := c.Render(messages)
	return infer.Prompt{Prefix: text}, []string{"\nuser:"}, err
}

// StopIDs implements wire.Chat.
func (Chat) StopIDs() []int32 { return []int32{5} }

// Render implements wire.Chat.
func (Chat) Render(messages []wire.Message) (string, error) {
	if len(messages) > 0 && messages[0].Role == "assistant" {
		return "", errors.New("the first message is the assistant's")
	}
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(m.Role + ": " + m.Content + "\n")
	}
	return b.String() + "assistant:", nil
}

// Template implements wire.Chat.
func (Chat) Template() string { return "{{ lines }}" }
