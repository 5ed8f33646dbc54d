package jinja

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// text is Python's str(v).
func text(v any) Text {
	switch v := v.(type) {
	case undefined:
		return Text{}
	case Text:
		return v
	}
	return repr(v)
}

// maxPrinted bounds the parts of a value that is printed: a few steps make one whose parts, each counted where it stands, are without number.
const maxPrinted = 1_000_000

// repr is Python's repr(v).
func repr(v any) Text {
	left := maxPrinted
	return printed(v, 0, &left)
}

func printed(v any, depth int, left *int) Text {
	if *left--; depth > maxDepth || *left < 0 {
		fail(0, "found a value more than %d levels deep or of more than %d parts", maxDepth, maxPrinted)
	}
	switch v := v.(type) {
	case nil:
		return Plain("None")
	case undefined:
		return Plain("Undefined")
	case bool:
		if v {
			return Plain("True")
		}
		return Plain("False")
	case int64:
		return Plain(strconv.FormatInt(v, 10))
	case float64:
		return Plain(pythonFloat(v))
	case Text:
		return v.with(quoted(v.s))
	case *list:
		parts := make([]Text, len(v.items))
		for i, x := range v.items {
			parts[i] = printed(x, depth+1, left)
		}
		inner := Plain(", ").join(parts)
		switch {
		case !v.tuple:
			return concat(Plain("["), inner, Plain("]"))
		case len(parts) == 1:
			return concat(Plain("("), inner, Plain(",)"))
		}
		return concat(Plain("("), inner, Plain(")"))
	case *dict:
		parts := make([]Text, len(v.keys))
		for i, k := range v.keys {
			parts[i] = concat(printed(k, depth+1, left), Plain(": "), printed(v.values[i], depth+1, left))
		}
		return concat(Plain("{"), Plain(", ").join(parts), Plain("}"))
	}
	fail(0, "found %s, expected a value that can be printed", typeName(v))
	return Text{}
}

func pythonFloat(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func quoted(s string) string {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	var b strings.Builder
	b.WriteByte(q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			b.WriteString(`\x` + strconv.FormatInt(0x100+int64(r), 16)[1:])
		case !unicode.IsPrint(r) && r < 0x10000:
			b.WriteString(`\u` + strconv.FormatInt(0x10000+int64(r), 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte(q)
	return b.String()
}

// jsonStyle is how tojson prints.
type jsonStyle struct {
	indent          string // "" for one line
	item, key       string // separators
	sortKeys, ascii bool
	left            int // parts that may still be printed
}

// dump prints v as Python's json.dumps(v, ensure_ascii=ascii).
func (j *jsonStyle) dump(b *builder, v any, depth, line int) {
	if j.left--; depth > maxDepth || j.left < 0 {
		fail(line, "tojson: found a value more than %d levels deep or of more than %d parts", maxDepth, maxPrinted)
	}
	switch v := v.(type) {
	case nil:
		b.add(Plain("null"))
	case bool:
		b.add(Plain(strconv.FormatBool(v)))
	case int64:
		b.add(Plain(strconv.FormatInt(v, 10)))
	case float64:
		switch {
		case math.IsNaN(v):
			b.add(Plain("NaN"))
		case math.IsInf(v, 0):
			b.add(Plain(strings.Replace(pythonFloat(v), "inf", "Infinity", 1)))
		default:
			b.add(Plain(pythonFloat(v)))
		}
	case Text:
		b.add(v.with(jsonString(v.s, j.ascii)))
	case *list:
		j.group(b, "[", "]", len(v.items), depth, func(i int) { j.dump(b, v.items[i], depth+1, line) })
	case *dict:
		order := make([]int, len(v.keys))
		for i := range order {
			order[i] = i
		}
		if j.sortKeys {
			slices.SortStableFunc(order, func(x, y int) int { return strings.Compare(text(v.keys[x]).s, text(v.keys[y]).s) })
		}
		j.group(b, "{", "}", len(order), depth, func(i int) {
			k := text(v.keys[order[i]])
			b.add(k.with(jsonString(k.s, j.ascii)))
			b.add(Plain(j.key))
			j.dump(b, v.values[order[i]], depth+1, line)
		})
	default:
		fail(line, "tojson: found %s, expected a value that JSON has", typeName(v))
	}
}

func (j *jsonStyle) group(b *builder, open, closing string, n, depth int, one func(int)) {
	b.add(Plain(open))
	newline := func(depth int) {
		if j.indent != "" {
			b.add(Plain("\n" + strings.Repeat(j.indent, depth)))
		}
	}
	for i := range n {
		if i > 0 {
			b.add(Plain(j.item))
		}
		newline(depth + 1)
		one(i)
	}
	if n > 0 {
		newline(depth)
	}
	b.add(Plain(closing))
}

func jsonString(s string, ascii bool) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch i := strings.IndexRune("\"\\\n\r\t\b\f", r); {
		case i >= 0:
			b.WriteByte('\\')
			b.WriteByte(`"\nrtbf`[i])
		case r < 0x20 || ascii && r > 0x7e && r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		case ascii && r >= 0x10000:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
