package typing

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"autodev/internal/edits"
	"autodev/internal/sharedtest"
)

// texts returns files to make traces of: this package's, and where they are, real ones.
func texts(t *testing.T) []string {
	all := Samples()
	for _, language := range edits.Languages() {
		n := 0
		err := edits.Files(context.Background(), sharedtest.Path(t, "corpus/test"), language, func(text string) bool {
			if Suits(text, 8) {
				all = append(all, text)
				n++
			}
			return n < 10
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestTraces: whatever mistakes are made, the file is in the end what it was, and suggestions that are taken are what was shown.
func TestTraces(t *testing.T) {
	files := texts(t)
	for _, o := range []TraceOptions{{Seed: 1, Lines: 8, Accept: true, Known: 0.35}, {Seed: 2, Lines: 4, Known: 1}, {Seed: 3, Lines: 3, Accept: true}} {
		traces := Make(files, o)
		if len(traces) < len(files)/2 {
			t.Fatalf("%d traces of %d files", len(traces), len(files))
		}
		kinds := map[string]int{}
		var known int
		for i, tr := range traces {
			doc := document{tr.Text, tr.Cursor}
			for k, s := range tr.Steps {
				if s.Delay <= 0 || s.Answer == "" || s.Jump > len(doc.text) || s.Erase > doc.cursor {
					t.Fatalf("trace %d, step %d: %+v", i, k, s)
				}
				if s.Accept {
					last := tr.Steps[k-1]
					if kinds["accept"]++; !last.Wait || last.Answer != s.Insert || !o.Accept {
						t.Fatalf("trace %d, step %d: %q taken after %+v", i, k, s.Insert, last)
					}
				}
				if s.Erase > 0 {
					kinds["erase"]++
				}
				if s.Jump >= 0 {
					kinds["jump"]++
				}
				if s.Wait {
					kinds["wait"]++
				}
				doc.apply(s)
				if strings.HasPrefix(tr.next(k+1), s.Answer) {
					known++
				}
			}
			found := false
			for _, f := range files {
				found = found || f == doc.text
			}
			if !found {
				t.Errorf("trace %d ends with a file that there was not:\n%s", i, doc.text)
			}
		}
		if kinds["jump"] != 2*len(traces) || kinds["erase"] == 0 || kinds["wait"] == 0 || (kinds["accept"] > 0) != o.Accept || known == 0 {
			t.Errorf("%+v: %v, %d suggestions are right", o, kinds, known)
		}
		if again := Make(files, o); !reflect.DeepEqual(again, traces) {
			t.Errorf("%+v: the same files and seed give other traces", o)
		}
		o.Seed += 100
		if again := Make(files, o); reflect.DeepEqual(again, traces) {
			t.Errorf("%+v: another seed gives the same traces", o)
		}
	}
}

func TestUnsuited(t *testing.T) {
	good := Samples()[0]
	for name, text := range map[string]string{
		"short": "x\n", "long": strings.Repeat(good, 3), "few lines": strings.Repeat("x", 2000), "CRLF": strings.ReplaceAll(good, "\n", "\r\n"), "not UTF-8": good + "\xff", "blank": strings.Repeat("\n", 2000),
	} {
		if Suits(text, 8) {
			t.Errorf("%s: suited", name)
		}
	}
	if !Suits(good, 8) {
		t.Error("not suited")
	}
}

func TestDocument(t *testing.T) {
	d := document{"abc", 1}
	for _, c := range []struct {
		s              Step
		prefix, suffix string
	}{
		{Step{Jump: -1, Insert: "xy"}, "axy", "bc"},
		{Step{Jump: -1, Erase: 1}, "ax", "bc"},
		{Step{Jump: 4, Insert: "!"}, "axbc!", ""},
		{Step{Jump: 1, Erase: 1, Insert: "ß"}, "ß", "xbc!"},
	} {
		if d.apply(c.s); d.prefix() != c.prefix || d.suffix() != c.suffix {
			t.Errorf("%+v: %q %q", c.s, d.prefix(), d.suffix())
		}
	}
	tr := Trace{Steps: []Step{{Jump: -1, Insert: "a"}, {Jump: -1, Insert: "bc"}, {Jump: -1, Erase: 1}, {Jump: -1, Insert: "d"}, {Jump: 0, Insert: "e"}}}
	for i, want := range []string{"abc", "bc", "", "d", ""} {
		if got := tr.next(i); got != want {
			t.Errorf("next of %d: %q, expected %q", i, got, want)
		}
	}
}
