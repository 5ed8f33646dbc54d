package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"autodev/serve/wire"
)

// writer notes what is answered.
type writer struct {
	http.ResponseWriter
	stall  time.Duration // for the client to take an answer
	status int
	call   *wire.Call // nil until the router has seen the request
}

func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	// A client that does not read must not keep its connection for ever. A stream sets a deadline of its own for each event.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.stall))
	w.ResponseWriter.WriteHeader(status)
}

// Write notes the status that an answer without WriteHeader has.
func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type writerKey struct{}

// logged returns the writer of a request that came through Handler.
func logged(r *http.Request) *writer { return r.Context().Value(writerKey{}).(*writer) }

// Handler returns the server's routes with the request log, and with panics turned into a 500 and a log entry.
func (s *Server) Handler() http.Handler {
	var inner http.Handler = s.router.mux
	if s.o.Wrap != nil {
		inner = s.o.Wrap(inner)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := requestID(r)
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		control := http.NewResponseController(w)
		// The answer before this request has left its deadline on the connection.
		_ = control.SetWriteDeadline(time.Time{})
		if r.ContentLength != 0 {
			// net/http waits for the rest of a body that nobody has read. Who reads it, sets another.
			_ = control.SetReadDeadline(time.Now().Add(s.o.BodyTimeout))
		}
		l := &writer{ResponseWriter: w, stall: s.o.StallTimeout}
		defer func() {
			failure := recover()
			begun := l.status != 0
			if failure != nil && failure != http.ErrAbortHandler {
				s.o.Logger.Error("panic", "request", id, "path", r.URL.Path, "panic", fmt.Sprint(failure), "stack", string(debug.Stack()))
				if !begun {
					wire.WriteError(l, nil, wire.Errorf(http.StatusInternalServerError, wire.Fault, "", "internal_error", "internal error, request %s", id))
				}
			}
			record := wire.Record{Method: r.Method}
			if l.call != nil {
				record = l.call.Record
			}
			record.Took = time.Since(began)
			if record.Status == 0 {
				record.Status = l.status
			}
			s.log(r, id, &record)
			if s.o.Observe != nil {
				s.o.Observe(record)
			}
			if failure != nil && begun {
				panic(http.ErrAbortHandler) // closes the connection: what was sent is half an answer
			}
		}()
		inner.ServeHTTP(l, r.WithContext(context.WithValue(r.Context(), writerKey{}, l)))
	})
}

// requestID returns the id that a proxy has given a request, if it looks like one, or a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	ok := len(id) >= 8 && len(id) <= 64
	for _, c := range []byte(id) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_')
	}
	if ok {
		return id
	}
	var random [8]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// maxLogged bounds what a line says in a client's words.
const maxLogged = 500

// cut shortens what a client may have made as long as it liked.
func cut(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return strings.ToValidUTF8(s[:maxLogged], "") + "…"
}

// looks are the protocols by which somebody looks every few seconds at how the server is.
var looks = map[string]bool{"probe": true, "metrics": true, "page": true}

// log writes the line of a request; that of a look that found all well is for debugging.
func (s *Server) log(r *http.Request, id string, c *wire.Record) {
	attrs := []any{"request", id, "method", cut(r.Method), "path", cut(r.URL.Path), "status", c.Status, "took", c.Took}
	for _, a := range []struct{ name, value string }{{"protocol", c.Protocol}, {"client", c.Client}, {"model", c.Model}, {"adapter", c.Adapter}} {
		if a.value != "" {
			attrs = append(attrs, a.name, a.value)
		}
	}
	for i, res := range c.Results {
		attrs = append(attrs, slog.Group(fmt.Sprintf("completion%d", i),
			"prompt_tokens", len(res.PromptIDs), "cached", res.Cached, "tokens", len(res.IDs), "drafted", res.Drafted, "accepted", res.Accepted, "finish", string(res.FinishReason), "shortened", res.Shortened,
			"queue", res.Timings.Queue, "prompt", res.Timings.Prompt, "decode", res.Timings.Decode))
	}
	level := slog.LevelInfo
	if c.Err != nil {
		attrs = append(attrs, "error", cut(c.Err.Error()))
	}
	switch {
	case c.Status >= http.StatusInternalServerError:
		level = slog.LevelError
	case looks[c.Protocol] && c.Err == nil:
		level = slog.LevelDebug
	}
	s.o.Logger.Log(context.WithoutCancel(r.Context()), level, "request", attrs...)
}
