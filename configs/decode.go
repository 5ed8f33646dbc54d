package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the recipe in the YAML file at path. See Parse.
func Load(path string, sets ...string) (Recipe, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Recipe{}, fmt.Errorf("read recipe: %w", err)
	}
	return Parse(path, b, sets)
}

// Parse decodes a recipe from YAML, applies overrides of the form key.path=value (values are YAML too; a number in the path
// selects a list's element), fills in defaults and checks every value. name stands for the data in messages. The error is a
// *Error unless the text is no YAML at all.
func Parse(name string, data []byte, sets []string) (Recipe, error) {
	root, err := parse(name, data)
	if err != nil {
		return Recipe{}, err
	}
	d := decoder{name: name, from: map[*yaml.Node]string{}, where: map[string]string{}}
	for _, s := range sets {
		if err := d.override(root, s); err != nil {
			return Recipe{}, err
		}
	}
	r := defaults(has(root, "lora"))
	if err := d.decode("", root, reflect.ValueOf(&r).Elem()); err != nil {
		return Recipe{}, err
	}
	r.derive()
	if err := (&validator{decoder: &d}).recipe(&r); err != nil {
		return Recipe{}, err
	}
	return r, nil
}

// Error is a mistake in a recipe.
type Error struct {
	Where    string // "recipe.yaml:7" or "--set train.lr=fast"
	Key      string // dotted path; "" for the whole
	Found    string
	Expected string
}

func (e *Error) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("%s: found %s, expected %s", e.Where, e.Found, e.Expected)
	}
	return fmt.Sprintf("%s: %s: found %s, expected %s", e.Where, e.Key, e.Found, e.Expected)
}

// parse returns the mapping at the top of a YAML text with one document.
func parse(name string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return nil, &Error{Where: fmt.Sprintf("%s:%d", name, more.Line), Found: "a second document", Expected: "one"}
	}
	root := doc.Content[0]
	if root.Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, &Error{Where: fmt.Sprintf("%s:%d", name, root.Line), Found: describe(root), Expected: "keys and values"}
	}
	return root, nil
}

func has(root *yaml.Node, key string) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key {
			return root.Content[i+1].Tag != "!!null"
		}
	}
	return false
}

type decoder struct {
	name  string
	from  map[*yaml.Node]string // nodes that come from an override
	where map[string]string     // place of every key given, by dotted path
}

func (d *decoder) place(n *yaml.Node) string {
	if s, ok := d.from[n]; ok {
		return s
	}
	return fmt.Sprintf("%s:%d", d.name, n.Line)
}

