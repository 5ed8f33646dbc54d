package wire

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"autodev/infer"
)

// maxMessages bounds a conversation.
const maxMessages = 4096

// roles are the words for who speaks, as Message has them. A developer's message is what OpenAI's newer models call the system's.
var roles = map[string]string{"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

// Messages reads a conversation: an array of objects with role and content, where content is a text, an array of parts that are texts, or
// null. Parts are joined as lines. An absent field is no conversation.
func (f *Fields) Messages(name string) []Message {
	objects := f.Objects(name)
	if len(objects) > maxMessages {
		f.Fail(BadField(name, "found %d messages, expected at most %d", len(objects), maxMessages))
		return nil
	}
	var all []Message
	for i, o := range objects {
		m := Message{Role: Choice(o, "role", "", roles, "system, developer, user or assistant"), Content: o.content("content")}
		if m.Role == "" && o.err == nil {
			o.Fail(BadField("role", "missing, expected system, developer, user or assistant"))
		}
		if o.Filled("tool_calls") {
			o.Fail(BadField("tool_calls", "found calls, expected none: tools are not supported"))
		}
		if o.err != nil {
			f.Fail(BadField(name, "element %d: %s", i, o.err))
			return nil
		}
		all = append(all, m)
	}
	return all
}

// Converse returns a request for m's answer to a conversation. What the client wants of it, its length first, is for the caller to add; Stop and
// StopIDs hold what ends the answers of this model.
func (m Model) Converse(messages []Message) (infer.Request, error) {
	if m.Chat == nil {
		return infer.Request{}, Errorf(http.StatusNotImplemented, Unsupported, "model", "no_chat", "model %q: cannot converse, expected a model with a chat template", m.ID)
	}
	p, stops, err := m.Chat.Prompt(messages)
	if err != nil {
		var own *Error
		if errors.As(err, &own) {
			return infer.Request{}, err
		}
		// The template is the model's: what it does not accept is the client's mistake.
		return infer.Request{}, BadField("messages", "%s", err)
	}
	return infer.Request{Prompt: p, Stop: stops, StopIDs: m.Chat.StopIDs(), Class: infer.Chat}, nil
}

// content reads a text, or parts that are texts.
func (f *Fields) content(name string) string {
	raw, ok := f.Get(name)
	if !ok || KindOf(raw) == "a string" {
		return f.Text(name, "")
	}
	if KindOf(raw) != "an array" {
		f.Wrong(name, raw, "a string or an array of text parts")
		return ""
	}
	var texts []string
	for i, part := range f.Objects(name) {
		if kind := part.Text("type", "text"); kind != "text" && part.err == nil {
			f.Fail(BadField(name, "part %d: found a part that is no text, expected only parts of type text", i))
		}
		if _, ok := part.Get("text"); !ok {
			part.Fail(BadField("text", "missing, expected a string"))
		}
		texts = append(texts, part.Text("text", ""))
		if part.err != nil {
			f.Fail(BadField(name, "part %d: %s", i, part.err))
		}
	}
	return strings.Join(texts, "\n")
}

// Filled says whether a field is something other than null and the empty array.
func (f *Fields) Filled(name string) bool {
	raw, ok := f.Get(name)
	var all []json.RawMessage
	return ok && (json.Unmarshal(raw, &all) != nil || len(all) > 0)
}
