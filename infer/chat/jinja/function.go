package jinja

// maxRange bounds range, as jinja2's sandbox does.
const maxRange = 100_000

// functions are what templates may call beside their own macros.
var functions = map[string]callable{
	"range":     rangeOf,
	"namespace": newNamespace,
	"dict":      newDict,
	"raise_exception": func(_ *state, p *params) any {
		panic(&Error{Line: p.line, Text: text(p.need(0, "message", "raise_exception")).s, Raised: true})
	},
	"strftime_now": func(s *state, p *params) any {
		if s.host.Now == nil {
			fail(p.line, "strftime_now: there is no clock")
		}
		return Plain(s.host.Now(p.text(0, "format", "strftime_now").s))
	},
}

func rangeOf(s *state, p *params) any {
	from, to, step := 0, p.intOr(0, "stop", "range", 0), 1
	if len(p.positional) > 1 {
		from, to, step = to, p.intOr(1, "stop", "range", 0), p.intOr(2, "step", "range", 1)
	}
	if step == 0 {
		fail(p.line, "range: the step is 0")
	}
	l := &list{}
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		if len(l.items) == maxRange {
			fail(p.line, "range: more than %d numbers", maxRange)
		}
		l.items = append(l.items, int64(i))
	}
	s.steps += len(l.items)
	return l
}

func newNamespace(_ *state, p *params) any {
	n := &namespace{map[string]any{}}
	for _, v := range p.positional {
		d, ok := v.(*dict)
		if !ok {
			fail(p.line, "namespace: found %s, expected a mapping", typeName(v))
		}
		for i, k := range d.keys {
			n.attrs[text(k).s] = d.values[i]
		}
	}
	for i, name := range p.names {
		n.attrs[name] = p.named[i]
	}
	return n
}

func newDict(_ *state, p *params) any {
	d := &dict{}
	for _, v := range p.positional {
		if from, ok := v.(*dict); ok {
			for i, k := range from.keys {
				d.put(k, from.values[i])
			}
			continue
		}
		for _, pair := range items(v, p.line) {
			kv := items(pair, p.line)
			if len(kv) != 2 {
				fail(p.line, "dict: found %d values, expected a key and a value", len(kv))
			}
			d.put(kv[0], kv[1])
		}
	}
	for i, name := range p.names {
		d.put(Plain(name), p.named[i])
	}
	return d
}
