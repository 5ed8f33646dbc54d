package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"autodev/data"
	"autodev/data/source"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func lines(t *testing.T, path string) (all []Line) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := ReadLines(bytes.NewReader(b), path, func(l Line) error {
		all = append(all, l)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func suggestion(id string) Completion {
	return Completion{
		ID: id, Model: "m", Adapter: "a", Language: "python", Path: "secret/path.py", Prefix: "def secret(x):\n    ", Suffix: "\nprint(1)\n",
		Choices: []string{"return x", "\nif x:\n    return secret"},
	}
}

func TestWithoutContent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	var seen []Type
	l := open(t, Options{Dir: dir})
	l.Observe(func(e Event) { seen = append(seen, e.Type) })
	l.now = func() time.Time { return noon }
	l.Remember(suggestion("cmpl-1"))
	for _, e := range []Event{{Type: View, Completion: "cmpl-1", View: "v-1"}, {Type: Select, Completion: "cmpl-1", View: "v-1", Kind: "line", Elapsed: 1500 * time.Millisecond}, {Type: Dismiss, Completion: "cmpl-1"}} {
		if err := l.Record(e); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "events-2026-05-06.jsonl")
	b, err := os.ReadFile(path)
	want := `{"time":"2026-05-06T12:00:00Z","type":"view","completion_id":"cmpl-1","choice_index":0,"view_id":"v-1","model":"m","adapter":"a","language":"python","content":null}
{"time":"2026-05-06T12:00:00Z","type":"select","completion_id":"cmpl-1","choice_index":0,"view_id":"v-1","select_kind":"line","elapsed_ms":1500,"model":"m","adapter":"a","language":"python","content":null}
{"time":"2026-05-06T12:00:00Z","type":"dismiss","completion_id":"cmpl-1","choice_index":0,"model":"m","adapter":"a","language":"python","content":null}
`
	if err != nil || string(b) != want {
		t.Errorf("%v\n%s\nexpected\n%s", err, b, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: expected mode 0600", info.Mode(), err)
	}
	if fmt.Sprint(seen) != "[view select dismiss]" {
		t.Errorf("observed %v", seen)
	}
	if c := l.table.get("cmpl-1", ""); c == nil || c.Prefix+c.Suffix+c.Path != "" || c.Choices != nil {
		t.Errorf("text is kept in memory that is never used: %+v", c)
	}
}

// TestContent: what was taken is a document for package data/source, and everything else is skipped by it.
func TestContent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Content: true})
	l.now = func() time.Time { return noon }
	l.Remember(suggestion("cmpl-1"))
	for _, e := range []Event{
		{Type: View, Completion: "cmpl-1"},
		{Type: Select, Completion: "cmpl-1"},
		{Type: Select, Completion: "cmpl-1", Choice: 1, Kind: "line"},
		{Type: Select, Completion: "cmpl-1", Choice: 2},
		{Type: Dismiss, Completion: "cmpl-1"},
	} {
		if err := l.Record(e); err != nil {
			t.Fatal(err)
		}
	}
	set, err := source.Open(t.Context(), source.Options{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for d, err := range data.Documents(t.Context(), set) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Language+"|"+d.Path+"|"+d.Content)
	}
	want := []string{
		"python|secret/path.py|def secret(x):\n    return x\nprint(1)\n",
		"python|secret/path.py|def secret(x):\n    \nif x:\nprint(1)\n",
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("documents %q, expected %q", got, want)
	}
	if n := set.Skipped(); len(n) != 1 {
		t.Errorf("skipped %v", n)
	}
	second := lines(t, filepath.Join(dir, "events-2026-05-06.jsonl"))[2]
	if second.Taken != "\nif x:" || second.Prefix != "def secret(x):\n    " || second.Suffix != "\nprint(1)\n" {
		t.Errorf("%+v", second)
	}
}

func TestBadEvents(t *testing.T) {
	l := open(t, Options{})
	l.Observe(func(Event) { t.Error("an event that is none was counted") })
	for field, e := range map[string]Event{
		"type":          {Type: "accept", Completion: "c"},
		"completion_id": {Type: View},
		"view_id":       {Type: View, Completion: "c", View: "def f(): pass"},
		"select_kind":   {Type: View, Completion: "c", Kind: "word"},
		"choice_index":  {Type: View, Completion: "c", Choice: -1},
		"elapsed":       {Type: View, Completion: "c", Elapsed: -1},
	} {
		var invalid *InvalidError
		if err := l.Record(e); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%+v: %v, expected an error of %s", e, err, field)
		}
	}
	for _, id := range []string{strings.Repeat("x", 129), "a b", "é", "a\n"} {
		if err := l.Record(Event{Type: View, Completion: id}); err == nil {
			t.Errorf("id %q was accepted", id)
		}
	}
}

