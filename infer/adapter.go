package infer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"autodev/compute/cpu/par"
	"autodev/lora"
)

// AdapterInfo describes a LoRA adapter that is loaded.
type AdapterInfo struct {
	Name    string
	Path    string // the PEFT folder it was read from
	Modules int    // linear modules of the model that it changes
	Rank    int    // the largest of them
	Bytes   int64  // of memory
	Users   int    // completions under way that it takes part in
}

// adapter is a LoRA adapter of a model in memory: y = W·x + b becomes W·x + b + s·B·(A·x) in some linear modules. The weights stay as they are, so
// that one pass can evaluate sequences with different adapters. It is immutable but for its users.
type adapter struct {
	AdapterInfo
	generation uint64 // from 1 on, another for each that is loaded
	pool       *par.Pool
	factors    map[*matrix]*lowRank
	users      atomic.Int64
	ended      atomic.Bool // its name is another's or nobody's
}

// kind tells keys and values apart that were evaluated with other adapters. nil is the model as it is.
func (a *adapter) kind() uint64 {
	if a == nil {
		return 0
	}
	return a.generation
}

// inPass is the adapter as passes see it.
func (a *adapter) inPass() spanAdapter {
	if a == nil {
		return nil
	}
	return a
}

func (a *adapter) adapts(w *matrix) bool { _, ok := a.factors[w]; return ok }

// add implements spanAdapter.
func (a *adapter) add(w *matrix, y, x []float32, n int) { a.factors[w].add(a.pool, y, x, n) }

// adapters are those of a model, by name.
type adapters struct {
	mu     sync.Mutex
	all    map[string]*adapter
	loaded uint64 // so far
}

// LoadAdapter reads a PEFT folder and gives it a name, under which requests may then ask for it. Beside float32 weights it is kept in
// float32, else in bfloat16. One that has the name already is replaced: requests that were made before go on with it. When anything
// fails, all stays as it was.
func (m *Model) LoadAdapter(ctx context.Context, name, dir string) error {
	_, err := m.loadAdapter(ctx, name, dir)
	return err
}

// loadAdapter returns the adapter that had the name before, nil if none had.
func (m *Model) loadAdapter(ctx context.Context, name, dir string) (before *adapter, err error) {
	if name == "" {
		return nil, &OptionError{"adapter", "found an empty name, expected at least one character"}
	}
	if m.card != nil {
		return nil, &OptionError{"adapter", "a model on a CUDA device takes none while it runs, expected one that is merged when the model is loaded"}
	}
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.end()
	read, err := lora.Load(dir, m.config)
	if err != nil {
		return nil, err
	}
	a := &adapter{AdapterInfo: AdapterInfo{Name: name, Path: dir}, pool: m.pool, factors: map[*matrix]*lowRank{}}
	for _, module := range read.Modules {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("load %s: %w", dir, err)
		}
		if err := a.pack(m, read, module); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	l := &m.adapters
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]*adapter{}
	}
	l.loaded++
	a.generation, before = l.loaded, l.all[name]
	if l.all[name] = a; before != nil {
		before.ended.Store(true)
	}
	return before, nil
}

// pack brings a module's factors into the kernels' order.
func (a *adapter) pack(m *Model, read *lora.Adapter, module lora.Module) error {
	var w *matrix
	for i := range m.program.steps {
		if st := &m.program.steps[i]; st.op == opLinear && st.weight.name == module.Name+".weight" {
			w = st.weight
		}
	}
	if w == nil {
		return fmt.Errorf("module %s: the model has none of this name", module.Name)
	}
	if w.in != module.In || w.out != module.Out {
		return fmt.Errorf("module %s: %d inputs and %d outputs, expected %d and %d", module.Name, module.In, module.Out, w.in, w.out)
	}
	f := newLowRank(m.pool, read.Data(module.A()), read.Data(module.B()), w.in, w.out, module.Rank, module.Scale, m.weights != Float32)
	a.factors[w] = f
	a.Modules++
	a.Rank = max(a.Rank, f.rank)
	a.Bytes += int64(f.bytes())
	return nil
}

// UnloadAdapter ends a name: requests from now on do not find it. The memory is given back when the last completion with it is over.
func (m *Model) UnloadAdapter(name string) error {
	_, err := m.unloadAdapter(name)
	return err
}

func (m *Model) unloadAdapter(name string) (*adapter, error) {
	l := &m.adapters
	l.mu.Lock()
	defer l.mu.Unlock()
	a, err := l.find(name)
	if a != nil {
		a.ended.Store(true)
		delete(l.all, name)
	}
	return a, err
}

// adapter returns the adapter of a name, nil for "".
func (m *Model) adapter(name string) (*adapter, error) {
	if name == "" {
		return nil, nil
	}
	l := &m.adapters
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(name)
}

func (l *adapters) find(name string) (*adapter, error) {
	if a := l.all[name]; a != nil {
		return a, nil
	}
	if len(l.all) == 0 {
		return nil, &OptionError{"adapter", fmt.Sprintf("found %q, but none is loaded", name)}
	}
	return nil, &OptionError{"adapter", fmt.Sprintf("found %q, expected one of %q", name, slices.Sorted(maps.Keys(l.all)))}
}

// Adapters returns the adapters that are loaded, in the order of their names.
func (m *Model) Adapters() []AdapterInfo {
	l := &m.adapters
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []AdapterInfo
	for _, name := range slices.Sorted(maps.Keys(l.all)) {
		a := l.all[name]
		info := a.AdapterInfo
		info.Users = int(a.users.Load())
		all = append(all, info)
	}
	return all
}

// LoadAdapter is Model.LoadAdapter. What the engine has evaluated with an adapter that is replaced is forgotten.
func (e *Engine) LoadAdapter(ctx context.Context, name, dir string) error {
	before, err := e.m.loadAdapter(ctx, name, dir)
	if before != nil {
		e.cache.forget(before)
	}
	return err
}

// UnloadAdapter is Model.UnloadAdapter. What the engine has evaluated with the adapter is forgotten.
func (e *Engine) UnloadAdapter(name string) error {
	a, err := e.m.unloadAdapter(name)
	if a != nil {
		e.cache.forget(a)
	}
	return err
}

// Adapters is Model.Adapters.
func (e *Engine) Adapters() []AdapterInfo { return e.m.Adapters() }
