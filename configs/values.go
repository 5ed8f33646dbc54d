package configs

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Value is one setting of a recipe as text.
type Value struct {
	Key  string // dotted path, as --set takes it
	Text string
}

// Values lists every setting in the order of the struct, with absent optional sections left out. Two recipes with the same
// values are the same recipe.
func (r *Recipe) Values() []Value { return appendValues(nil, "", reflect.ValueOf(r)) }

func appendValues(list []Value, path string, v reflect.Value) []Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return list
		}
		return appendValues(list, path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("yaml")
			if path != "" {
				key = path + "." + key
			}
			list = appendValues(list, key, v.Field(i))
		}
		return list
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String {
			names := make([]string, v.Len())
			for i := range names {
				names[i] = strconv.Quote(v.Index(i).String())
			}
			return append(list, Value{path, "[" + strings.Join(names, ", ") + "]"})
		}
		for i := range v.Len() {
			list = appendValues(list, fmt.Sprintf("%s.%d", path, i), v.Index(i))
		}
		return list
	case reflect.String:
		return append(list, Value{path, strconv.Quote(v.String())})
	case reflect.Float64:
		return append(list, Value{path, number(v.Float())})
	}
	return append(list, Value{path, fmt.Sprint(v.Interface())})
}
