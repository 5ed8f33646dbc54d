package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// arg returns argument i, which may be given by name.
func (p *params) arg(i int, name string) (any, bool) {
	if i < len(p.positional) {
		return p.positional[i], true
	}
	for j, n := range p.names {
		if n == name {
			return p.named[j], true
		}
	}
	return nil, false
}

// need is arg for one that must be there.
func (p *params) need(i int, name, of string) any {
	v, ok := p.arg(i, name)
	if !ok {
		fail(p.line, "%s: the argument %s is missing", of, name)
	}
	return v
}

func (p *params) text(i int, name, of string) Text {
	v := p.need(i, name, of)
	t, ok := v.(Text)
	if !ok {
		fail(p.line, "%s: %s: found %s, expected a text", of, name, typeName(v))
	}
	return t
}

// textOr is text for an argument that may be missing or none.
func (p *params) textOr(i int, name, of string) *string {
	if v, ok := p.arg(i, name); !ok || v == nil {
		return nil
	}
	return &[]string{p.text(i, name, of).s}[0]
}

func (p *params) intOr(i int, name, of string, missing int) int {
	v, ok := p.arg(i, name)
	if !ok {
		return missing
	}
	n, ok := number(v, p.line).(int64)
	if !ok {
		fail(p.line, "%s: %s: expected a whole number", of, name)
	}
	return int(n)
}

func (p *params) boolOr(i int, name string, missing bool) bool {
	if v, ok := p.arg(i, name); ok {
		return truth(v)
	}
	return missing
}

var textMethods = map[string]func(*state, Text, *params) any{
	"strip":  func(_ *state, t Text, p *params) any { return t.strip(p.textOr(0, "chars", "strip"), true, true) },
	"lstrip": func(_ *state, t Text, p *params) any { return t.strip(p.textOr(0, "chars", "lstrip"), true, false) },
	"rstrip": func(_ *state, t Text, p *params) any { return t.strip(p.textOr(0, "chars", "rstrip"), false, true) },
	"split":  func(_ *state, t Text, p *params) any { return splitBy(t, p, "split", false) },
	"rsplit": func(_ *state, t Text, p *params) any { return splitBy(t, p, "rsplit", true) },
	"splitlines": func(_ *state, t Text, p *params) any {
		return &list{items: texts(t.lines(p.boolOr(0, "keepends", false)))}
	},
	"partition": func(_ *state, t Text, p *params) any {
		return partition(t, strings.Index, p.text(0, "sep", "partition").s, false)
	},
	"rpartition": func(_ *state, t Text, p *params) any {
		return partition(t, strings.LastIndex, p.text(0, "sep", "rpartition").s, true)
	},
	"startswith": func(_ *state, t Text, p *params) any { return affix(t, p, "startswith", strings.HasPrefix) },
	"endswith":   func(_ *state, t Text, p *params) any { return affix(t, p, "endswith", strings.HasSuffix) },
	"removeprefix": func(_ *state, t Text, p *params) any {
		if s := p.text(0, "prefix", "removeprefix").s; strings.HasPrefix(t.s, s) {
			return t.slice(len(s), len(t.s))
		}
		return t
	},
	"removesuffix": func(_ *state, t Text, p *params) any {
		if s := p.text(0, "suffix", "removesuffix").s; strings.HasSuffix(t.s, s) {
			return t.slice(0, len(t.s)-len(s))
		}
		return t
	},
	"replace": func(s *state, t Text, p *params) any {
		limit := p.intOr(2, "count", "replace", -1)
		return s.bounded(t.replace(p.text(0, "old", "replace").s, p.text(1, "new", "replace"), limit), p.line)
	},
	"upper":      func(_ *state, t Text, _ *params) any { return t.mapped(strings.ToUpper) },
	"lower":      func(_ *state, t Text, _ *params) any { return t.mapped(strings.ToLower) },
	"title":      func(_ *state, t Text, _ *params) any { return t.with(titled(t.s)) },
	"capitalize": func(_ *state, t Text, _ *params) any { return t.with(capitalized(t.s)) },
	"find":       func(_ *state, t Text, p *params) any { return found(t, strings.Index(t.s, p.text(0, "sub", "find").s)) },
	"rfind": func(_ *state, t Text, p *params) any {
		return found(t, strings.LastIndex(t.s, p.text(0, "sub", "rfind").s))
	},
	"index": func(_ *state, t Text, p *params) any {
		i := strings.Index(t.s, p.text(0, "sub", "index").s)
		if i < 0 {
			fail(p.line, "index: the text is not found")
		}
		return found(t, i)
	},
	"count": func(_ *state, t Text, p *params) any { return int64(strings.Count(t.s, p.text(0, "sub", "count").s)) },
	"join": func(s *state, t Text, p *params) any {
		var parts []Text
		for _, x := range items(p.need(0, "iterable", "join"), p.line) {
			part, ok := x.(Text)
			if !ok {
				fail(p.line, "join: found %s, expected a text", typeName(x))
			}
			parts = append(parts, part)
		}
		return s.bounded(t.join(parts), p.line)
	},
	"format":  func(s *state, t Text, p *params) any { return s.bounded(formatted(t, p), p.line) },
	"isdigit": func(_ *state, t Text, _ *params) any { return all(t.s, unicode.IsDigit) },
	"isalpha": func(_ *state, t Text, _ *params) any { return all(t.s, unicode.IsLetter) },
	"isalnum": func(_ *state, t Text, _ *params) any {
		return all(t.s, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) })
	},
	"isspace": func(_ *state, t Text, _ *params) any { return all(t.s, isSpace) },
	"isupper": func(_ *state, t Text, _ *params) any {
		return t.s == strings.ToUpper(t.s) && t.s != strings.ToLower(t.s)
	},
	"islower": func(_ *state, t Text, _ *params) any {
		return t.s == strings.ToLower(t.s) && t.s != strings.ToUpper(t.s)
	},
}

