package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"autodev/serve/guard"
	"autodev/serve/wire"
)

// Options of a Server. Zero values take the defaults.
type Options struct {
	Logger *slog.Logger // nil: no log
	wire.Limits
	// Announce is how long a server that is asked to stop goes on as before, but for /readyz, which says that it will: time for a balancer
	// to send requests elsewhere. 0: none.
	Announce time.Duration
	Grace    time.Duration // after that, for requests under way: 10 s

	// Protocols are what the server speaks, in order: nil is Protocols().
	Protocols []*wire.Protocol
	// Guard decides whether a call may go on, and sets its Record.Client, once it is known in which protocol a refusal has to be put. It returns
	// what is called when the call has ended, which may be nil.
	Guard func(*wire.Call) (done func(), err error)
	// Wrap goes around everything but the log: what does not depend on the protocol.
	Wrap func(http.Handler) http.Handler
	// Remember gets what was completed, for events that name it later.
	Remember func(*wire.Call, wire.Suggestion)
	// Observe gets the record of every call that has ended.
	Observe func(wire.Record)
}

// Server answers HTTP requests.
type Server struct {
	service  wire.Service
	o        Options
	router   *router
	draining atomic.Bool
}

// New returns a server of the models of service.
func New(service wire.Service, o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 8 << 20
	}
	if o.Room == nil {
		o.Room = wire.NewRoom(longBodies * o.MaxBody)
	}
	for _, d := range []struct {
		field   *time.Duration
		seconds time.Duration
	}{{&o.BodyTimeout, 30}, {&o.StallTimeout, 30}, {&o.Grace, 10}} {
		if *d.field <= 0 {
			*d.field = d.seconds * time.Second
		}
	}
	if o.Protocols == nil {
		o.Protocols = Protocols()
	}
	s := &Server{service: service, o: o}
	s.router = newRouter(append([]*wire.Protocol{s.probes()}, o.Protocols...), s.answer)
	return s
}

// longBodies is how many bodies of the greatest length there may be at a time.
const longBodies = 64

// refusedBody is what may be read of a body that will not be answered.
const refusedBody = 16 << 10

// answer has a call answered by the handler that choose finds.
// The guard comes before choose, which may read the body: of somebody who may not come in no more is read than tells the form of the refusal.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, path string, first handler, choose func(*wire.Call) (handler, error)) {
	c := wire.NewCall(w, r, s.service, s.o.Limits)
	defer c.End()
	l := logged(r)
	l.call = c
	c.Record.Route, c.Record.Method = path, r.Method
	c.Remember = s.o.Remember
	var err error
	if first.protocol != nil {
		c.Record.Protocol, c.Admin = first.protocol.Name, first.Admin
		if s.o.Guard != nil {
			var done func()
			if done, err = s.o.Guard(c); done != nil {
				defer done()
			}
		}
	}
	if err != nil {
		c.Bound(refusedBody)
	}
	h, unknown := choose(c)
	if h.protocol != nil {
		c.Record.Protocol = h.protocol.Name
	}
	switch {
	case err != nil:
	case unknown != nil:
		err = unknown
	default:
		err = h.Handle(c)
	}
	c.Finish(h.protocol, err)
}

// probes are the routes by which a supervisor sees how the server is.
func (s *Server) probes() *wire.Protocol {
	return &wire.Protocol{Name: "probe", Fault: wire.OpenAIFault, Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/healthz", Handle: func(c *wire.Call) error { return c.JSON(map[string]string{"status": "ok"}) }},
		{Method: http.MethodGet, Path: "/readyz", Handle: func(c *wire.Call) error {
			if s.draining.Load() {
				return wire.ErrShutdown
			}
			_, release, err := c.Service.Use("")
			if err != nil {
				return err
			}
			release()
			return c.JSON(map[string]string{"status": "ready"})
		}},
	}}
}

// Listen opens addr, as guard.Listen does: "127.0.0.1:8000" (port 0 takes any) or "unix:PATH".
func Listen(ctx context.Context, addr string) (net.Listener, error) { return guard.Listen(ctx, addr) }

// Serve answers the connections of the listeners until ctx ends. Then, after Options.Announce, it takes no more, gives the requests under way
// Options.Grace to finish, cancels those that have not, and returns nil.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(wire.ErrShutdown)
	h := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// net/http would answer OPTIONS * by itself, and wait for a body as long as its client likes.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelWarn),
	}
	done := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			err := h.Serve(l)
			if !errors.Is(err, http.ErrServerClosed) {
				err = fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			done <- err
		}()
	}
	running := len(listeners)
	var failure error
	select {
	case failure = <-done:
		running--
	case <-ctx.Done():
	}
	s.draining.Store(true)
	if s.o.Announce > 0 && failure == nil {
		select {
		case failure = <-done:
			running--
		case <-time.After(s.o.Announce):
		}
	}
	grace, stop := context.WithTimeout(base, s.o.Grace)
	defer stop()
	err := h.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		cancel(wire.ErrShutdown)
		// Cancelled completions end within one kernel; their clients are told why.
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		if err = h.Shutdown(last); err != nil {
			err = h.Close()
		}
	}
	for range running {
		<-done
	}
	if failure != nil {
		return failure
	}
	return err
}
