package chat

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"autodev/infer/chat/jinja"
	"autodev/tokenizer"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant", and what the template knows beside: Roles
	Content string
}

// Roles are the speakers that a message may have. A template builds control tokens from them, so they are no free text.
func Roles() []string { return []string{"system", "developer", "user", "assistant", "tool"} }

// Template makes prompts of conversations. It is immutable and safe for concurrent use. The nil Template is the fallback of models without one.
type Template struct {
	source  string
	parsed  *jinja.Template
	special map[string]string // bos_token and the like
	now     func() time.Time
}

// Error says that a template does not take a conversation: it has no place for a system message, say, or wants other roles in turn.
type Error struct{ Err error }

func (e *Error) Error() string { return "chat template: " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// New parses a template. special are the texts that it knows as bos_token, eos_token and so on.
func New(source string, special map[string]string) (*Template, error) {
	parsed, err := jinja.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return &Template{source: source, parsed: parsed, special: special, now: time.Now}, nil
}

// Source returns the text of the template, "" for the fallback.
func (t *Template) Source() string {
	if t == nil {
		return ""
	}
	return t.source
}

// Encode returns the prompt for a conversation. With generation the prompt ends where the assistant's next message begins. The error is an *Error where
// the conversation is to blame.
func (t *Template) Encode(tok *tokenizer.Tokenizer, messages []Message, generation bool) ([]int32, error) {
	text, user, err := t.render(tok, messages, generation)
	if err != nil {
		return nil, err
	}
	return tok.EncodeMixed(text, user), nil
}

// Render returns what Encode encodes. Texts of users stand in it as they are, so encoding it again may give them control tokens.
func (t *Template) Render(tok *tokenizer.Tokenizer, messages []Message, generation bool) (string, error) {
	text, _, err := t.render(tok, messages, generation)
	return text, err
}

// render returns the prompt and which of its bytes are the messages'.
func (t *Template) render(tok *tokenizer.Tokenizer, messages []Message, generation bool) (string, []tokenizer.Range, error) {
	if err := check(messages); err != nil {
		return "", nil, err
	}
	if t == nil {
		text, user := fallback(tok, messages, generation)
		return text, user, nil
	}
	turns := make([]any, len(messages))
	for i, m := range messages {
		turns[i] = []jinja.Pair{{Key: "role", Value: m.Role}, {Key: "content", Value: jinja.User(m.Content)}}
	}
	vars := map[string]any{"messages": turns, "add_generation_prompt": generation, "tools": nil, "documents": nil}
	if tok != nil {
		for name, id := range map[string]func() (int32, bool){"bos_token": tok.BOS, "eos_token": tok.EOS, "pad_token": tok.PAD, "unk_token": tok.UNK} {
			if id, ok := id(); ok {
				vars[name], _ = tok.Token(id)
			}
		}
	}
	for name, text := range t.special {
		vars[name] = text
	}
	out, err := t.parsed.Render(vars, jinja.Host{Now: func(format string) string { return strftime(format, t.now()) }})
	if err != nil {
		return "", nil, &Error{err}
	}
	user := make([]tokenizer.Range, len(out.Marks()))
	for i, m := range out.Marks() {
		user[i] = tokenizer.Range{From: m.From, To: m.To}
	}
	return out.String(), user, nil
}

func check(messages []Message) error {
	if len(messages) == 0 {
		return &Error{fmt.Errorf("found no messages, expected at least one")}
	}
	for i, m := range messages {
		if !slices.Contains(Roles(), m.Role) {
			return &Error{fmt.Errorf("message %d: found the role %.40q, expected one of %s", i, m.Role, strings.Join(Roles(), ", "))}
		}
	}
	return nil
}
