package jinja

import (
	"math"
	"strings"
)

// number returns v as an int64 or a float64.
func number(v any, line int) any {
	switch v := v.(type) {
	case int64, float64:
		return v
	case bool:
		if v {
			return int64(1)
		}
		return int64(0)
	}
	fail(line, "found %s, expected a number", typeName(v))
	return nil
}

func float(v any) float64 {
	if i, ok := v.(int64); ok {
		return float64(i)
	}
	f, _ := v.(float64)
	return f
}

func arithmetic(s *state, op string, left, right any, line int) any {
	switch l := left.(type) {
	case Text:
		switch r := right.(type) {
		case Text:
			if op == "+" {
				return s.bounded(concat(l, r), line)
			}
		case int64:
			if op == "*" {
				return s.bounded(repeated(l, r, line), line)
			}
		}
		if op == "%" {
			return percent(l, right, line)
		}
	case *list:
		if r, ok := right.(*list); ok && op == "+" {
			s.steps += len(l.items) + len(r.items)
			return &list{items: append(append([]any{}, l.items...), r.items...), tuple: l.tuple}
		}
	}
	switch left.(type) {
	case bool, int64, float64:
	default:
		fail(line, "%s: found %s and %s", op, typeName(left), typeName(right))
	}
	switch right.(type) {
	case bool, int64, float64:
	default:
		fail(line, "%s: found %s and %s", op, typeName(left), typeName(right))
	}
	l, r := number(left, line), number(right, line)
	a, aInt := l.(int64)
	b, bInt := r.(int64)
	if strings.Contains("/%", op[:1]) && float(r) == 0 {
		fail(line, "%s: division by zero", op)
	}
	if aInt && bInt {
		switch op {
		case "+":
			return a + b
		case "-":
			return a - b
		case "*":
			return a * b
		case "//":
			return int64(math.Floor(float64(a) / float64(b)))
		case "%":
			m := a % b
			if m != 0 && (m < 0) != (b < 0) {
				m += b
			}
			return m
		case "**":
			if b >= 0 {
				return int64(math.Pow(float64(a), float64(b)))
			}
		}
	}
	x, y := float(l), float(r)
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	case "//":
		return math.Floor(x / y)
	case "%":
		m := math.Mod(x, y)
		if m != 0 && (m < 0) != (y < 0) {
			m += y
		}
		return m
	}
	return math.Pow(x, y)
}

func repeated(t Text, n int64, line int) Text {
	if n <= 0 || t.s == "" {
		return Text{}
	}
	if n > maxOutput/int64(len(t.s)) {
		fail(line, "found a text of more than %d bytes", maxOutput)
	}
	var b builder
	for range n {
		b.add(t)
	}
	return b.text()
}

// percent is Python's "…" % values for %s and %d.
func percent(t Text, v any, line int) Text {
	args := []any{v}
	if l, ok := v.(*list); ok && l.tuple {
		args = l.items
	}
	var b builder
	from := 0
	for i := 0; i < len(t.s); i++ {
		if t.s[i] != '%' {
			continue
		}
		if i+1 == len(t.s) || strings.IndexByte("sdr%", t.s[i+1]) < 0 {
			fail(line, "found a format other than %%s, %%d, %%r and %%%%")
		}
		b.add(t.slice(from, i))
		from = i + 2
		i++
		if t.s[i] == '%' {
			b.add(t.slice(i, i+1))
			continue
		}
		if len(args) == 0 {
			fail(line, "the format has more places than there are values")
		}
		if t.s[i] == 'r' {
			b.add(repr(args[0]))
		} else {
			b.add(text(args[0]))
		}
		args = args[1:]
	}
	b.add(t.slice(from, len(t.s)))
	return b.text()
}