func TestDays(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	for i := range 3 {
		l.now = func() time.Time { return noon.Add(time.Duration(i) * 12 * time.Hour) }
		l.Remember(Completion{ID: fmt.Sprint("c", i)})
		if err := l.Record(Event{Type: View, Completion: fmt.Sprint("c", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(lines(t, filepath.Join(dir, "events-2026-05-06.jsonl"))); n != 1 {
		t.Errorf("%d events on the first day, expected 1", n)
	}
	if n := len(lines(t, filepath.Join(dir, "events-2026-05-07.jsonl"))); n != 2 {
		t.Errorf("%d events on the second day, expected 2", n)
	}
}

// TestTornLine: what a killed server left of a line is gone, whole lines stay.
func TestTornLine(t *testing.T) {
	for _, torn := range []string{"", `{"type":"vi`, strings.Repeat("x", 200_000)} {
		dir := t.TempDir()
		path := filepath.Join(dir, "events-"+time.Now().UTC().Format(time.DateOnly)+".jsonl")
		whole := `{"type":"view","completion_id":"a","content":null}` + "\n"
		if err := os.WriteFile(path, []byte(whole+torn), 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{Dir: dir})
		l.Remember(Completion{ID: "b"})
		if err := l.Record(Event{Type: Dismiss, Completion: "b"}); err != nil {
			t.Fatal(err)
		}
		if all := lines(t, path); len(all) != 2 || all[0].Completion != "a" || all[1].Completion != "b" {
			t.Errorf("%+v", all)
		}
		if info, err := os.Stat(path); err != nil || l.total != info.Size() {
			t.Errorf("counted %d bytes, the file has %d (%v)", l.total, info.Size(), err)
		}
	}
}

func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "events-2020-01-01.jsonl"), make([]byte, 900), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l := open(t, Options{Dir: dir, MaxBytes: 1050, MaxClientBytes: 1050, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var kept int
	for i := range 5 {
		l.Remember(Completion{ID: fmt.Sprint(i)})
		switch err := l.Record(Event{Type: View, Completion: fmt.Sprint(i)}); {
		case err == nil:
			kept++
		case !errors.Is(err, ErrFull):
			t.Fatal(err)
		}
	}
	// A line has more than 75 bytes and less than 150.
	if kept != 1 || strings.Count(log.String(), "full") != 1 {
		t.Errorf("%d events were kept, expected 1; log: %s", kept, &log)
	}
}

// TestUnknown: what nobody got here, or somebody else, is neither kept nor counted.
func TestUnknown(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		l := open(t, Options{Dir: dir})
		l.Observe(func(e Event) { t.Errorf("%+v is counted", e) })
		l.Remember(Completion{ID: "cmpl-1", Client: "a"})
		l.Remember(Completion{ID: "cmpl-2"})
		for _, e := range []Event{{Type: View, Completion: "other"}, {Type: Select, Completion: "cmpl-1"}, {Type: Select, Completion: "cmpl-1", Client: "b"}, {Type: Dismiss, Completion: "cmpl-2", Client: "a"}} {
			if err := l.Record(e); !errors.Is(err, ErrUnknown) {
				t.Errorf("%+v: %v", e, err)
			}
		}
		if l.total != 0 {
			t.Errorf("%d bytes are kept", l.total)
		}
	}
}

// TestClientShare: a client that reports without end fills neither the folder nor what others may add, and the next day it may again.
func TestClientShare(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, MaxBytes: 32 * 500, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	now := noon
	l.now = func() time.Time { return now }
	for _, client := range []string{"", "b"} {
		l.Remember(Completion{ID: "cmpl-" + client, Client: client})
	}
	for day := range 2 {
		for _, client := range []string{"", "b"} {
			before, kept := l.total, 0
			for range 100 {
				switch err := l.Record(Event{Type: View, Completion: "cmpl-" + client, Client: client}); {
				case err == nil:
					kept++
				case !errors.Is(err, ErrFull):
					t.Fatal(err)
				}
			}
			if n := l.total - before; kept == 0 || n > 500 || n < 350 {
				t.Errorf("day %d: %d events of %q, %d bytes, expected up to 500", day, kept, client, n)
			}
		}
		if n := strings.Count(log.String(), "not kept any more today"); n != 2*(day+1) {
			t.Errorf("day %d: told %d times\n%s", day, n, &log)
		}
		now = now.Add(24 * time.Hour)
	}
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Content: true})
	l.now = func() time.Time { return noon }
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				id := fmt.Sprint(i, ".", j)
				c := suggestion(id)
				c.Choices[0] = id
				l.Remember(c)
				if err := l.Record(Event{Type: Select, Completion: id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	all := lines(t, filepath.Join(dir, "events-2026-05-06.jsonl"))
	for _, l := range all {
		if l.Taken != l.Completion {
			t.Errorf("%+v", l)
		}
	}
	if len(all) != 800 {
		t.Errorf("%d events, expected 800", len(all))
	}
}

func TestTable(t *testing.T) {
	tab := newTable()
	for i := range maxCompletions + 10 {
		tab.put(&Completion{ID: fmt.Sprint(i)})
	}
	if tab.order.Len() != maxCompletions || tab.get("9", "") != nil || tab.get("10", "") == nil {
		t.Errorf("%d completions are kept", tab.order.Len())
	}
	big := strings.Repeat("x", 1<<20)
	for i := range 40 {
		tab.put(&Completion{ID: fmt.Sprint("big", i), Prefix: big})
	}
	if tab.bytes > maxTableBytes || tab.get("10", "") != nil || tab.get("big39", "") == nil || len(tab.byID) != tab.order.Len() {
		t.Errorf("%d bytes are kept", tab.bytes)
	}
	tab.put(&Completion{ID: "big39", Model: "again"})
	if c := tab.get("big39", ""); c.Model != "again" {
		t.Errorf("%+v", c)
	}
	for tab.order.Len() > 0 {
		tab.remove(tab.order.Front())
	}
	if tab.bytes != 0 || len(tab.byID) != 0 {
		t.Errorf("%d bytes in nothing", tab.bytes)
	}
}

func TestAroundIsBounded(t *testing.T) {
	l := open(t, Options{Dir: t.TempDir(), Content: true})
	l.Remember(Completion{ID: "c", Prefix: strings.Repeat("é", maxAround) + "x", Suffix: "x" + strings.Repeat("é", maxAround)})
	c := l.table.get("c", "")
	if len(c.Prefix) != maxAround-1 || !strings.HasPrefix(c.Prefix, "é") || !strings.HasSuffix(c.Prefix, "éx") || len(c.Suffix) != maxAround-1 || !strings.HasSuffix(c.Suffix, "é") {
		t.Errorf("%d and %d bytes, %.3q…", len(c.Prefix), len(c.Suffix), c.Prefix)
	}
}

func TestDocuments(t *testing.T) {
	doc := func(path, prefix, taken, suffix string) Line {
		whole := prefix + taken + suffix
		return Line{Type: Select, Path: path, Prefix: prefix, Taken: taken, Suffix: suffix, Content: &whole}
	}
	var d Documents
	for _, l := range []Line{
		{Type: View},
		{Type: Select},
		doc("a.py", "x = ", "1", "\n"),
		doc("b.py", "x = ", "1", "\n"),
		doc("a.py", "x = 1\ny = ", "2", "\n"),      // has the first
		doc("a.py", "x = 1\ny = 3\nz = ", "4", ""), // y was changed: what was taken is no longer there
		doc("a.py", "q", " \n", ""),                // nothing
	} {
		d.Add(l)
	}
	var got []string
	if err := d.All(func(l Line) error {
		got = append(got, l.Path+"|"+*l.Content)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{"b.py|x = 1\n", "a.py|x = 1\ny = 2\n", "a.py|x = 1\ny = 3\nz = 4"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%q, expected %q", got, want)
	}
}

func FuzzReadLines(f *testing.F) {
	f.Add([]byte(`{"type":"select","content":"x","completion":"x"}` + "\n\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Documents
		if ReadLines(bytes.NewReader(b), "f", func(l Line) error {
			d.Add(l)
			return nil
		}) == nil {
			_ = d.All(func(l Line) error {
				if l.Content == nil {
					t.Error("a document without text")
				}
				_, err := json.Marshal(l)
				return err
			})
		}
	})
}
