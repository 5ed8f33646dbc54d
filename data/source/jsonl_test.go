package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/data"
)

func jsonLine(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // values of tests always marshal
	}
	return string(b)
}

const someLines = `{"content":"a\n","max_stars_repo_name":"o/r","max_stars_repo_path":"p.rs","lang":"Rust","max_stars_count":2.0}

{"content":null}
{"input_ids":[1,2,3],"path":"x.py"}
{"content":"last","text":"other"}`

func TestJSONL(t *testing.T) {
	dir := t.TempDir()
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write([]byte(someLines)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a.jsonl": []byte(someLines), "b.jsonl.gz": gz.Bytes()} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, Options{}, p)
		docs := readAll(t, s)
		if len(docs) != 3 || s.Skipped()[skipNull] != 1 {
			t.Fatalf("%s: %d documents, skipped %v", name, len(docs), s.Skipped())
		}
		if d := docs[0]; d.Content != "a\n" || d.Repository != "o/r" || d.Path != "p.rs" || d.Language != "rust" || d.Origin != (data.Origin{File: p}) {
			t.Errorf("%s: %+v", name, d)
		}
		if d := docs[1]; !slices.Equal(d.IDs, []int32{1, 2, 3}) || d.Content != "" || d.Language != "python" || d.Origin.Row != 3 {
			t.Errorf("%s: %+v", name, d)
		}
		checkResume(t, name, s)
	}
	if s := open(t, Options{}, dir); s.Units() != 2 {
		t.Errorf("folder of JSON lines: %d units", s.Units())
	}
}

// A file that is cut short while it is read must not pass for one that ends there, even between two lines.
func TestJSONLCutShort(t *testing.T) {
	p := filepath.Join(t.TempDir(), "a.jsonl")
	line := jsonLine(map[string]any{"content": strings.Repeat("x", 1000)}) + "\n"
	if err := os.WriteFile(p, []byte(strings.Repeat(line, 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	r := data.Open(t.Context(), open(t, Options{}, p), data.Cursor{})
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p, int64(150*len(line))); err != nil {
		t.Fatal(err)
	}
	n := 1
	for ; n < 200; n++ {
		_, _, err := r.Next()
		if err == nil {
			continue
		}
		if want := p + ": line 151: the file ends after"; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, expected %s", err, want)
		}
		break
	}
	if n != 150 {
		t.Errorf("read %d documents, expected 150", n)
	}
}

func TestJSONLErrors(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"content":"a"`, "line 2: byte 14: unexpected end of JSON input"},
		{`[1]`, "line 2: expected a JSON object"},
		{`null`, "line 2: expected a JSON object, found null"},
		{`{"text":"a"}`, `line 2: neither "content" nor "input_ids"`},
		{`{"content":5}`, "line 2: content: expected a string"},
		{`{"content":"a","path":5}`, "line 2: path: expected a string"},
		{`{"input_ids":[1,-2]}`, "line 2: input_ids[1]: -2 is not a token id"},
		{`{"input_ids":[1,1.5]}`, "line 2: input_ids: expected a list of token ids"},
		{`{"input_ids":"abc"}`, "line 2: input_ids: expected a list"},
	} {
		name := filepath.Join(t.TempDir(), "x.jsonl")
		if err := os.WriteFile(name, []byte("{\"content\":\"fine\"}\n"+c.line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := data.Load(context.Background(), open(t, Options{}, name), 0)
		if err == nil || !strings.Contains(err.Error(), name+": "+c.want) {
			t.Errorf("%s: %v; want %q", c.line, err, c.want)
		}
	}
	bad := filepath.Join(t.TempDir(), "x.jsonl.gz")
	if err := os.WriteFile(bad, []byte("not gzip at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := data.Load(context.Background(), open(t, Options{}, bad), 0); err == nil || !strings.Contains(err.Error(), "x.jsonl.gz: gzip header") {
		t.Errorf("not gzip: %v", err)
	}
}

// FuzzJSONL checks that any bytes give documents or an error.
func FuzzJSONL(f *testing.F) {
	f.Add([]byte(someLines))
	f.Add([]byte("\xff\n{\"content\":\"\\ud800\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "x.jsonl")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		docs, err := data.Load(context.Background(), open(t, Options{}, name), 0)
		if err != nil && !strings.Contains(err.Error(), "x.jsonl: line ") {
			t.Errorf("no line named: %v", err)
		}
		if lines := bytes.Count(b, []byte("\n")) + 1; len(docs) > lines {
			t.Errorf("%d documents from %d lines", len(docs), lines)
		}
	})
}

func TestJSONLByteOrderMark(t *testing.T) {
	p := filepath.Join(t.TempDir(), "windows.jsonl")
	if err := os.WriteFile(p, []byte("\xef\xbb\xbf{\"content\":\"a\"}\r\n{\"content\":\"b\"}\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if docs := readAll(t, open(t, Options{}, p)); len(docs) != 2 || docs[0].Content != "a" || docs[1].Content != "b" {
		t.Errorf("read %+v", docs)
	}
}

// A file without a document that is wanted does not hold up who has given up.
func TestJSONLStopsBetweenLines(t *testing.T) {
	p := filepath.Join(t.TempDir(), "blank.jsonl")
	if err := os.WriteFile(p, bytes.Repeat([]byte("\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := open(t, Options{}, p).OpenUnit(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, _, err := r.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, expected that of the context", err)
	}
}

// Rows that are skipped are counted once each, and take about a bit each.
func TestSkippedRowsTakeLittle(t *testing.T) {
	s := &tally{seen: map[rowBlock]uint64{}, by: map[string]int{}, log: slog.New(slog.DiscardHandler)}
	for range 2 {
		for row := range int64(6400) {
			s.skip(data.Origin{File: "a", Row: row}, skipNull)
		}
		s.skip(data.Origin{File: "b"}, skipUTF8)
	}
	if n := s.counts(); n[skipNull] != 6400 || n[skipUTF8] != 1 || len(n) != 2 {
		t.Errorf("counted %v", n)
	}
	if len(s.seen) > 101 {
		t.Errorf("%d entries for 6401 rows", len(s.seen))
	}
}
