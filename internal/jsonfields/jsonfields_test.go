package jsonfields

import (
	"encoding/json"
	"testing"
)

func TestGet(t *testing.T) {
	var o Object
	if err := json.Unmarshal([]byte(`{"n": 3, "none": null, "s": "x", "f": 2.5}`), &o.Raw); err != nil {
		t.Fatal(err)
	}
	if n := Get(&o, "n", 7); n != 3 {
		t.Errorf("n = %d, expected 3", n)
	}
	if n := Get(&o, "none", 7) + Get(&o, "missing", 7); n != 14 {
		t.Errorf("absent keys gave %d, expected their defaults", n)
	}
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	if n := Get(&o, "f", 1); n != 1 || o.Err == nil || o.Err.Error() != "f: found 2.5, expected a value of type int" {
		t.Errorf("f = %d, error %v", n, o.Err)
	}
	if s := Get(&o, "s", "default"); s != "default" || o.Err.Error()[0] != 'f' {
		t.Errorf("after an error s = %q, error %v", s, o.Err)
	}
}
