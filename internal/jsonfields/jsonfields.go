// Package jsonfields reads typed values out of a JSON object whose other keys are unknown, such as the configuration files
// of models and adapters.
package jsonfields

import (
	"encoding/json"
	"fmt"
)

// Object is a JSON object being read. It remembers the first error; null counts as absent.
type Object struct {
	Raw map[string]json.RawMessage
	Err error
}

// Absent reports whether key is missing or null.
func (o *Object) Absent(key string) bool {
	v, ok := o.Raw[key]
	return !ok || string(v) == "null"
}

// Get returns the value of key, or or when it is absent, of another type, or after an earlier error.
func Get[T any](o *Object, key string, or T) T {
	if o.Err != nil || o.Absent(key) {
		return or
	}
	var v T
	if err := json.Unmarshal(o.Raw[key], &v); err != nil {
		o.Err = fmt.Errorf("%s: found %.60s, expected a value of type %T", key, o.Raw[key], v)
		return or
	}
	return v
}
