package jinja

import (
	"slices"
	"strings"
)

// A value is nil (none), undefined, bool, int64, float64, Text, *list, *dict, *namespace, *loop or callable.
type (
	// undefined is what a name or an attribute is that does not exist.
	undefined struct{ name string }
	list      struct {
		items []any
		tuple bool
	}
	dict struct {
		keys, values []any
		at           map[string]int // of keys that are texts
	}
	namespace struct{ attrs map[string]any }
	loop      struct {
		items   []any
		index   int
		depth   int
		again   callable // of a recursive loop
		changed []any
	}
	callable func(*state, *params) any
)

// Pair is an entry of a mapping whose entries have an order: a []Pair.
type Pair struct {
	Key   string
	Value any
}

// imported turns a value of the program into one of templates.
func imported(v any) any {
	switch v := v.(type) {
	case nil, bool, int64, float64, Text, callable:
		return v
	case int:
		return int64(v)
	case string:
		return Plain(v)
	case []any:
		l := &list{}
		for _, x := range v {
			l.items = append(l.items, imported(x))
		}
		return l
	case []Pair:
		d := &dict{}
		for _, p := range v {
			d.put(Plain(p.Key), imported(p.Value))
		}
		return d
	case map[string]any:
		d := &dict{}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			d.put(Plain(k), imported(v[k]))
		}
		return d
	}
	fail(0, "found a value of type %T, expected one that templates know", v)
	return nil
}

func (d *dict) put(key, v any) {
	if i := d.index(key); i >= 0 {
		d.values[i] = v
		return
	}
	if t, ok := key.(Text); ok {
		if d.at == nil {
			d.at = map[string]int{}
		}
		d.at[t.s] = len(d.keys)
	}
	d.keys, d.values = append(d.keys, key), append(d.values, v)
}

func (d *dict) index(key any) int {
	if t, ok := key.(Text); ok {
		if i, ok := d.at[t.s]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(d.keys, func(k any) bool { return equal(k, key, 0) })
}

func (d *dict) get(key any) (any, bool) {
	if i := d.index(key); i >= 0 {
		return d.values[i], true
	}
	return nil, false
}

func (d *dict) pairs() []any {
	out := make([]any, len(d.keys))
	for i, k := range d.keys {
		out[i] = &list{items: []any{k, d.values[i]}, tuple: true}
	}
	return out
}

func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case undefined:
		return v.name + ", which is undefined"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case Text:
		return "a text"
	case *list:
		return "a list"
	case *dict:
		return "a mapping"
	case *namespace:
		return "a namespace"
	case *loop:
		return "a loop"
	}
	return "a function"
}

// truth is Python's bool(v).
func truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case Text:
		return v.s != ""
	case *list:
		return len(v.items) > 0
	case *dict:
		return len(v.keys) > 0
	}
	return true
}

// items returns what a loop over v visits.
func items(v any, line int) []any {
	switch v := v.(type) {
	case undefined:
		return nil
	case *list:
		return v.items
	case *dict:
		return v.keys
	case Text:
		return texts(v.runes())
	}
	fail(line, "found %s, expected something to go through", typeName(v))
	return nil
}

func texts(t []Text) []any {
	out := make([]any, len(t))
	for i, x := range t {
		out[i] = x
	}
	return out
}

// attribute is v.name: a method, or an entry of a mapping.
func attribute(v any, name string, line int) any {
	switch v := v.(type) {
	case undefined:
		fail(line, "%s is undefined and has no %s", v.name, name)
	case *namespace:
		if x, ok := v.attrs[name]; ok {
			return x
		}
		return undefined{name}
	case *loop:
		return v.attribute(name)
	case Text:
		if m, ok := textMethods[name]; ok {
			return callable(func(s *state, p *params) any { return m(s, v, p) })
		}
	case *dict:
		if m, ok := dictMethods[name]; ok {
			return callable(func(_ *state, p *params) any { return m(v, p) })
		}
	case *list:
		if m, ok := listMethods[name]; ok {
			return callable(func(_ *state, p *params) any { return m(v, p) })
		}
	}
	if d, ok := v.(*dict); ok {
		if x, ok := d.get(Plain(name)); ok {
			return x
		}
	}
	return undefined{name}
}

// element is v[key].
func element(v, key any, line int) any {
	switch v := v.(type) {
	case undefined:
		fail(line, "%s is undefined and has no elements", v.name)
	case *dict:
		if x, ok := v.get(key); ok {
			return x
		}
	case *list:
		if i, ok := key.(int64); ok {
			if i, ok := position(i, len(v.items)); ok {
				return v.items[i]
			}
			return undefined{"the element"}
		}
	case Text:
		if i, ok := key.(int64); ok {
			at := v.offsets()
			if i, ok := position(i, len(at)-1); ok {
				return v.slice(at[i], at[i+1])
			}
			return undefined{"the character"}
		}
	}
	if t, ok := key.(Text); ok {
		return attribute(v, t.s, line)
	}
	return undefined{strings.TrimSpace("the element " + text(key).s)}
}

// position turns an index that may count from the end into one that does not.
func position(i int64, n int) (int, bool) {
	if i < 0 {
		i += int64(n)
	}
	return int(i), i >= 0 && i < int64(n)
}

func (l *loop) attribute(name string) any {
	n, i := int64(len(l.items)), int64(l.index)
	switch name {
	case "index":
		return i + 1
	case "index0":
		return i
	case "revindex":
		return n - i
	case "revindex0":
		return n - i - 1
	case "first":
		return i == 0
	case "last":
		return i == n-1
	case "length":
		return n
	case "depth":
		return int64(l.depth)
	case "depth0":
		return int64(l.depth - 1)
	case "previtem":
		if i > 0 {
			return l.items[i-1]
		}
	case "nextitem":
		if i+1 < n {
			return l.items[i+1]
		}
	case "cycle":
		return callable(func(_ *state, p *params) any {
			if len(p.positional) == 0 {
				fail(p.line, "cycle: found no arguments, expected at least one")
			}
			return p.positional[l.index%len(p.positional)]
		})
	case "changed":
		return callable(func(_ *state, p *params) any {
			now := p.positional
			if l.changed != nil && equal(&list{items: l.changed}, &list{items: now}, p.line) {
				return false
			}
			l.changed = append([]any{}, now...)
			return true
		})
	}
	return undefined{"loop." + name}
}
