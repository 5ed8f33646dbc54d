package jinja

// expr is an expression.
type expr interface{ eval(*state) any }

type (
	constant struct{ v any }
	name     struct {
		name string
		line int
	}
	// captured is what the block around a filter has printed.
	captured struct{}
	listExpr struct {
		items []expr
		tuple bool
	}
	dictExpr struct{ keys, values []expr }
	attr     struct {
		of   expr
		name string
		line int
	}
	item struct {
		of, key expr
		line    int
	}
	slice struct {
		of    expr
		parts [3]expr
		line  int
	}
	arguments struct {
		positional []expr
		names      []string
		named      []expr
	}
	call struct {
		fn   expr
		args arguments
		line int
	}
	filter struct {
		on   expr
		name string
		fn   filterFunc
		args arguments
		line int
	}
	test struct {
		on   expr
		name string
		fn   testFunc
		args arguments
		line int
	}
	cond struct {
		then, test, otherwise expr
		line                  int
	}
	logic struct {
		left, right expr
		or          bool
	}
	not        struct{ e expr }
	comparison struct {
		first expr
		ops   []string
		rest  []expr
		line  int
	}
	binary struct {
		op          string
		left, right expr
		line        int
	}
	sign struct {
		minus bool
		e     expr
		line  int
	}
	join struct{ parts []expr }
)

func (e constant) eval(*state) any { return e.v }

func (e *name) eval(s *state) any {
	if v, ok := s.scope.find(e.name); ok {
		return v
	}
	if f, ok := functions[e.name]; ok {
		return f
	}
	return undefined{e.name}
}

func (e *captured) eval(s *state) any { return s.captured }

func (e *listExpr) eval(s *state) any {
	l := &list{tuple: e.tuple, items: make([]any, len(e.items))}
	for i, x := range e.items {
		l.items[i] = x.eval(s)
	}
	return l
}

func (e *dictExpr) eval(s *state) any {
	d := &dict{}
	for i, k := range e.keys {
		d.put(k.eval(s), e.values[i].eval(s))
	}
	return d
}

func (e *attr) eval(s *state) any {
	s.step(e.line)
	return attribute(e.of.eval(s), e.name, e.line)
}

func (e *item) eval(s *state) any {
	s.step(e.line)
	return element(e.of.eval(s), e.key.eval(s), e.line)
}

func (e *slice) eval(s *state) any {
	v := e.of.eval(s)
	var parts [3]any
	for i, p := range e.parts {
		if p != nil {
			parts[i] = p.eval(s)
		}
	}
	return sliced(v, parts, e.line)
}

// evaluated arguments of a call.
type params struct {
	positional []any
	names      []string
	named      []any
	line       int
}

func (a arguments) eval(s *state, line int) *params {
	p := &params{names: a.names, line: line}
	for _, e := range a.positional {
		p.positional = append(p.positional, e.eval(s))
	}
	for _, e := range a.named {
		p.named = append(p.named, e.eval(s))
	}
	return p
}

func (e *call) eval(s *state) any {
	s.step(e.line)
	fn := e.fn.eval(s)
	f, ok := fn.(callable)
	if l, again := fn.(*loop); again && l.again != nil {
		f, ok = l.again, true
	}
	if !ok {
		if u, ok := fn.(undefined); ok {
			fail(e.line, "%s is undefined and cannot be called", u.name)
		}
		fail(e.line, "found %s, expected something to call", typeName(fn))
	}
	defer s.nest(e.line)()
	return f(s, e.args.eval(s, e.line))
}

func (e *filter) eval(s *state) any {
	s.step(e.line)
	return e.fn(s, e.on.eval(s), e.args.eval(s, e.line))
}

func (e *test) eval(s *state) any {
	s.step(e.line)
	return e.fn(e.on.eval(s), e.args.eval(s, e.line))
}

func (e *cond) eval(s *state) any {
	if truth(e.test.eval(s)) {
		return e.then.eval(s)
	}
	if e.otherwise == nil {
		return undefined{"the inline if without else"}
	}
	return e.otherwise.eval(s)
}

func (e *logic) eval(s *state) any {
	if v := e.left.eval(s); truth(v) == e.or {
		return v
	}
	return e.right.eval(s)
}

func (e *not) eval(s *state) any { return !truth(e.e.eval(s)) }

func (e *comparison) eval(s *state) any {
	left := e.first.eval(s)
	for i, op := range e.ops {
		right := e.rest[i].eval(s)
		if !compared(op, left, right, e.line) {
			return false
		}
		left = right
	}
	return true
}

func (e *binary) eval(s *state) any {
	s.step(e.line)
	return arithmetic(s, e.op, e.left.eval(s), e.right.eval(s), e.line)
}

func (e *sign) eval(s *state) any {
	v := e.e.eval(s)
	if !e.minus {
		number(v, e.line)
		return v
	}
	switch n := number(v, e.line).(type) {
	case int64:
		return -n
	case float64:
		return -n
	}
	return nil
}

func (e *join) eval(s *state) any {
	parts := make([]Text, len(e.parts))
	for i, p := range e.parts {
		parts[i] = text(p.eval(s))
	}
	return s.bounded(concat(parts...), 0)
}
