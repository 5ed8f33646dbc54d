package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

type filterFunc func(s *state, v any, p *params) any

// filterCalled returns a filter by name; one that is not known fails when it is used, since templates guard such uses.
func filterCalled(name string, line int) filterFunc {
	if name == "map" {
		return mapFilter
	}
	f, ok := filters[name]
	if !ok {
		return func(*state, any, *params) any {
			fail(line, "found the filter %q, which is not known", name)
			return nil
		}
	}
	return f
}

// filters are all but map, which applies others.
var filters = map[string]filterFunc{
	"trim":       func(_ *state, v any, p *params) any { return text(v).strip(p.textOr(0, "chars", "trim"), true, true) },
	"length":     length,
	"count":      length,
	"upper":      onText(func(t Text) Text { return t.mapped(strings.ToUpper) }),
	"lower":      onText(func(t Text) Text { return t.mapped(strings.ToLower) }),
	"title":      onText(func(t Text) Text { return t.with(titled(t.s)) }),
	"capitalize": onText(func(t Text) Text { return t.with(capitalized(t.s)) }),
	"string":     onText(func(t Text) Text { return t }),
	"safe":       onText(func(t Text) Text { return t }),
	"escape":     onText(escaped),
	"e":          onText(escaped),
	"replace": func(s *state, v any, p *params) any {
		return s.bounded(text(v).replace(p.text(0, "old", "replace").s, p.text(1, "new", "replace"), p.intOr(2, "count", "replace", -1)), p.line)
	},
	"default": orDefault,
	"d":       orDefault,
	"tojson":  toJSON,
	"join":    joined,
	"indent":  indented,
	"first":   func(_ *state, v any, p *params) any { return atEnd(items(v, p.line), false) },
	"last":    func(_ *state, v any, p *params) any { return atEnd(items(v, p.line), true) },
	"list":    func(_ *state, v any, p *params) any { return &list{items: slices.Clone(items(v, p.line))} },
	"items": func(_ *state, v any, p *params) any {
		if _, ok := v.(undefined); ok {
			return &list{}
		}
		d, ok := v.(*dict)
		if !ok {
			fail(p.line, "items: found %s, expected a mapping", typeName(v))
		}
		return &list{items: d.pairs()}
	},
	"dictsort": func(_ *state, v any, p *params) any {
		d, ok := v.(*dict)
		if !ok {
			fail(p.line, "dictsort: found %s, expected a mapping", typeName(v))
		}
		pairs := d.pairs()
		slices.SortStableFunc(pairs, func(a, b any) int {
			return order(folded(a.(*list).items[0]), folded(b.(*list).items[0]), p.line)
		})
		return &list{items: pairs}
	},
	"reverse": func(_ *state, v any, p *params) any {
		all := slices.Clone(items(v, p.line))
		slices.Reverse(all)
		if _, ok := v.(Text); ok {
			var b builder
			for _, x := range all {
				b.add(x.(Text))
			}
			return b.text()
		}
		return &list{items: all}
	},
	"sort":   sorted,
	"unique": unique,
	"min":    func(_ *state, v any, p *params) any { return extreme(items(v, p.line), -1, p.line) },
	"max":    func(_ *state, v any, p *params) any { return extreme(items(v, p.line), 1, p.line) },
	"sum": func(s *state, v any, p *params) any {
		total := any(int64(0))
		for _, x := range items(v, p.line) {
			total = arithmetic(s, "+", total, x, p.line)
		}
		return total
	},
	"abs": func(_ *state, v any, p *params) any {
		switch n := number(v, p.line).(type) {
		case int64:
			return max(n, -n)
		case float64:
			return math.Abs(n)
		}
		return nil
	},
	"int":   toInt,
	"float": toFloat,
	"round": func(_ *state, v any, p *params) any {
		scale := math.Pow(10, float64(p.intOr(0, "precision", "round", 0)))
		return math.RoundToEven(float(number(v, p.line))*scale) / scale
	},
	"wordcount":  func(_ *state, v any, _ *params) any { return int64(len(strings.Fields(text(v).s))) },
	"select":     choosing(true, false),
	"reject":     choosing(false, false),
	"selectattr": choosing(true, true),
	"rejectattr": choosing(false, true),
}

func onText(f func(Text) Text) filterFunc {
	return func(_ *state, v any, _ *params) any { return f(text(v)) }
}

