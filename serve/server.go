package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"autodev/infer"
)

// Engine generates completions: *infer.Engine, or a stand-in. Its methods may be called from any goroutine.
type Engine interface {
	Info() infer.Info
	// Complete generates a completion for every request and calls emit, unless it is nil, with the chunks of request i,
	// one call at a time.
	Complete(ctx context.Context, reqs []infer.Request, emit func(i int, c infer.Chunk) error) ([]infer.Result, error)
	Decode(ids []int32) string
	TokenText(id int32) []byte
}

// Options of a Server. Zero values take the defaults.
type Options struct {
	Model        string      // id of the model, as clients see it
	Order        infer.Order // of prompts with a suffix
	Speculate    infer.Speculate
	Created      time.Time     // of the model; zero: the server's start
	Logger       *slog.Logger  // nil: no log
	MaxBody      int64         // bytes of a request: 8 MiB
	BodyTimeout  time.Duration // for a request's body to arrive: 30 s
	StallTimeout time.Duration // for a client to take an answer, or an event of a stream: 30 s
	Grace        time.Duration // for requests under way when the server is asked to stop: 10 s
}

// Server answers HTTP requests with an Engine.
type Server struct {
	engine Engine
	o      Options
	mux    *http.ServeMux
}

// New returns a server of engine.
func New(engine Engine, o Options) *Server {
	if o.Model == "" {
		o.Model = "default"
	}
	if o.Created.IsZero() {
		o.Created = time.Now()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 8 << 20
	}
	for _, d := range []struct {
		field   *time.Duration
		seconds time.Duration
	}{{&o.BodyTimeout, 30}, {&o.StallTimeout, 30}, {&o.Grace, 10}} {
		if *d.field <= 0 {
			*d.field = d.seconds * time.Second
		}
	}
	s := &Server{engine: engine, o: o, mux: http.NewServeMux()}
	s.route("/v1/completions", methods{http.MethodPost: s.completions})
	s.route("/v1/models", methods{http.MethodGet: s.models})
	s.route("/v1/models/{id...}", methods{http.MethodGet: s.model})
	s.route("/healthz", methods{http.MethodGet: s.health})
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		newError(http.StatusNotFound, typeInvalid, "", "not_found", "%s %s: no such route", r.Method, r.URL.Path).write(w)
	})
	return s
}

type methods map[string]http.HandlerFunc

// route adds a path with its methods; others are answered with 405 in the protocol's own form.
func (s *Server) route(path string, m methods) {
	var allowed []string
	for method := range m {
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if h, ok := m[method]; ok {
			h(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		newError(http.StatusMethodNotAllowed, typeInvalid, "", "method_not_allowed", "%s %s: expected %s", r.Method, r.URL.Path, strings.Join(allowed, " or ")).write(w)
	})
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) card() modelCard {
	i := s.engine.Info()
	return modelCard{
		ID: s.o.Model, Object: "model", Created: s.o.Created.Unix(), OwnedBy: "autodev", MaxModelLen: i.Context,
		Meta: modelMeta{ContextTrained: i.Context, Vocab: i.Vocab, Parameters: i.Parameters, FIM: i.FIM},
	}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, modelList{Object: "list", Data: []modelCard{s.card()}})
}

func (s *Server) model(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); id != s.o.Model {
		newError(http.StatusNotFound, typeInvalid, "model", "model_not_found", "model %q: not served here, expected %q", id, s.o.Model).write(w)
		return
	}
	writeJSON(w, http.StatusOK, s.card())
}

// record is what the log says about a request beyond method, path and time.
type record struct {
	http.ResponseWriter
	stall  time.Duration // for the client to take an answer
	status int
	attrs  []any
	Err    error
}

func (r *record) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	// A client that does not read must not keep its connection for ever. A stream sets a deadline of its own for each event.
	_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(r.stall))
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap gives http.ResponseController the connection.
func (r *record) Unwrap() http.ResponseWriter { return r.ResponseWriter }

type recordKey struct{}

// logged returns the record of a request that came through Handler.
func logged(r *http.Request) *record { return r.Context().Value(recordKey{}).(*record) }

// Handler returns the server's routes with the request log, and with panics turned into a 500 and a log entry.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		var random [8]byte
		rand.Read(random[:]) // never fails
		id := hex.EncodeToString(random[:])
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// The answer before this request has left its deadline on the connection.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		l := &record{ResponseWriter: w, stall: s.o.StallTimeout}
		defer func() {
			failure := recover()
			begun := l.status != 0
			if failure != nil && failure != http.ErrAbortHandler {
				s.o.Logger.Error("panic", "request", id, "path", r.URL.Path, "panic", fmt.Sprint(failure), "stack", string(debug.Stack()))
				if !begun {
					newError(http.StatusInternalServerError, typeServer, "", "internal_error", "internal error, request %s", id).write(l)
				}
			}
			attrs := append([]any{"request", id, "method", r.Method, "path", r.URL.Path, "status", l.status, "took", time.Since(began)}, l.attrs...)
			level := slog.LevelInfo
			if l.Err != nil {
				attrs = append(attrs, "error", l.Err.Error())
			}
			if l.status >= http.StatusInternalServerError {
				level = slog.LevelError
			}
			s.o.Logger.Log(context.WithoutCancel(r.Context()), level, "request", attrs...)
			if failure != nil && begun {
				panic(http.ErrAbortHandler) // closes the connection: what was sent is half an answer
			}
		}()
		s.mux.ServeHTTP(l, r.WithContext(context.WithValue(r.Context(), recordKey{}, l)))
	})
}

// Listen opens addr ("127.0.0.1:8000"; port 0 takes any).
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen %s: the port is in use by another program, expected a free one", addr)
	}
	return l, err
}

// Serve answers the connections of l until ctx ends. Then it takes no more, gives the requests under way Options.Grace to
// finish, cancels those that have not, and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errShutdown)
	h := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, stop := context.WithTimeout(base, s.o.Grace)
	defer stop()
	err := h.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		cancel(errShutdown)
		// Cancelled completions end within one kernel; their clients are told why.
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		if err = h.Shutdown(last); err != nil {
			err = h.Close()
		}
	}
	<-done
	return err
}
