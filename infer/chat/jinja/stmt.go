package jinja

import "slices"

// The bounds of one rendering. Chat templates need a few thousand steps for long conversations.
const (
	maxSteps  = 5_000_000
	maxOutput = 64 << 20 // bytes
)

// state is one rendering.
type state struct {
	out      *builder
	scope    *scope
	steps    int
	depth    int
	captured Text // what the filter around a block is applied to
	host     Host
}

// Host is what a template may ask of the program around it.
type Host struct {
	// Now formats the time that is now by a C format such as "%d %b %Y", for strftime_now.
	Now func(format string) string
}

// scope holds variables.
type scope struct {
	vars   map[string]any
	parent *scope
}

func (s *scope) find(name string) (any, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.vars[name]; ok {
			return v, true
		}
	}
	return nil, false
}

func (s *scope) set(name string, v any) {
	if s.vars == nil {
		s.vars = map[string]any{}
	}
	s.vars[name] = v
}

// Render runs the template. Values are nil, bool, int, int64, float64, string (the program's), Text, []any, []Pair
// and map[string]any of such; a map's entries come in the order of their keys.
func (t *Template) Render(vars map[string]any, host Host) (out Text, err error) {
	defer recovered(&err)
	s := &state{out: &builder{}, scope: &scope{}, host: host}
	for k, v := range vars {
		s.scope.set(k, imported(v))
	}
	s.scope = &scope{parent: s.scope}
	s.run(t.body)
	return s.out.text(), nil
}

func (s *state) step(line int) {
	if s.steps++; s.steps > maxSteps {
		fail(line, "more than %d steps", maxSteps)
	}
}

func (s *state) nest(line int) func() {
	if s.depth++; s.depth > maxDepth {
		fail(line, "more than %d levels deep", maxDepth)
	}
	return func() { s.depth-- }
}

// bounded returns t if it is short enough.
func (s *state) bounded(t Text, line int) Text {
	if s.steps += len(t.s) / 256; len(t.s) > maxOutput {
		fail(line, "found a text of %d bytes, expected at most %d", len(t.s), maxOutput)
	}
	return t
}

func (s *state) print(t Text, line int) {
	if s.out.b.Len()+len(t.s) > maxOutput {
		fail(line, "more than %d bytes of output", maxOutput)
	}
	s.out.add(t)
}

// capture returns what f prints.
func (s *state) capture(f func()) Text {
	out := s.out
	s.out = &builder{}
	defer func() { s.out = out }()
	f()
	return s.out.text()
}

// inside runs f in a scope of its own.
func (s *state) inside(parent *scope, f func()) {
	outer := s.scope
	s.scope = &scope{parent: parent}
	f()
	s.scope = outer
}

type signal uint8

const (
	goesOn signal = iota
	breaks
	continues
)

// stmt is a statement.
type stmt interface{ exec(*state) signal }

func (s *state) run(body []stmt) signal {
	for _, st := range body {
		if sig := st.exec(s); sig != goesOn {
			return sig
		}
	}
	return goesOn
}

type (
	data   struct{ text Text }
	output struct {
		e    expr
		line int
	}
	ifStmt struct {
		cond            expr
		then, otherwise []stmt
	}
	forStmt struct {
		names       []string
		over, cond  expr
		body, empty []stmt
		recursive   bool
		line        int
	}
	setStmt struct {
		names []string
		attr  string // of a namespace
		value expr
		body  []stmt // in place of a value, or what its filters are applied to
		line  int
	}
	filterStmt struct {
		filter expr
		body   []stmt
		line   int
	}
	withStmt struct {
		names  []string
		values []expr
		body   []stmt
	}
	param struct {
		name  string
		value expr // nil without a default
	}
	macro struct {
		name   string
		params []param
		body   []stmt
	}
	callStmt struct {
		call   *call
		caller *macro
		line   int
	}
	jump signal
)

func (st *data) exec(s *state) signal {
	s.print(st.text, 0)
	return goesOn
}

func (st *output) exec(s *state) signal {
	s.step(st.line)
	s.print(text(st.e.eval(s)), st.line)
	return goesOn
}

func (st jump) exec(*state) signal { return signal(st) }

func (st *ifStmt) exec(s *state) signal {
	if truth(st.cond.eval(s)) {
		return s.run(st.then)
	}
	return s.run(st.otherwise)
}

