package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"autodev/infer"
)

// Fields reads the members of a JSON object one by one and remembers the first error, which names the field. null is absence, as clients of
// many servers need it; unknown fields are nobody's business.
type Fields struct {
	raw map[string]json.RawMessage
	err error
}

// ParseFields reads a JSON object.
func ParseFields(body []byte) (*Fields, error) {
	f := &Fields{}
	if err := json.Unmarshal(body, &f.raw); err != nil {
		return nil, jsonError(body, err)
	}
	if f.raw == nil {
		return nil, Errorf(http.StatusBadRequest, Invalid, "", "invalid_json", "body: found null, expected an object")
	}
	return f, nil
}

// jsonError says where a body stops being JSON.
func jsonError(body []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return Errorf(http.StatusBadRequest, Invalid, "", "invalid_json", "body: malformed JSON at byte %d of %d: %v", syntax.Offset, len(body), syntax)
	}
	return Errorf(http.StatusBadRequest, Invalid, "", "invalid_json", "body: found %s, expected an object", KindOf(body))
}

// KindOf names a JSON value without repeating it: errors are logged, and values may be somebody's code.
func KindOf(raw []byte) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch c := raw[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case len(raw) <= 24:
		return string(raw)
	}
	return "a number"
}

// Err returns the first error.
func (f *Fields) Err() error { return f.err }

// Fail remembers an error, if it is the first.
func (f *Fields) Fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// Get returns a field that is there and not null.
func (f *Fields) Get(name string) (json.RawMessage, bool) {
	raw, ok := f.raw[name]
	return raw, ok && KindOf(raw) != "null"
}

// Wrong says that a field has the wrong type.
func (f *Fields) Wrong(name string, raw json.RawMessage, expected string) {
	f.Fail(BadField(name, "found %s, expected %s", KindOf(raw), expected))
}

// Number reads a number.
func (f *Fields) Number(name string, absent float64) float64 {
	return read(f, name, absent, "a number")
}

// Whole reads a whole number from low to high, which may be written as 16.0.
func (f *Fields) Whole(name string, absent, low, high int) int {
	raw, ok := f.Get(name)
	if !ok {
		return absent
	}
	var v float64
	if json.Unmarshal(raw, &v) != nil || v != math.Trunc(v) || v < float64(low) || v > float64(high) {
		f.Wrong(name, raw, fmt.Sprintf("a whole number from %d to %d", low, high))
		return absent
	}
	return int(v)
}

// Boolean reads true or false.
func (f *Fields) Boolean(name string, absent bool) bool {
	return read(f, name, absent, "true or false")
}

// Text reads a string.
func (f *Fields) Text(name, absent string) string {
	return read(f, name, absent, "a string")
}

func read[T any](f *Fields, name string, absent T, expected string) T {
	raw, ok := f.Get(name)
	if !ok {
		return absent
	}
	v := absent
	if json.Unmarshal(raw, &v) != nil {
		f.Wrong(name, raw, expected)
		return absent
	}
	return v
}

// Object reads an object; where there is none, one without members. Its errors become f's by Join.
func (f *Fields) Object(name string) *Fields {
	inner := &Fields{}
	if raw, ok := f.Get(name); ok && json.Unmarshal(raw, &inner.raw) != nil {
		f.Wrong(name, raw, "an object")
	}
	return inner
}

// Join remembers the error of an object that is f's field of the given name.
func (f *Fields) Join(name string, inner *Fields) {
	if inner.err != nil {
		f.Fail(BadField(name, "%s", inner.err))
	}
}

// Objects reads an array of objects.
func (f *Fields) Objects(name string) []*Fields {
	raw, ok := f.Get(name)
	if !ok {
		return nil
	}
	var all []map[string]json.RawMessage
	if json.Unmarshal(raw, &all) != nil {
		f.Wrong(name, raw, "an array of objects")
		return nil
	}
	inner := make([]*Fields, len(all))
	for i := range all {
		if inner[i] = (&Fields{raw: all[i]}); all[i] == nil {
			f.Fail(BadField(name, "element %d: found null, expected an object", i))
		}
	}
	return inner
}

// IDs reads an array of token ids.
func (f *Fields) IDs(name string) []int32 {
	raw, ok := f.Get(name)
	if !ok {
		return nil
	}
	v, ok := TokenIDs(raw)
	if !ok {
		f.Wrong(name, raw, "an array of token ids")
	}
	return v
}