// override puts the value of set, "key.path=value", into the tree.
func (d *decoder) override(root *yaml.Node, set string) error {
	where := "--set " + set
	path, value, ok := strings.Cut(set, "=")
	if !ok || path == "" {
		return &Error{Where: where, Found: strconv.Quote(set), Expected: "key.path=value"}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	leaf := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	if len(doc.Content) > 0 {
		leaf = doc.Content[0]
	}
	d.mark(leaf, where)

	at := root
	keys := strings.Split(path, ".")
	for i, key := range keys {
		last := i == len(keys)-1
		var child **yaml.Node
		switch {
		case at.Kind == yaml.SequenceNode:
			n, err := strconv.Atoi(key)
			if err != nil || n < 0 || n >= len(at.Content) {
				return &Error{where, strings.Join(keys[:i+1], "."), strconv.Quote(key), fmt.Sprintf("a number below the list's length %d", len(at.Content))}
			}
			child = &at.Content[n]
		case at.Kind == yaml.MappingNode:
			for j := 0; j+1 < len(at.Content); j += 2 {
				if at.Content[j].Value == key {
					child = &at.Content[j+1]
				}
			}
			if child == nil {
				k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
				v := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
				d.from[k], d.from[v] = where, where
				at.Content = append(at.Content, k, v)
				child = &at.Content[len(at.Content)-1]
			} else if !last && (*child).Tag == "!!null" {
				*child = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
				d.from[*child] = where
			}
		default:
			return &Error{where, strings.Join(keys[:i], "."), describe(at), "keys and values"}
		}
		if last {
			*child = leaf
		}
		at = *child
		for at.Kind == yaml.AliasNode {
			at = at.Alias
		}
	}
	return nil
}

func (d *decoder) mark(n *yaml.Node, where string) {
	d.from[n] = where
	for _, c := range n.Content {
		d.mark(c, where)
	}
}

type defaulter interface{ setDefaults() }

// decode stores n in v, a settable value of a Recipe. Keys that are absent keep what v holds.
func (d *decoder) decode(path string, n *yaml.Node, v reflect.Value) error {
	if _, ok := d.where[path]; !ok && path != "" {
		d.where[path] = d.place(n)
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	wrong := func(expected string) error { return &Error{d.place(n), path, describe(n), expected} }
	if v.Kind() == reflect.Pointer {
		if n.Tag == "!!null" {
			return nil
		}
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
		if def, ok := v.Addr().Interface().(defaulter); ok {
			def.setDefaults()
		}
	}
	if n.Tag == "!!null" {
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(path, n, v)
	case reflect.Slice:
		items := n.Content
		if n.Kind == yaml.ScalarNode && v.Type().Elem().Kind() == reflect.String {
			items = []*yaml.Node{n} // one name stands for a list of one
		} else if n.Kind != yaml.SequenceNode {
			return wrong("a list")
		}
		list := reflect.MakeSlice(v.Type(), len(items), len(items))
		for i, item := range items {
			e := list.Index(i)
			if def, ok := e.Addr().Interface().(defaulter); ok {
				def.setDefaults()
			}
			if err := d.decode(fmt.Sprintf("%s.%d", path, i), item, e); err != nil {
				return err
			}
		}
		v.Set(list)
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			return wrong("text")
		}
		v.SetString(n.Value)
	case reflect.Bool:
		var b bool
		if n.Tag != "!!bool" || n.Decode(&b) != nil {
			return wrong("true or false")
		}
		v.SetBool(b)
	case reflect.Int:
		var i int
		if n.Tag != "!!int" || n.Decode(&i) != nil {
			return wrong("a whole number")
		}
		v.SetInt(int64(i))
	case reflect.Uint64:
		var u uint64
		if n.Tag != "!!int" || n.Decode(&u) != nil {
			return wrong("a whole number from 0 to 18446744073709551615")
		}
		v.SetUint(u)
	case reflect.Float64:
		var f float64
		if (n.Tag != "!!float" && n.Tag != "!!int") || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return wrong("a finite number")
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("%s: recipes have no fields of type %v", path, v.Type())
	}
	return nil
}

func (d *decoder) structure(path string, n *yaml.Node, v reflect.Value) error {
	if n.Kind != yaml.MappingNode {
		return &Error{d.place(n), path, describe(n), "keys and values"}
	}
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		fields[name] = i
		names = append(names, name)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		key := k.Value
		if path != "" {
			key = path + "." + k.Value
		}
		f, ok := fields[k.Value]
		if !ok || k.Kind != yaml.ScalarNode {
			return &Error{d.place(k), path, "unknown key " + strconv.Quote(k.Value), "one of " + strings.Join(names, ", ")}
		}
		if seen[k.Value] {
			return &Error{d.place(k), key, "the key a second time", "it once"}
		}
		seen[k.Value] = true
		// The line of the key, not of a section's first entry; but an overridden value's own place.
		d.where[key] = d.place(k)
		if set, ok := d.from[n.Content[i+1]]; ok {
			d.where[key] = set
		}
		if err := d.decode(key, n.Content[i+1], v.Field(f)); err != nil {
			return err
		}
	}
	return nil
}

// describe names what stands in the file, for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!str" {
			return strconv.Quote(n.Value)
		}
		return n.Value
	}
	return "an alias"
}
