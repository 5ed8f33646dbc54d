package jinja

import "strings"

type testFunc func(v any, p *params) bool

// testCalled returns a test by name; one that is not known fails when it is used.
func testCalled(name string, line int) testFunc {
	f, ok := tests[name]
	if !ok {
		return func(any, *params) bool {
			fail(line, "found the test %q, which is not known", name)
			return false
		}
	}
	return f
}

func comparing(op string) testFunc {
	return func(v any, p *params) bool { return compared(op, v, p.need(0, "other", op), p.line) }
}

func divides(v any, by int64, line int) bool {
	n, ok := number(v, line).(int64)
	return ok && by != 0 && n%by == 0
}

var tests = map[string]testFunc{
	"defined":   func(v any, _ *params) bool { _, u := v.(undefined); return !u },
	"undefined": func(v any, _ *params) bool { _, u := v.(undefined); return u },
	"none":      func(v any, _ *params) bool { return v == nil },
	"true":      func(v any, _ *params) bool { return v == true },
	"false":     func(v any, _ *params) bool { return v == false },
	"boolean":   func(v any, _ *params) bool { _, ok := v.(bool); return ok },
	"integer":   func(v any, _ *params) bool { _, ok := v.(int64); return ok },
	"float":     func(v any, _ *params) bool { _, ok := v.(float64); return ok },
	"number": func(v any, _ *params) bool {
		switch v.(type) {
		case bool, int64, float64:
			return true
		}
		return false
	},
	"string":  func(v any, _ *params) bool { _, ok := v.(Text); return ok },
	"mapping": func(v any, _ *params) bool { _, ok := v.(*dict); return ok },
	"sequence": func(v any, _ *params) bool {
		switch v.(type) {
		case Text, *list, *dict:
			return true
		}
		return false
	},
	"iterable": func(v any, _ *params) bool {
		switch v.(type) {
		case Text, *list, *dict, undefined:
			return true
		}
		return false
	},
	"callable": func(v any, _ *params) bool { _, ok := v.(callable); return ok },
	"odd":      func(v any, p *params) bool { return !divides(v, 2, p.line) },
	"even":     func(v any, p *params) bool { return divides(v, 2, p.line) },
	"divisibleby": func(v any, p *params) bool {
		return divides(v, int64(p.intOr(0, "num", "divisibleby", 0)), p.line)
	},
	"lower": func(v any, _ *params) bool { s := text(v).s; return s == strings.ToLower(s) && s != strings.ToUpper(s) },
	"upper": func(v any, _ *params) bool { s := text(v).s; return s == strings.ToUpper(s) && s != strings.ToLower(s) },
	"sameas": func(v any, p *params) bool {
		other := p.need(0, "other", "sameas")
		return typeName(v) == typeName(other) && equal(v, other, p.line)
	},
	"in": comparing("in"),
	"eq": comparing("=="), "equalto": comparing("=="), "==": comparing("=="),
	"ne": comparing("!="), "!=": comparing("!="),
	"lt": comparing("<"), "lessthan": comparing("<"),
	"le": comparing("<="),
	"gt": comparing(">"), "greaterthan": comparing(">"),
	"ge": comparing(">="),
}