// mapped applies f, which works character by character, to what is a user's and what is not.
func (t Text) mapped(f func(string) string) Text {
	var b builder
	at := 0
	for _, m := range t.marks {
		b.add(Plain(f(t.s[at:m.From])))
		b.add(User(f(t.s[m.From:m.To])))
		at = m.To
	}
	b.add(Plain(f(t.s[at:])))
	return b.text()
}

func splitBy(t Text, p *params, of string, fromRight bool) any {
	limit := p.intOr(1, "maxsplit", of, -1)
	sep := p.textOr(0, "sep", of)
	if sep == nil {
		return &list{items: texts(t.fields(limit, fromRight))}
	}
	if *sep == "" {
		fail(p.line, "%s: found an empty separator", of)
	}
	return &list{items: texts(t.split(*sep, limit, fromRight))}
}

func partition(t Text, index func(s, sep string) int, sep string, fromRight bool) any {
	i := index(t.s, sep)
	parts := []any{t, Text{}, Text{}}
	switch {
	case i >= 0:
		parts = []any{t.slice(0, i), t.slice(i, i+len(sep)), t.slice(i+len(sep), len(t.s))}
	case fromRight:
		parts = []any{Text{}, Text{}, t}
	}
	return &list{items: parts, tuple: true}
}

func affix(t Text, p *params, of string, has func(s, affix string) bool) any {
	if l, ok := p.need(0, "affix", of).(*list); ok {
		for _, x := range l.items {
			if a, ok := x.(Text); ok && has(t.s, a.s) {
				return true
			}
		}
		return false
	}
	return has(t.s, p.text(0, "affix", of).s)
}

func found(t Text, i int) any {
	if i < 0 {
		return int64(-1)
	}
	return int64(utf8.RuneCountInString(t.s[:i]))
}

func all(s string, is func(rune) bool) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !is(r) }) < 0
}

func titled(s string) string {
	word := false
	return strings.Map(func(r rune) rune {
		was := word
		word = unicode.IsLetter(r)
		switch {
		case word && !was:
			return unicode.ToTitle(r)
		case word:
			return unicode.ToLower(r)
		}
		return r
	}, s)
}

func capitalized(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

// formatted is str.format with {}, {0} and {name}.
func formatted(t Text, p *params) Text {
	var b builder
	next, from := 0, 0
	for i := 0; i < len(t.s); i++ {
		c := t.s[i]
		if c != '{' && c != '}' {
			continue
		}
		b.add(t.slice(from, i))
		if i+1 < len(t.s) && t.s[i+1] == c {
			b.add(t.slice(i, i+1))
			from = i + 2
			i++
			continue
		}
		end := strings.IndexByte(t.s[i:], '}')
		if c == '}' || end < 0 {
			fail(p.line, "format: found a single %q", c)
		}
		field := t.s[i+1 : i+end]
		v, ok := any(nil), false
		switch {
		case field == "":
			v, ok = p.arg(next, "")
			next++
		case all(field, unicode.IsDigit) && len(field) < 4:
			n := 0
			for _, d := range field {
				n = 10*n + int(d-'0')
			}
			v, ok = p.arg(n, "")
		default:
			v, ok = p.arg(len(p.positional), field)
		}
		if !ok {
			fail(p.line, "format: found no value for {%s}", field)
		}
		b.add(text(v))
		i += end
		from = i + 1
	}
	b.add(t.slice(from, len(t.s)))
	return b.text()
}

var dictMethods = map[string]func(*dict, *params) any{
	"items":  func(d *dict, _ *params) any { return &list{items: d.pairs()} },
	"keys":   func(d *dict, _ *params) any { return &list{items: d.keys} },
	"values": func(d *dict, _ *params) any { return &list{items: d.values} },
	"get": func(d *dict, p *params) any {
		if v, ok := d.get(p.need(0, "key", "get")); ok {
			return v
		}
		v, _ := p.arg(1, "default")
		return v
	},
	"copy": func(d *dict, _ *params) any { return d },
}

var listMethods = map[string]func(*list, *params) any{
	"index": func(l *list, p *params) any {
		v := p.need(0, "value", "index")
		for i, x := range l.items {
			if equal(x, v, p.line) {
				return int64(i)
			}
		}
		fail(p.line, "index: the value is not in the list")
		return nil
	},
	"count": func(l *list, p *params) any {
		v, n := p.need(0, "value", "count"), int64(0)
		for _, x := range l.items {
			if equal(x, v, p.line) {
				n++
			}
		}
		return n
	},
	"copy": func(l *list, _ *params) any { return l },
}
