package assist

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"autodev/configs"
)

// LocalBackend is the name of the backend that is this process.
const LocalBackend = "local"

// Service is the functions and backends of a configuration. It is immutable and safe for concurrent use.
type Service struct {
	functions *Functions
	config    configs.Assist
	external  map[string]*External
}

// Open makes a Service of a configuration. With localOnly, or where the configuration says so, a backend elsewhere is a mistake: nothing that could
// open a connection is made.
func Open(c configs.Assist, localOnly bool) (*Service, error) { return open(c, localOnly, nil) }

func open(c configs.Assist, localOnly bool, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Service, error) {
	functions, err := Builtin(c.Functions)
	if err != nil {
		return nil, err
	}
	s := &Service{functions: functions, config: c, external: map[string]*External{}}
	known := []string{LocalBackend}
	names := make([]string, 0, len(c.Backends))
	for _, b := range c.Backends {
		names = append(names, b.Name)
	}
	if (localOnly || c.LocalOnly) && len(names) > 0 {
		return nil, fmt.Errorf("backends: found %s, expected none: only local models may be used", strings.Join(names, ", "))
	}
	for _, b := range c.Backends {
		e, err := newExternal(b.Name, b, dial)
		if err != nil {
			return nil, err
		}
		s.external[b.Name], known = e, append(known, b.Name)
	}
	for _, f := range functions.All() {
		if name := s.backendOf(f); !slices.Contains(known, name) {
			return nil, fmt.Errorf("function %s: backend: found %s, expected one of %s", f.Name, name, strings.Join(known, ", "))
		}
	}
	for _, u := range c.Use {
		if functions.Get(u.Function) == nil {
			return nil, fmt.Errorf("use: found the function %s, expected one of %s", u.Function, strings.Join(s.names(), ", "))
		}
	}
	return s, nil
}

// Warn logs what is worth knowing of the configuration.
func (s *Service) Warn(log *slog.Logger) {
	for _, b := range s.config.Backends {
		s.external[b.Name].WarnPlain(log)
	}
}

func (s *Service) names() []string {
	var out []string
	for _, f := range s.functions.All() {
		out = append(out, f.Name)
	}
	return out
}

// backendOf returns the name of the backend that a function uses: what the configuration says for it, or its own choice, or the configuration's
// default.
func (s *Service) backendOf(f *Function) string {
	for _, u := range s.config.Use {
		if u.Function == f.Name {
			return u.Backend
		}
	}
	if f.Backend != "" {
		return f.Backend
	}
	if s.config.Default != "" {
		return s.config.Default
	}
	return LocalBackend
}

// List describes the functions.
func (s *Service) List() []Info {
	var out []Info
	for _, f := range s.functions.All() {
		out = append(out, Info{f.Name, f.Title, f.Output, f.Place, s.backendOf(f)})
	}
	return out
}

// Function returns a function; nil when there is none of the name.
func (s *Service) Function(name string) *Function { return s.functions.Get(name) }

// Backend returns what answers f: the backend of the given name, or the function's when it is "". local makes the backend of this process, when it is
// that one.
func (s *Service) Backend(f *Function, name string, local func() (Backend, error)) (Backend, error) {
	if name == "" {
		name = s.backendOf(f)
	}
	if name == LocalBackend {
		return local()
	}
	if e, ok := s.external[name]; ok {
		return e, nil
	}
	known := []string{LocalBackend}
	for _, b := range s.config.Backends {
		known = append(known, b.Name)
	}
	return nil, &InvalidError{"backend", fmt.Sprintf("found %.80q, expected one of %s", name, strings.Join(known, ", "))}
}