func escaped(t Text) Text {
	for _, r := range [][2]string{{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {`"`, "&#34;"}} {
		t = t.replace(r[0], t.with(r[1]), -1)
	}
	return t
}

func length(_ *state, v any, p *params) any {
	if t, ok := v.(Text); ok {
		return int64(utf8.RuneCountInString(t.s))
	}
	return int64(len(items(v, p.line)))
}

func orDefault(_ *state, v any, p *params) any {
	_, missing := v.(undefined)
	if missing || p.boolOr(1, "boolean", false) && !truth(v) {
		if d, ok := p.arg(0, "default_value"); ok {
			return d
		}
		return Text{}
	}
	return v
}

func toJSON(s *state, v any, p *params) any {
	j := &jsonStyle{left: maxPrinted, item: ", ", key: ": ", ascii: p.boolOr(0, "ensure_ascii", false), sortKeys: p.boolOr(3, "sort_keys", false)}
	if in, ok := p.arg(1, "indent"); ok && in != nil {
		j.item = ","
		if t, ok := in.(Text); ok {
			j.indent = t.s
		} else {
			j.indent = strings.Repeat(" ", max(0, min(64, p.intOr(1, "indent", "tojson", 0))))
		}
	}
	if sep, ok := p.arg(2, "separators"); ok && sep != nil {
		pair := items(sep, p.line)
		if len(pair) != 2 {
			fail(p.line, "tojson: separators: found %d, expected 2", len(pair))
		}
		j.item, j.key = text(pair[0]).s, text(pair[1]).s
	}
	var b builder
	j.dump(&b, v, 0, p.line)
	return s.bounded(b.text(), p.line)
}

func joined(s *state, v any, p *params) any {
	sep := Text{}
	if t, ok := p.arg(0, "d"); ok {
		sep = text(t)
	}
	name, byName := p.arg(1, "attribute")
	var parts []Text
	for _, x := range items(v, p.line) {
		if byName {
			x = element(x, name, p.line)
		}
		parts = append(parts, text(x))
	}
	return s.bounded(sep.join(parts), p.line)
}

func indented(s *state, v any, p *params) any {
	by := Plain("    ")
	if w, ok := p.arg(0, "width"); ok {
		if t, ok := w.(Text); ok {
			by = t
		} else {
			by = repeated(Plain(" "), int64(p.intOr(0, "width", "indent", 4)), p.line)
		}
	}
	first, blank := p.boolOr(1, "first", false), p.boolOr(2, "blank", false)
	var b builder
	for i, line := range text(v).lines(true) {
		if i == 0 && first || i > 0 && (blank || line.strip(nil, true, true).s != "") {
			b.add(by)
		}
		b.add(line)
	}
	return s.bounded(b.text(), p.line)
}

func atEnd(all []any, last bool) any {
	switch {
	case len(all) == 0:
		return undefined{"the element of an empty list"}
	case last:
		return all[len(all)-1]
	}
	return all[0]
}

// folded is what sorting compares: texts without regard to case.
func folded(v any) any {
	if t, ok := v.(Text); ok {
		return Plain(strings.ToLower(t.s))
	}
	return v
}

func sorted(s *state, v any, p *params) any {
	all := slices.Clone(items(v, p.line))
	s.steps += len(all)
	by, byName := p.arg(2, "attribute")
	exact := p.boolOr(1, "case_sensitive", false)
	key := func(x any) any {
		if byName && by != nil {
			x = element(x, by, p.line)
		}
		if exact {
			return x
		}
		return folded(x)
	}
	slices.SortStableFunc(all, func(a, b any) int { return order(key(a), key(b), p.line) })
	if p.boolOr(0, "reverse", false) {
		slices.Reverse(all)
	}
	return &list{items: all}
}

func unique(s *state, v any, p *params) any {
	out := []any{}
	for _, x := range items(v, p.line) {
		if !slices.ContainsFunc(out, func(y any) bool { s.step(p.line); return equal(folded(x), folded(y), p.line) }) {
			out = append(out, x)
		}
	}
	return &list{items: out}
}

func extreme(all []any, sign, line int) any {
	if len(all) == 0 {
		return undefined{"the extreme of an empty list"}
	}
	best := all[0]
	for _, x := range all[1:] {
		if sign*order(folded(x), folded(best), line) > 0 {
			best = x
		}
	}
	return best
}

func toInt(_ *state, v any, p *params) any {
	switch v := v.(type) {
	case bool:
		return number(v, p.line)
	case int64:
		return v
	case float64:
		return int64(v)
	case Text:
		if f, ok := parseNumber(v.s); ok {
			return int64(f)
		}
	}
	return int64(p.intOr(0, "default", "int", 0))
}

func toFloat(_ *state, v any, p *params) any {
	switch v := v.(type) {
	case bool, int64, float64:
		return float(number(v, p.line))
	case Text:
		if f, ok := parseNumber(v.s); ok {
			return f
		}
	}
	if d, ok := p.arg(0, "default"); ok {
		return float(number(d, p.line))
	}
	return 0.0
}

func parseNumber(s string) (float64, bool) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}

// mapFilter is map(attribute=…) and map("filter", …).
func mapFilter(s *state, v any, p *params) any {
	out := []any{}
	if !truth(v) {
		return &list{items: out}
	}
	if name, ok := p.arg(len(p.positional), "attribute"); ok {
		missing, _ := p.arg(len(p.positional), "default")
		for _, x := range items(v, p.line) {
			s.step(p.line)
			out = append(out, path(x, name, missing, p.line))
		}
		return &list{items: out}
	}
	f := filterCalled(p.text(0, "filter", "map").s, p.line)
	rest := &params{p.positional[1:], p.names, p.named, p.line}
	for _, x := range items(v, p.line) {
		s.step(p.line)
		out = append(out, f(s, x, rest))
	}
	return &list{items: out}
}

// path is v.a.b for the name "a.b"; missing, unless it is none, stands for what is undefined on the way.
func path(v, name, missing any, line int) any {
	parts := []any{name}
	if t, ok := name.(Text); ok {
		parts = texts(t.split(".", -1, false))
	}
	for _, part := range parts {
		v = element(v, part, line)
		if _, u := v.(undefined); u && missing != nil {
			v = missing
		}
	}
	return v
}

// choosing is select, reject, selectattr or rejectattr.
func choosing(keep, byAttribute bool) filterFunc {
	return func(s *state, v any, p *params) any {
		rest := p.positional
		var name any
		if byAttribute {
			name, rest = p.need(0, "attribute", "selectattr"), rest[1:]
		}
		is := func(x any, _ *params) bool { return truth(x) }
		args := &params{line: p.line}
		if len(rest) > 0 {
			is = testCalled(text(rest[0]).s, p.line)
			args.positional = rest[1:]
		}
		out := []any{}
		if !truth(v) {
			return &list{items: out}
		}
		for _, x := range items(v, p.line) {
			s.step(p.line)
			tested := x
			if byAttribute {
				tested = path(x, name, nil, p.line)
			}
			if is(tested, args) == keep {
				out = append(out, x)
			}
		}
		return &list{items: out}
	}
}