// TokenIDs reads an array of whole numbers.
func TokenIDs(raw json.RawMessage) ([]int32, bool) { return elements[int32](raw) }

// elements reads an array that holds no null.
func elements[T any](raw json.RawMessage) ([]T, bool) {
	var v []*T
	if json.Unmarshal(raw, &v) != nil {
		return nil, false
	}
	all := make([]T, len(v))
	for i, p := range v {
		if p == nil {
			return nil, false
		}
		all[i] = *p
	}
	return all, true
}

// Texts reads an array of strings; nil without one.
func (f *Fields) Texts(name string) []string {
	raw, ok := f.Get(name)
	if !ok {
		return nil
	}
	all, ok := elements[string](raw)
	if !ok {
		f.Wrong(name, raw, "an array of strings")
	}
	return all
}

// maxStops bounds the stop texts of a request.
const maxStops = 64

// Stops reads stop texts: a string or an array of strings. Empty ones, which some clients send, stop nothing.
func (f *Fields) Stops(name string) []string {
	raw, ok := f.Get(name)
	if !ok {
		return nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		if one == "" {
			return nil
		}
		return []string{one}
	}
	all, ok := elements[string](raw)
	switch {
	case !ok:
		f.Wrong(name, raw, "a string or an array of strings")
	case len(all) > maxStops:
		f.Fail(BadField(name, "found %d strings, expected at most %d", len(all), maxStops))
	}
	kept := all[:0]
	for _, s := range all {
		if s != "" {
			kept = append(kept, s)
		}
	}
	return kept
}

// Seed reads a seed of 64 bits; without one, or with a negative one, which some servers take for none, it is random.
func (f *Fields) Seed(name string) uint64 {
	raw, ok := f.Get(name)
	if !ok {
		return NewSeed()
	}
	var n int64
	if json.Unmarshal(raw, &n) != nil {
		var v float64 // 5.0
		if json.Unmarshal(raw, &v) != nil || v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			f.Wrong(name, raw, "a whole number of 64 bits")
			return 0
		}
		n = int64(v)
	}
	if n < 0 {
		return NewSeed()
	}
	return uint64(n)
}

// Bias reads an object of token ids and what is added to their logits.
func (f *Fields) Bias(name string) map[int32]float64 {
	raw, ok := f.Get(name)
	if !ok {
		return nil
	}
	var byID map[string]float64
	if json.Unmarshal(raw, &byID) != nil {
		f.Wrong(name, raw, "an object of token ids and numbers")
		return nil
	}
	bias := make(map[int32]float64, len(byID))
	for key, v := range byID {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			f.Fail(BadField(name, "found a key that is no token id"))
			return nil
		}
		bias[int32(id)] = v
	}
	return bias
}

// Choice reads one of a few words.
func Choice[T any](f *Fields, name string, absent T, words map[string]T, expected string) T {
	word := f.Text(name, "")
	if word == "" {
		return absent
	}
	v, ok := words[word]
	if !ok {
		f.Fail(BadField(name, "found another word, expected %s", expected))
		return absent
	}
	return v
}

// Context reads what every protocol may add to a completion's prompt, if it has no words of its own for it: filename, and files as an array
// of {"filename", "text"}, the most relevant first; and heal.
func (f *Fields) Context(p *infer.Prompt) {
	p.Filename = f.Text("filename", p.Filename)
	for i, o := range f.Objects("files") {
		file := infer.File{Name: o.Text("filename", ""), Text: o.Text("text", "")}
		if o.err != nil {
			f.Fail(BadField("files", "element %d: %s", i, o.err))
			return
		}
		p.Files = append(p.Files, file)
	}
	p.Heal = f.Boolean("heal", p.Heal)
}

// Shape reads what every protocol may say about a completion's form: lines ("all", "one", "block", "auto"), no_overlap, no_loops and n_indent.
func (f *Fields) Shape(absent infer.Shape) infer.Shape {
	return infer.Shape{
		Lines:     Choice(f, "lines", absent.Lines, infer.LineNames(), "all, one, block or auto"),
		NoOverlap: f.Boolean("no_overlap", absent.NoOverlap),
		NoLoops:   f.Boolean("no_loops", absent.NoLoops),
		MinIndent: f.Whole("n_indent", absent.MinIndent, 0, 1000),
	}
}
