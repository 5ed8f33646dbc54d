package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"autodev/serve/wire"
)

// Loaded is a model made ready to be served.
type Loaded struct {
	Model    wire.Model
	Adapters AdapterEngine // nil: it takes none
	Close    func()
}

// AdapterEngine takes LoRA adapters while it runs.
type AdapterEngine interface {
	// LoadAdapter reads a PEFT folder and gives it a name, which may be taken: then requests from now on get the new one.
	LoadAdapter(ctx context.Context, name, dir string) error
	// UnloadAdapter ends a name; requests that use it go on to their end.
	UnloadAdapter(name string) error
}

// Adapter is a LoRA adapter that is served as a model of its name.
type Adapter struct {
	Name   string    `json:"name"`
	Path   string    `json:"path"`
	Loaded time.Time `json:"loaded"`
}

// Manager exchanges the base model and its adapters while requests go on. It is safe for use by any number of goroutines.
type Manager struct {
	models *Registry
	open   func(context.Context) (Loaded, error)

	mu       sync.Mutex // held while anything is loaded
	base     Loaded
	adapters []Adapter
}

// NewManager loads the model that open opens and puts it into models.
func NewManager(ctx context.Context, models *Registry, open func(context.Context) (Loaded, error)) (*Manager, error) {
	m := &Manager{models: models, open: open}
	return m, m.Reload(ctx)
}

// Reload opens the model again, with the adapters there are, and serves it in place of the one before, which goes when its last request has
// ended: so both are in memory for a while. When anything fails, all stays as it was.
func (m *Manager) Reload(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, err := m.open(ctx)
	if err != nil {
		return err
	}
	served := []wire.Model{l.Model}
	for _, a := range m.adapters {
		if l.Adapters == nil {
			err = errNoAdapters
		} else {
			err = l.Adapters.LoadAdapter(ctx, a.Name, a.Path)
		}
		if err != nil {
			if l.Close != nil {
				l.Close()
			}
			return fmt.Errorf("adapter %s: %w", a.Name, err)
		}
		served = append(served, adapted(l.Model, a))
	}
	m.base = l
	m.models.Put(served, l.Close)
	return nil
}

var errNoAdapters = errors.New("this model takes no adapters while it runs")

// UnknownAdapterError says that no adapter of the name is loaded.
type UnknownAdapterError struct{ Name string }

func (e *UnknownAdapterError) Error() string {
	return fmt.Sprintf("adapter %q: not loaded", e.Name)
}

func adapted(base wire.Model, a Adapter) wire.Model {
	base.ID, base.Adapter, base.Path, base.Created = a.Name, a.Name, a.Path, a.Loaded
	return base
}

// LoadAdapter serves the adapter of a PEFT folder as a model of the given name. One of the name is replaced.
func (m *Manager) LoadAdapter(ctx context.Context, name, dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case name == "":
		return errors.New("adapter: found an empty name, expected at least one character")
	case name == m.base.Model.ID:
		return fmt.Errorf("adapter %q: found the model's own name, expected another", name)
	case m.base.Adapters == nil:
		return errNoAdapters
	}
	if err := m.base.Adapters.LoadAdapter(ctx, name, dir); err != nil {
		return fmt.Errorf("adapter %s: %w", name, err)
	}
	a := Adapter{name, dir, time.Now()}
	if i := m.index(name); i >= 0 {
		m.adapters[i] = a
	} else {
		m.adapters = append(m.adapters, a)
	}
	return m.models.Join(m.base.Model.ID, adapted(m.base.Model, a))
}

func (m *Manager) index(name string) int {
	return slices.IndexFunc(m.adapters, func(a Adapter) bool { return a.Name == name })
}

// UnloadAdapter serves the adapter no longer.
func (m *Manager) UnloadAdapter(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.index(name)
	if i < 0 {
		return &UnknownAdapterError{name}
	}
	m.models.Remove(name)
	m.adapters = slices.Delete(m.adapters, i, i+1)
	return m.base.Adapters.UnloadAdapter(name)
}

// Adapters lists the adapters there are, in the order in which they were loaded first.
func (m *Manager) Adapters() []Adapter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.adapters)
}
