package tabby

import (
	"math"
	"net/http"

	"autodev/serve/wire"
)

// Event is what happened to a suggestion.
type Event struct {
	Type         string // "view", "select" or "dismiss"
	CompletionID string
	Choice       int
	View         string // "" where the client counts no views
	ElapsedMS    int    // from its being shown; −1: not said
	Line         bool   // only a line of it was taken
	Client       string // of wire.Record
}

// Recorder keeps events.
type Recorder interface {
	Record(Event) error
}

// nobody keeps none.
type nobody struct{}

func (nobody) Record(Event) error { return nil }

// kinds of events.
var kinds = map[string]string{"view": "view", "select": "select", "dismiss": "dismiss"}

// events answers POST /v1/events.
func events(c *wire.Call, recorder Recorder) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	e, err := parseEvent(f)
	if err != nil {
		return err
	}
	e.Line = e.Type == "select" && c.R.URL.Query().Get("select_kind") == "line"
	e.Client = c.Record.Client
	if err := recorder.Record(e); err != nil {
		return err
	}
	c.W.WriteHeader(http.StatusOK)
	return nil
}

func parseEvent(f *wire.Fields) (Event, error) {
	for _, name := range []string{"type", "completion_id"} {
		if f.Text(name, "") == "" {
			f.Fail(wire.BadField(name, "missing, expected a string"))
		}
	}
	e := Event{
		Type:         wire.Choice(f, "type", "", kinds, "view, select or dismiss"),
		CompletionID: f.Text("completion_id", ""),
		Choice:       f.Whole("choice_index", 0, 0, math.MaxInt32),
		View:         f.Text("view_id", ""),
		ElapsedMS:    f.Whole("elapsed", -1, 0, math.MaxInt32),
	}
	return e, f.Err()
}