func equal(a, b any, line int) bool {
	switch x := a.(type) {
	case nil:
		return b == nil
	case undefined:
		_, ok := b.(undefined)
		return ok
	case Text:
		y, ok := b.(Text)
		return ok && x.s == y.s
	case bool, int64, float64:
		switch b.(type) {
		case bool, int64, float64:
			l, r := number(a, line), number(b, line)
			if l, ok := l.(int64); ok {
				if r, ok := r.(int64); ok {
					return l == r
				}
			}
			return float(l) == float(r)
		}
	case *list:
		y, ok := b.(*list)
		if ok && x == y {
			return true
		}
		if !ok || len(x.items) != len(y.items) || x.tuple != y.tuple {
			return false
		}
		for i := range x.items {
			if !equal(x.items[i], y.items[i], line) {
				return false
			}
		}
		return true
	case *dict:
		y, ok := b.(*dict)
		if !ok || len(x.keys) != len(y.keys) {
			return false
		}
		for i, k := range x.keys {
			if v, ok := y.get(k); !ok || !equal(x.values[i], v, line) {
				return false
			}
		}
		return true
	case *namespace:
		return a == b
	case *loop:
		return a == b
	}
	return false
}

// order is negative, 0 or positive as a is less than b, equal or greater.
func order(a, b any, line int) int {
	switch x := a.(type) {
	case Text:
		if y, ok := b.(Text); ok {
			return strings.Compare(x.s, y.s)
		}
	case bool, int64, float64:
		switch b.(type) {
		case bool, int64, float64:
			l, r := float(number(a, line)), float(number(b, line))
			switch {
			case l < r:
				return -1
			case l > r:
				return 1
			}
			return 0
		}
	case *list:
		if y, ok := b.(*list); ok {
			for i := range min(len(x.items), len(y.items)) {
				if !equal(x.items[i], y.items[i], line) {
					return order(x.items[i], y.items[i], line)
				}
			}
			return len(x.items) - len(y.items)
		}
	}
	fail(line, "cannot say which is less: %s or %s", typeName(a), typeName(b))
	return 0
}

func compared(op string, a, b any, line int) bool {
	switch op {
	case "==":
		return equal(a, b, line)
	case "!=":
		return !equal(a, b, line)
	case "<":
		return order(a, b, line) < 0
	case "<=":
		return order(a, b, line) <= 0
	case ">":
		return order(a, b, line) > 0
	case ">=":
		return order(a, b, line) >= 0
	case "in":
		return contains(b, a, line)
	}
	return !contains(b, a, line)
}

func contains(in, v any, line int) bool {
	switch in := in.(type) {
	case Text:
		t, ok := v.(Text)
		if !ok {
			fail(line, "in: found %s, expected a text", typeName(v))
		}
		return strings.Contains(in.s, t.s)
	case *dict:
		_, ok := in.get(v)
		return ok
	}
	for _, x := range items(in, line) {
		if equal(x, v, line) {
			return true
		}
	}
	return false
}

// sliced is v[parts[0]:parts[1]:parts[2]].
func sliced(v any, parts [3]any, line int) any {
	var all []any
	var at []int // where the characters of a text begin
	n := int64(0)
	switch v := v.(type) {
	case *list:
		all, n = v.items, int64(len(v.items))
	case Text:
		at = v.offsets()
		n = int64(len(at) - 1)
	case undefined:
		fail(line, "%s is undefined and has no parts", v.name)
	default:
		fail(line, "found %s, expected a text or a list to take a part of", typeName(v))
	}
	bound := func(i int) (int64, bool) {
		if parts[i] == nil {
			return 0, false
		}
		n, ok := number(parts[i], line).(int64)
		if !ok {
			fail(line, "a slice needs whole numbers")
		}
		return n, true
	}
	step, ok := bound(2)
	if !ok {
		step = 1
	}
	if step == 0 {
		fail(line, "the step of a slice is 0")
	}
	low, high := int64(0), n
	if step < 0 {
		low, high = -1, n-1
	}
	clamp := func(i int, missing int64) int64 {
		b, ok := bound(i)
		if !ok {
			return missing
		}
		if b < 0 {
			b += n
		}
		return max(low, min(high, b))
	}
	var from, to int64
	if step > 0 {
		from, to = clamp(0, 0), clamp(1, n)
	} else {
		from, to = clamp(0, n-1), clamp(1, -1)
	}
	t, isText := v.(Text)
	if isText && step == 1 {
		return t.slice(at[from], at[max(from, to)])
	}
	var b builder
	kept := []any{}
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		if isText {
			b.add(t.slice(at[i], at[i+1]))
		} else {
			kept = append(kept, all[i])
		}
	}
	if isText {
		return b.text()
	}
	return &list{items: kept, tuple: v.(*list).tuple}
}
