package configs

import (
	"strings"
	"testing"
)

func TestAssist(t *testing.T) {
	a, err := LoadAssist("examples/assist.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Backends) != 1 || a.Backends[0].Name != "hosted" || a.Backends[0].Retries != 2 || a.Default != "local" || len(a.Use) != 1 {
		t.Errorf("found %+v", a)
	}
	if a, err = ParseAssist("empty", nil); err != nil || a.Default != "local" {
		t.Errorf("found %+v (%v)", a, err)
	}
	backend := "backends:\n  - {name: x, base_url: 'https://h/v1', model: m"
	for text, want := range map[string]string{
		"defualt: x":                           `f:1: found unknown key "defualt"`,
		"default: x":                           `f:1: default: found "x", expected one of local`,
		backend + ", key: k}":                  `unknown key "key"`,
		"backends: [{name: local}]":            "f:1: backends.0.name",
		"backends: [{name: x}]":                "backends.0.base_url",
		backend + ", retries: -1}":             "f:2: backends.0.retries: found -1, expected at least 0",
		backend + ", retries: 99}":             "expected 0 to 10",
		backend + ", timeout_seconds: 0}":      "above 0",
		backend + ", key_env: A, key_file: B}": "expected one of them",
		backend + ", budget_file: B}":          "requests_per_day or tokens_per_day",
		strings.Replace(backend, "https://h", "file:///h", 1) + "}":     "base_url",
		strings.Replace(backend, "https://h", "https://u:p@h", 1) + "}": "base_url",
		backend + "}\nlocal_only: true":                                 "f:3: local_only",
		backend + "}\nuse: [{function: review, backend: y}]":            `f:3: use.0.backend: found "y", expected one of local, x`,
		"use: [{backend: local}]":                                       "use.0.function",
	} {
		if _, err := ParseAssist("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: found error %v, expected %q", text, err, want)
		}
	}
}
