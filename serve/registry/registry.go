package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"autodev/serve/wire"
)

// Registry holds the models a server has, which may change while it runs: a model that was replaced or removed stays until the last
// request that uses it has ended. It is a wire.Service, safe for use by any number of goroutines.
type Registry struct {
	strict bool

	mu     sync.Mutex
	all    []entry
	groups []*group // that are not closed
}

type entry struct {
	wire.Model
	group *group
}

// group is what models that share an engine share. Its fields are guarded by Registry.mu.
type group struct {
	listed int // models
	users  int // requests
	close  func()
}

// New returns a server's models, none yet. strict turns away names that none has, which otherwise mean the first.
func New(strict bool) *Registry { return &Registry{strict: strict} }

// unlock closes the groups that nobody needs any more.
func (s *Registry) unlock() {
	var over []*group
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool {
		if g.listed > 0 || g.users > 0 {
			return false
		}
		over = append(over, g)
		return true
	})
	s.mu.Unlock()
	for _, g := range over {
		if g.close != nil {
			g.close()
		}
	}
}

// Close takes all models off the list; each is given back when its last request has ended.
func (s *Registry) Close() {
	s.mu.Lock()
	defer s.unlock()
	for _, e := range s.all {
		e.group.listed--
	}
	s.all = nil
}

// Put adds models that share what close gives back, in the place of those of the same ids. close is called once, when none of them is listed or
// used any more.
func (s *Registry) Put(models []wire.Model, close func()) {
	s.mu.Lock()
	defer s.unlock()
	g := &group{close: close}
	s.groups = append(s.groups, g)
	for _, m := range models {
		g.listed++
		i := slices.IndexFunc(s.all, func(e entry) bool { return e.ID == m.ID })
		if i < 0 {
			s.all = append(s.all, entry{m, g})
			continue
		}
		s.all[i].group.listed--
		s.all[i] = entry{m, g}
	}
}

// Join adds a model, or replaces the one of its id, that shares the engine of another.
func (s *Registry) Join(with string, m wire.Model) error {
	s.mu.Lock()
	defer s.unlock()
	i := slices.IndexFunc(s.all, func(e entry) bool { return e.ID == with })
	if i < 0 {
		return fmt.Errorf("model %q: not served here", with)
	}
	g := s.all[i].group
	g.listed++
	if j := slices.IndexFunc(s.all, func(e entry) bool { return e.ID == m.ID }); j >= 0 {
		s.all[j].group.listed--
		s.all[j] = entry{m, g}
		return nil
	}
	s.all = append(s.all, entry{m, g})
	return nil
}

// Remove takes a model off the list and says whether it was there. The last one stays.
func (s *Registry) Remove(id string) bool {
	s.mu.Lock()
	defer s.unlock()
	i := slices.IndexFunc(s.all, func(e entry) bool { return e.ID == id })
	if i < 0 || len(s.all) == 1 {
		return false
	}
	s.all[i].group.listed--
	s.all = slices.Delete(s.all, i, i+1)
	return true
}

// Models implements wire.Service.
func (s *Registry) Models() []wire.Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]wire.Model, len(s.all))
	for i, e := range s.all {
		all[i] = e.Model
	}
	return all
}

// Use implements wire.Service. Names are compared without the tag ":latest" that Ollama's clients add.
func (s *Registry) Use(name string) (wire.Model, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		e := wire.Errorf(http.StatusServiceUnavailable, wire.Overload, "", "loading", "no model is loaded yet")
		return wire.Model{}, nil, e
	}
	name = strings.TrimSuffix(name, ":latest")
	i := slices.IndexFunc(s.all, func(e entry) bool { return e.ID == name })
	if i < 0 {
		if s.strict && name != "" {
			return wire.Model{}, nil, wire.Errorf(http.StatusNotFound, wire.Invalid, "model", "model_not_found", "model %.100q: not served here, expected one of those that /v1/models lists", name)
		}
		i = 0
	}
	e := s.all[i]
	e.group.users++
	var once sync.Once
	return e.Model, func() {
		once.Do(func() {
			s.mu.Lock()
			e.group.users--
			s.unlock()
		})
	}, nil
}