func (st *setStmt) exec(s *state) signal {
	s.step(st.line)
	var v any
	if st.body != nil || st.value == nil {
		t := s.capture(func() { s.inside(s.scope, func() { s.run(st.body) }) })
		v = t
		if st.value != nil {
			s.captured = t
			v = st.value.eval(s)
		}
	} else {
		v = st.value.eval(s)
	}
	if st.attr != "" {
		holder, _ := s.scope.find(st.names[0])
		ns, ok := holder.(*namespace)
		if !ok {
			fail(st.line, "set %s.%s: expected a namespace", st.names[0], st.attr)
		}
		ns.attrs[st.attr] = v
		return goesOn
	}
	s.assign(st.names, v, st.line)
	return goesOn
}

// assign sets one name, or as many as v has items.
func (s *state) assign(names []string, v any, line int) {
	if len(names) == 1 {
		s.scope.set(names[0], v)
		return
	}
	items := items(v, line)
	if len(items) != len(names) {
		fail(line, "found %d values, expected %d", len(items), len(names))
	}
	for i, n := range names {
		s.scope.set(n, items[i])
	}
}

func (st *filterStmt) exec(s *state) signal {
	s.captured = s.capture(func() { s.inside(s.scope, func() { s.run(st.body) }) })
	s.print(text(st.filter.eval(s)), st.line)
	return goesOn
}

func (st *withStmt) exec(s *state) (sig signal) {
	values := make([]any, len(st.values))
	for i, e := range st.values {
		values[i] = e.eval(s)
	}
	s.inside(s.scope, func() {
		for i, n := range st.names {
			s.scope.set(n, values[i])
		}
		sig = s.run(st.body)
	})
	return sig
}

func (st *forStmt) exec(s *state) signal {
	s.loop(st, st.over.eval(s), s.scope, 1)
	return goesOn
}

// loop runs a loop over v; parent is the scope around it.
func (s *state) loop(st *forStmt, v any, parent *scope, depth int) {
	all := items(v, st.line)
	if st.cond != nil {
		kept := []any{}
		for _, x := range all {
			s.step(st.line)
			s.inside(parent, func() {
				s.assign(st.names, x, st.line)
				if truth(st.cond.eval(s)) {
					kept = append(kept, x)
				}
			})
		}
		all = kept
	}
	if len(all) == 0 {
		s.inside(parent, func() { s.run(st.empty) })
		return
	}
	l := &loop{items: all, depth: depth}
	if st.recursive {
		l.again = func(s *state, p *params) any {
			over := p.need(0, "iterable", "loop")
			return s.capture(func() { s.loop(st, over, parent, depth+1) })
		}
	}
	for i, x := range all {
		s.step(st.line)
		stop := false
		s.inside(parent, func() {
			l.index = i
			s.scope.set("loop", l)
			s.assign(st.names, x, st.line)
			stop = s.run(st.body) == breaks
		})
		if stop {
			return
		}
	}
}

func (m *macro) exec(s *state) signal {
	s.scope.set(m.name, m.bind(s.scope))
	return goesOn
}

// bind returns m as something to call, in the scope where it stands.
func (m *macro) bind(around *scope) callable {
	return func(s *state, p *params) any {
		if len(p.positional) > len(m.params) {
			fail(p.line, "%s: found %d arguments, expected at most %d", m.name, len(p.positional), len(m.params))
		}
		return s.capture(func() {
			s.inside(around, func() {
				for i, a := range m.params {
					switch j := slices.Index(p.names, a.name); {
					case i < len(p.positional):
						s.scope.set(a.name, p.positional[i])
					case j >= 0:
						s.scope.set(a.name, p.named[j])
					case a.value != nil:
						s.scope.set(a.name, a.value.eval(s))
					default:
						s.scope.set(a.name, undefined{a.name})
					}
				}
				for j, n := range p.names {
					known := slices.ContainsFunc(m.params, func(a param) bool { return a.name == n })
					if !known && n != "caller" {
						fail(p.line, "%s: found the argument %s, which it does not have", m.name, n)
					}
					if n == "caller" {
						s.scope.set(n, p.named[j])
					}
				}
				s.run(m.body)
			})
		})
	}
}

func (st *callStmt) exec(s *state) signal {
	fn, ok := st.call.fn.eval(s).(callable)
	if !ok {
		fail(st.line, "call: expected a macro")
	}
	p := st.call.args.eval(s, st.line)
	p.names, p.named = append(slices.Clone(p.names), "caller"), append(p.named, any(st.caller.bind(s.scope)))
	defer s.nest(st.line)()
	s.print(text(fn(s, p)), st.line)
	return goesOn
}
