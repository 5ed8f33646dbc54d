package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// shelf is a Source for tests: units of several documents, with rows that hold none.
type shelf [][]string

func (s shelf) Units() int          { return len(s) }
func (s shelf) Fingerprint() string { return fmt.Sprint([][]string(s)) }
func (s shelf) OpenUnit(_ context.Context, unit int, row int64) (Reader, error) {
	if unit >= len(s) {
		return nil, fmt.Errorf("unit %d of %d", unit, len(s))
	}
	return &shelfReader{s[unit], Cursor{Unit: unit, Row: row}}, nil
}

type shelfReader struct {
	rows []string
	at   Cursor
}

func (r *shelfReader) Close() error { return nil }
func (r *shelfReader) Next() (Document, Cursor, error) {
	for {
		at := r.at
		if at.Row >= int64(len(r.rows)) {
			return Document{}, at, io.EOF
		}
		r.at.Row++
		switch text := r.rows[at.Row]; text {
		case "skip":
		case "fail":
			return Document{}, at, errors.New("row fails")
		default:
			return Document{Content: text, Repository: text[:1]}, at, nil
		}
	}
}

func texts(t rapid.TB, src Source, order []int, at Cursor) (list []string, cursors []Cursor) {
	t.Helper()
	r := OpenOrder(context.Background(), src, order, at)
	for {
		d, c, err := r.Next()
		if err == io.EOF {
			return list, cursors
		}
		if err != nil {
			t.Fatal(err)
		}
		list, cursors = append(list, d.Content), append(cursors, c)
	}
}

// TestSources: filters, limits and concatenation give the documents a plain list would, and resume at any cursor.
func TestSources(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := 0
		drawShelf := func() (s shelf, plain []string) {
			for range rapid.IntRange(0, 4).Draw(rt, "units") {
				unit := []string{}
				for range rapid.IntRange(0, 4).Draw(rt, "rows") {
					text := "skip"
					if rapid.IntRange(0, 3).Draw(rt, "skip") > 0 {
						text = fmt.Sprintf("%c%d", 'a'+n%3, n)
						plain = append(plain, text)
					}
					n++
					unit = append(unit, text)
				}
				s = append(s, unit)
			}
			return s, plain
		}
		a, want := drawShelf()
		b, more := drawShelf()
		src := Concat(a, b)
		want = append(want, more...)
		if rapid.Bool().Draw(rt, "filter") {
			src = Filter(src, "no a", func(d Document) bool { return d.Repository != "a" })
			kept := []string{}
			for _, s := range want {
				if s[0] != 'a' {
					kept = append(kept, s)
				}
			}
			want = kept
		}
		if limit := rapid.IntRange(0, 12).Draw(rt, "limit"); limit > 0 {
			var err error
			if src, err = Limit(context.Background(), src, limit); err != nil {
				rt.Fatal(err)
			}
			want = want[:min(limit, len(want))]
		}
		got, cursors := texts(rt, src, nil, Cursor{})
		if strings.Join(got, " ") != strings.Join(want, " ") {
			rt.Fatalf("%v, want %v", got, want)
		}
		for i, c := range cursors {
			if rest, _ := texts(rt, src, nil, c); strings.Join(rest, " ") != strings.Join(want[i:], " ") {
				rt.Fatalf("from %+v: %v, want %v", c, rest, want[i:])
			}
		}
		order := rapid.Permutation(func() (o []int) {
			for i := range src.Units() {
				o = append(o, i)
			}
			return
		}()).Draw(rt, "order")
		shuffled, cursors := texts(rt, src, order, Cursor{})
		if len(shuffled) != len(want) {
			rt.Fatalf("in order %v: %v", order, shuffled)
		}
		for i, c := range cursors {
			if rest, _ := texts(rt, src, order, c); strings.Join(rest, " ") != strings.Join(shuffled[i:], " ") {
				rt.Fatalf("order %v from %+v: %v, want %v", order, c, rest, shuffled[i:])
			}
		}
	})
}

func TestReaderErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := Open(ctx, shelf{{"a1", "a2", "fail", "a3"}}, Cursor{})
	for range 2 {
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "row fails") {
			t.Errorf("%v; want the row's error, and again", err)
		}
	}
	r = Open(ctx, shelf{{"a1", "a2"}}, Cursor{})
	cancel()
	if _, _, err := r.Next(); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, _, err := Open(context.Background(), shelf{{"a"}}, Cursor{Unit: -1}).Next(); err == nil || err == io.EOF {
		t.Errorf("negative cursor: %v", err)
	}
	if _, err := Load(context.Background(), Slice{{Content: "12345"}, {Content: "67890", Origin: Origin{File: "f", Row: 1}}}, 9); err == nil || !strings.Contains(err.Error(), "f: row 1") {
		t.Errorf("memory limit: %v", err)
	}
	n := 0
	for _, err := range Documents(context.Background(), shelf{{"a1"}, {"fail"}, {"a2"}}) {
		if n++; n == 2 && err == nil {
			t.Error("the error was lost")
		}
	}
	if n != 2 {
		t.Errorf("%d steps, want one document and one error", n)
	}
}

func TestCollectStats(t *testing.T) {
	src := Slice{
		{Content: "a\nb\n", Language: "go", Repository: "r"},
		{Content: "c", Language: "go", Repository: "r"},
		{Content: "", Language: "go", Repository: "s"},
		{IDs: []int32{1, 2, 3}},
	}
	got, err := CollectStats(context.Background(), src, func(s string) []int32 { return make([]int32, len(s)) })
	want := []LanguageStats{{Documents: 1, Tokens: 3}, {Language: "go", Documents: 3, Bytes: 5, Lines: 3, Repositories: 2, Tokens: 5}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := CollectStats(context.Background(), Slice{}, nil); err == nil {
		t.Error("no documents: no error")
	}
}

func TestFingerprints(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range []Slice{nil, {{}}, {{Content: "ab"}}, {{Content: "a", Repository: "b"}}, {{Content: "a"}, {Content: "b"}}, {{IDs: []int32{1}}}, {{IDs: []int32{1, 2}}}} {
		f := s.Fingerprint()
		if seen[f] {
			t.Errorf("%+v: fingerprint is not its own", s)
		}
		seen[f] = true
	}
}
