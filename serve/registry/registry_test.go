package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"autodev/infer"
	"autodev/serve/wire"
)

func ids(r *Registry) string {
	var all []string
	for _, m := range r.Models() {
		all = append(all, m.ID)
	}
	return strings.Join(all, " ")
}

// TestUse: names mean what they should, and what was replaced stays until its last user has left.
func TestUse(t *testing.T) {
	r := New(false)
	if _, _, err := r.Use(""); err == nil || wire.AsError(err).Status != 503 {
		t.Errorf("no model yet: %v", err)
	}
	closed := map[string]int{}
	put := func(name string, models ...wire.Model) { r.Put(models, func() { closed[name]++ }) }
	put("first", wire.Model{ID: "a", Path: "1"}, wire.Model{ID: "b", Path: "1"})
	for name, want := range map[string]string{"": "a", "a": "a", "b": "b", "b:latest": "b", "gpt-4": "a"} {
		m, release, err := r.Use(name)
		if err != nil || m.ID != want {
			t.Errorf("%q: %q, %v", name, m.ID, err)
		}
		release()
		release() // once too often does nothing
	}
	_, hold, _ := r.Use("a")
	put("second", wire.Model{ID: "a", Path: "2"}, wire.Model{ID: "b", Path: "2"})
	if closed["first"] != 0 {
		t.Error("a model in use was closed")
	}
	m, release, _ := r.Use("a")
	if m.Path != "2" || ids(r) != "a b" {
		t.Errorf("after the exchange: %q of %s", m.Path, ids(r))
	}
	hold()
	if closed["first"] != 1 {
		t.Errorf("closed %v", closed)
	}
	if err := r.Join("a", wire.Model{ID: "c", Path: "2"}); err != nil || ids(r) != "a b c" {
		t.Errorf("%s, %v", ids(r), err)
	}
	if err := r.Join("x", wire.Model{ID: "d"}); err == nil {
		t.Error("joined nobody")
	}
	if !r.Remove("b") || r.Remove("b") || ids(r) != "a c" {
		t.Error(ids(r))
	}
	r.Close()
	if closed["second"] != 0 {
		t.Error("closed in use")
	}
	release()
	if closed["second"] != 1 || closed["first"] != 1 {
		t.Errorf("closed %v", closed)
	}
	strict := New(true)
	strict.Put([]wire.Model{{ID: "a"}}, nil)
	if _, _, err := strict.Use("b"); wire.AsError(err).Status != 404 {
		t.Errorf("strict: %v", err)
	}
	if _, _, err := strict.Use(""); err != nil {
		t.Errorf("strict, default: %v", err)
	}
}

// TestUseConcurrently: whatever the order, each group is closed once, and after its last user.
func TestUseConcurrently(t *testing.T) {
	r := New(false)
	type state struct {
		mu            sync.Mutex
		users, closed int
	}
	var all []*state
	put := func() {
		s := &state{}
		all = append(all, s)
		r.Put([]wire.Model{{ID: "m", Chat: chat{s}}}, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closed++; s.users > 0 {
				t.Error("closed in use")
			}
		})
	}
	put()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				m, release, err := r.Use("m")
				if err != nil {
					t.Error(err)
					return
				}
				s := m.Chat.(chat).of.(*state)
				s.mu.Lock()
				if s.users++; s.closed > 0 {
					t.Error("used after its end")
				}
				s.users--
				s.mu.Unlock()
				release()
			}
		})
	}
	for range 50 {
		put()
	}
	wg.Wait()
	r.Close()
	for i, s := range all {
		if s.closed != 1 {
			t.Errorf("group %d was closed %d times", i, s.closed)
		}
	}
}

// chat carries a test's state in a model.
type chat struct{ of any }

func (chat) Prompt([]wire.Message) (p infer.Prompt, stops []string, err error) { return }
func (chat) Render([]wire.Message) (string, error)                             { return "", nil }
func (chat) Template() string                                                  { return "" }
func (chat) StopIDs() []int32                                                  { return nil }

// engine notes the adapters it is given.
type engine struct {
	loaded []string
	fail   string
}

func (e *engine) LoadAdapter(_ context.Context, name, dir string) error {
	if name == e.fail {
		return errors.New("no such shape")
	}
	e.loaded = append(slices.DeleteFunc(e.loaded, func(s string) bool { return strings.HasPrefix(s, name+"=") }), name+"="+dir)
	return nil
}

func (e *engine) UnloadAdapter(name string) error {
	e.loaded = slices.DeleteFunc(e.loaded, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	return nil
}

func TestManager(t *testing.T) {
	r := New(true)
	var engines []*engine
	closed, fail := 0, errors.New("the folder is gone")
	openErr := error(nil)
	failing := ""
	m, err := NewManager(t.Context(), r, func(context.Context) (Loaded, error) {
		e := &engine{fail: failing}
		engines = append(engines, e)
		return Loaded{Model: wire.Model{ID: "base"}, Adapters: e, Close: func() { closed++ }}, openErr
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"": "x", "base": "x"} {
		if m.LoadAdapter(t.Context(), name, dir) == nil {
			t.Errorf("adapter %q was taken", name)
		}
	}
	for _, name := range []string{"ruby", "go"} {
		if err := m.LoadAdapter(t.Context(), name, "dir/"+name); err != nil {
			t.Fatal(err)
		}
	}
	use, release, err := r.Use("ruby")
	if err != nil || use.Adapter != "ruby" || use.Path != "dir/ruby" {
		t.Errorf("%+v, %v", use, err)
	}
	if err := m.LoadAdapter(t.Context(), "ruby", "dir/other"); err != nil || len(m.Adapters()) != 2 || m.Adapters()[0].Path != "dir/other" {
		t.Errorf("%v %v", m.Adapters(), err)
	}
	if err := m.Reload(t.Context()); err != nil || ids(r) != "base ruby go" || closed != 0 {
		t.Errorf("reload: %v, %s, closed %d", err, ids(r), closed)
	}
	if got := strings.Join(engines[1].loaded, " "); got != "ruby=dir/other go=dir/go" {
		t.Errorf("the new engine has %s", got)
	}
	release()
	if closed != 1 {
		t.Errorf("closed %d", closed)
	}
	openErr = fail
	if err := m.Reload(t.Context()); !errors.Is(err, fail) || ids(r) != "base ruby go" {
		t.Errorf("failed reload: %v, %s", err, ids(r))
	}
	openErr, failing = nil, "go"
	if err := m.Reload(t.Context()); err == nil || closed != 2 || ids(r) != "base ruby go" {
		t.Errorf("failed adapter: %v, closed %d, %s", err, closed, ids(r))
	}
	if err := m.UnloadAdapter("ruby"); err != nil || ids(r) != "base go" || len(engines[1].loaded) != 1 {
		t.Errorf("%v %s %v", err, ids(r), engines[1].loaded)
	}
	var unknown *UnknownAdapterError
	if err := m.UnloadAdapter("ruby"); !errors.As(err, &unknown) {
		t.Error(err)
	}
}
