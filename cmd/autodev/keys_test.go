package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"autodev/serve/guard"
)

func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	out, err := runWith(t.Context(), "", "keys", "add", "--file", file, "--requests-per-minute", "90", "--tokens-per-day", "5000000000", "ann")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runWith(t.Context(), "", "keys", "add", "--file", file, "bob"); err != nil {
		t.Fatal(err)
	}
	keys, err := guard.OpenKeys(file, nil)
	if err != nil || keys.Find(strings.TrimSuffix(out, "\n")) == nil {
		t.Errorf("the printed key %q is not one of the file's: %v", out, err)
	}
	out, err = runWith(t.Context(), "", "keys", "list", "--file", file)
	lines := strings.Split(out, "\n")
	if err != nil || len(lines) != 4 || strings.Join(strings.Fields(lines[1])[2:], " ") != "90 5000000000 – –" || !strings.HasPrefix(lines[2], "bob ") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := runWith(t.Context(), "", "keys", "revoke", "--file", file, "ann"); err != nil {
		t.Fatal(err)
	}
	if out, err = runWith(t.Context(), "", "keys", "list", "--file", file); err != nil || strings.Contains(out, "ann") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"keys", "add", "x"}, 2, "--file is missing, expected the file of keys"},
		{[]string{"keys", "add", "--file", file}, 2, "keys add: found 0 arguments, expected 1"},
		{[]string{"keys", "list", "--file", file, "x"}, 2, "keys list: found 1 arguments, expected 0"},
		{[]string{"keys", "add", "--file", file, "a b"}, 2, `name: found "a b"`},
		{[]string{"keys", "add", "--file", file, "--concurrent", "-1", "c"}, 2, "-1 at once"},
		{[]string{"keys", "revoke", "--file", file, "eve"}, 1, `has no key named "eve"`},
		{[]string{"keys", "list", "--file", file + "x"}, 1, "no such file"},
		{[]string{"keys", "frob"}, 2, `unknown command "frob"`},
	} {
		_, err := runWith(t.Context(), "", c.args...)
		var message bytes.Buffer
		if code := report(t.Context(), &message, err); code != c.code || !strings.Contains(message.String(), c.want) {
			t.Errorf("%v: exit code %d, %q; expected %d, %q", c.args, code, message.String(), c.code, c.want)
		}
	}
}
