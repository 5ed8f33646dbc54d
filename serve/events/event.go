package events

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Type is what became of a suggestion.
type Type string

// What editors report, in Tabby's words.
const (
	View    Type = "view"
	Select  Type = "select"
	Dismiss Type = "dismiss"
)

// Event is a report of an editor. Its texts are no code.
type Event struct {
	Type       Type
	Completion string        // id
	Choice     int           // of the completion
	View       string        // id of the showing; "" is allowed
	Kind       string        // how much was taken: "line" or ""
	Elapsed    time.Duration // since it was shown; 0: not said
	Client     string        // name of the API key
}

// InvalidError says that an event cannot be kept.
type InvalidError struct{ Field, Message string }

func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// check refuses what cannot be a report.
func (e *Event) check() error {
	switch {
	case e.Type != View && e.Type != Select && e.Type != Dismiss:
		return &InvalidError{"type", fmt.Sprintf("found %.40q, expected %s, %s or %s", e.Type, View, Select, Dismiss)}
	case !plainID(e.Completion) || e.Completion == "":
		return &InvalidError{"completion_id", "expected 1 to 128 letters, digits, dashes, dots, colons and underscores"}
	case !plainID(e.View):
		return &InvalidError{"view_id", "expected at most 128 letters, digits, dashes, dots, colons and underscores"}
	case e.Kind != "" && e.Kind != "line":
		return &InvalidError{"select_kind", fmt.Sprintf("found %.40q, expected line or nothing", e.Kind)}
	case e.Choice < 0 || e.Choice > 1<<16:
		return &InvalidError{"choice_index", fmt.Sprintf("found %d, expected 0 or more", e.Choice)}
	case e.Elapsed < 0 || e.Elapsed > 1000*time.Hour:
		return &InvalidError{"elapsed", "expected milliseconds, 0 or more"}
	}
	return nil
}

// plainID keeps text of users, which a client may put anywhere, out of ids.
func plainID(s string) bool {
	return len(s) <= 128 && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:", r))
	}) < 0
}

// Completion is what was suggested.
type Completion struct {
	ID             string // as the client knows it
	Model, Adapter string
	Language       string
	Path           string   // of the file in its project; "" when unknown
	Client         string   // who may report on it: the name of the API key
	Prefix, Suffix string   // around the cursor; kept only with Options.Content
	Choices        []string // the suggestions; likewise
}

// Line is what is stored. Fields are named as package data/source reads them.
type Line struct {
	Time       time.Time `json:"time"`
	Type       Type      `json:"type"`
	Completion string    `json:"completion_id"`
	Choice     int       `json:"choice_index"`
	View       string    `json:"view_id,omitempty"`
	Kind       string    `json:"select_kind,omitempty"`
	Elapsed    int64     `json:"elapsed_ms,omitempty"`
	Client     string    `json:"client,omitempty"`
	Model      string    `json:"model,omitempty"`
	Adapter    string    `json:"adapter,omitempty"`
	Language   string    `json:"language,omitempty"`
	Path       string    `json:"path,omitempty"`
	Prefix     string    `json:"prefix,omitempty"`
	Taken      string    `json:"completion,omitempty"`
	Suffix     string    `json:"suffix,omitempty"`
	Content    *string   `json:"content"` // a document to learn from, or null
}

// line joins an event with its completion.
func line(e Event, c *Completion, content bool, now time.Time) Line {
	l := Line{
		Time: now.UTC().Truncate(time.Millisecond), Type: e.Type, Completion: e.Completion, Choice: e.Choice, View: e.View, Kind: e.Kind,
		Elapsed: e.Elapsed.Milliseconds(), Client: e.Client, Model: c.Model, Adapter: c.Adapter, Language: c.Language,
	}
	if !content {
		return l
	}
	l.Path = c.Path // a name of the user's
	if e.Type == Select && e.Choice < len(c.Choices) {
		l.Prefix, l.Taken, l.Suffix = c.Prefix, taken(c.Choices[e.Choice], e.Kind), c.Suffix
		if whole := l.Prefix + l.Taken + l.Suffix; utf8.ValidString(whole) {
			l.Content = &whole
		}
	}
	return l
}

// taken returns what was taken of a suggestion: its first line that has text, or all.
func taken(suggestion, kind string) string {
	if kind != "line" {
		return suggestion
	}
	begin := len(suggestion) - len(strings.TrimLeft(suggestion, "\r\n"))
	if i := strings.IndexAny(suggestion[begin:], "\r\n"); i >= 0 {
		return suggestion[:begin+i]
	}
	return suggestion
}
