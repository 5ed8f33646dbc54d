package wire

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// Framing is how the parts of a stream are told apart.
type Framing uint8

const (
	SSE    Framing = iota // server-sent events: "data: ", JSON on one line, an empty line
	NDJSON                // a JSON object on each line
	Raw                   // text as it is
)

// Stream is an answer that is sent part by part. Every part reaches the client at once.
type Stream struct {
	c       *Call
	framing Framing
	started bool
}

// Stream returns the call's stream, whose header is sent with the first part; until then the call may still fail with a status of its own.
// contentType is for Raw; the others have their own when it is "".
func (c *Call) Stream(f Framing, contentType string) *Stream {
	if contentType == "" {
		contentType = [...]string{SSE: "text/event-stream", NDJSON: "application/x-ndjson", Raw: "text/plain; charset=utf-8"}[f]
	}
	c.W.Header().Set("Content-Type", contentType)
	c.stream = &Stream{c: c, framing: f}
	c.Record.Stream = true
	return c.stream
}

// Send sends v: encoded as JSON, or as it is when it is Verbatim.
func (s *Stream) Send(v any) error {
	var b strings.Builder
	if s.framing == SSE {
		b.WriteString("data: ")
	}
	if text, ok := v.(Verbatim); ok {
		b.WriteString(string(text))
		if s.framing != Raw {
			b.WriteString("\n")
		}
	} else {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	if s.framing == SSE {
		b.WriteString("\n")
	}
	return s.write(b.String())
}

// Verbatim is a part of a stream that is not JSON.
type Verbatim string

// Done is how OpenAI's streams end.
const Done Verbatim = "[DONE]"

func (s *Stream) write(text string) error {
	w := s.c.W
	control := http.NewResponseController(w)
	if !s.started {
		s.started = true
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // proxies that collect answers would hold the stream back
		w.WriteHeader(http.StatusOK)
	}
	// A client that stops reading must not hold the engine.
	_ = control.SetWriteDeadline(time.Now().Add(s.c.limits.StallTimeout))
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return control.Flush()
}

// fault ends a stream with an error. A stream of plain text has no form for one: its connection is cut, so that nobody takes half an answer
// for a whole one.
func (s *Stream) fault(p *Protocol, e *Error) {
	if s.framing == Raw {
		panic(http.ErrAbortHandler)
	}
	fault := OpenAIFault
	if p != nil && p.Fault != nil {
		fault = p.Fault
	}
	_ = s.Send(fault(e))
}
