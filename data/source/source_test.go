package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/data"
	"autodev/internal/sharedtest"
)

// quiet is for tests that skip documents on purpose.
var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, opts Options, specs ...string) *Set {
	t.Helper()
	opts.Logger = quiet
	s, err := Open(context.Background(), opts, specs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readAll(t testing.TB, src data.Source) []data.Document {
	t.Helper()
	docs, err := data.Load(context.Background(), src, 0)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

type expectedRow struct {
	Size   int64   `json:"size"`
	Path   string  `json:"path"`
	SHA256 *string `json:"content_sha256"`
}

func readExpected(t testing.TB) []expectedRow {
	t.Helper()
	b, err := os.ReadFile(sharedtest.Path(t, "parquet/variants/expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []expectedRow
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestParquetVariants(t *testing.T) {
	expected := readExpected(t)
	files, err := filepath.Glob(filepath.Join(sharedtest.Path(t, "parquet/variants"), "*.parquet"))
	if err != nil || len(files) < 17 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want := expected
			if filepath.Base(name) == "zero-rows.parquet" {
				want = nil
			}
			s := open(t, Options{}, name)
			byRow := map[int64]data.Document{}
			for _, d := range readAll(t, s) {
				byRow[d.Origin.Row] = d
			}
			nulls := 0
			for i, w := range want {
				d, ok := byRow[int64(i)]
				if w.SHA256 == nil {
					if filepath.Base(name) == "required-content.parquet" {
						// A required column cannot hold the null; the file has an empty text there.
						if !ok || d.Content != "" {
							t.Errorf("row %d: %q, %v", i, d.Content, ok)
						}
						continue
					}
					nulls++
					if ok {
						t.Errorf("row %d: a null content was returned as %q", i, d.Content)
					}
					continue
				}
				if !ok {
					t.Errorf("row %d is missing", i)
					continue
				}
				if h := sha256.Sum256([]byte(d.Content)); hex.EncodeToString(h[:]) != *w.SHA256 {
					t.Errorf("row %d: content of %d bytes has another hash", i, len(d.Content))
				}
				if filepath.Base(name) != "content-only.parquet" && (d.Path != w.Path || d.Repository == "" || d.Language != "ruby") {
					t.Errorf("row %d: path %q, repository %q, language %q; want %q", i, d.Path, d.Repository, d.Language, w.Path)
				}
			}
			if got := s.Skipped()[skipNull]; got != nulls {
				t.Errorf("%d nulls counted, want %d", got, nulls)
			}
			if len(byRow)+nulls != len(want) {
				t.Errorf("%d documents and %d nulls, want %d rows", len(byRow), nulls, len(want))
			}
		})
	}
}

// TestResumeAnywhere checks that reading from any cursor gives the rest of the documents.
func TestResumeAnywhere(t *testing.T) {
	for _, name := range []string{"rowgroups-7", "v2pages-zstd", "dict-fallback", "delta-byte-array"} {
		s := open(t, Options{}, sharedtest.Path(t, "parquet/variants/"+name+".parquet"))
		checkResume(t, name, s)
	}
}

func checkResume(t *testing.T, name string, s data.Source) {
	t.Helper()
	ctx := context.Background()
	var docs []data.Document
	var at []data.Cursor
	r := data.Open(ctx, s, data.Cursor{})
	for {
		d, c, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		docs, at = append(docs, d), append(at, c)
	}
	if len(docs) < 2 {
		t.Fatalf("%s: %d documents", name, len(docs))
	}
	for i := range docs {
		for _, from := range []data.Cursor{at[i], {Unit: at[i].Unit, Row: at[i].Row + 1}} {
			want := docs[i:]
			if from != at[i] {
				want = docs[i+1:]
			}
			r := data.Open(ctx, s, from)
			for j := range min(3, len(want)) {
				d, _, err := r.Next()
				if err != nil || d.Content != want[j].Content || d.Origin != want[j].Origin {
					t.Fatalf("%s: document %d after resuming at %+v: %v, %v; want %v", name, j, from, d.Origin, err, want[j].Origin)
				}
			}
			if len(want) == 0 {
				if _, _, err := r.Next(); err != io.EOF {
					t.Errorf("%s: at the end: %v", name, err)
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestBadParquet reads every damaged file through the default column and through each of its own columns.
func TestBadParquet(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(sharedtest.Path(t, "parquet/bad"), "*.parquet"))
	if err != nil || len(files) < 11 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	// The damaged column of each file, and what the message must say.
	damaged := map[string][2]string{
		"ARROW-GH-41317.parquet":              {"timestamp_us_no_tz", "expected one string a row"},
		"ARROW-GH-41321.parquet":              {"map_float32.key_value.value", `no column "map_float32.key_value.value"`},
		"ARROW-GH-43605.parquet":              {"min_fl", "expected one string a row"},
		"ARROW-GH-45185.parquet":              {"x", `no column "x" among`},
		"ARROW-GH-47662.parquet":              {"flba_field", "expected one string a row"},
		"ARROW-RS-GH-6229-DICTHEADER.parquet": {"name", "row group 0: row 0: column name: page header at offset"},
		"ARROW-RS-GH-6229-LEVELS.parquet":     {"outer", `no column "outer" among`},
		"PARQUET-1481.parquet":                {"Handle", "expected one string a row"},
		"negative_page_size.parquet":          {"id", "expected one string a row"},
		"negative_row_group_num_rows.parquet": {"name", "row group 0"},
		"num_values_exceeds_data.parquet":     {"id", "expected one string a row"},
	}
	for _, name := range files {
		base := filepath.Base(name)
		t.Run(base, func(t *testing.T) {
			start := time.Now()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			read := func(column string) (int, error) {
				s, err := Open(context.Background(), Options{Column: column, Logger: quiet}, name)
				if err != nil {
					return 0, err
				}
				docs, err := data.Load(context.Background(), s, 0)
				return len(docs), err
			}
			d, ok := damaged[base]
			if !ok {
				t.Fatalf("no expectation for %s", base)
			}
			for _, column := range []string{"content", d[0]} {
				n, err := read(column)
				if err == nil {
					t.Fatalf("column %s: %d documents and no error", column, n)
				}
				if !strings.Contains(err.Error(), base) || strings.Contains(err.Error(), "\n") {
					t.Errorf("column %s: the message does not name the file in one line: %v", column, err)
				}
				if column == d[0] && !strings.Contains(err.Error(), d[1]) {
					t.Errorf("column %s: %v; want %q", column, err, d[1])
				}
				t.Log(strings.TrimPrefix(err.Error(), filepath.Dir(name)+"/"))
			}
			runtime.ReadMemStats(&after)
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 50 {
				t.Errorf("allocated %d MB", mb)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestCorpusLayout(t *testing.T) {
	root := sharedtest.Path(t, "corpus/test")
	s := open(t, Options{Languages: []string{"C#", "ruby"}}, root)
	count := map[string]int{}
	repos := map[string]bool{}
	for _, d := range readAll(t, s) {
		count[d.Language]++
		repos[d.Repository] = true
	}
	if count["c-sharp"] != 441 || count["ruby"] != 758 || len(count) != 2 {
		t.Errorf("documents by language: %v", count)
	}
	if !repos["grpc"] {
		t.Errorf("repositories: %v", repos)
	}
	glob := open(t, Options{MaxDocuments: 5}, filepath.Join(root, "rust", "*.parquet"))
	if docs := readAll(t, glob); len(docs) != 5 || docs[0].Language != "rust" {
		t.Errorf("%d documents of %q", len(docs), docs[0].Language)
	}
	checkResume(t, "limited", glob)
}

// TestDamagedInTheMiddle checks that an error deep inside a run names file, row group and row.
func TestDamagedInTheMiddle(t *testing.T) {
	good, err := os.ReadFile(sharedtest.Path(t, "parquet/variants/rowgroups-7.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cut := slices.Clone(good)
	// Zero a stretch in the middle: pages of a middle row group.
	clear(cut[len(cut)/2 : len(cut)/2+30000])
	for name, b := range map[string][]byte{"a-good.parquet": good, "b-damaged.parquet": cut} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{}, dir)
	docs, err := 0, error(nil)
	for _, e := range data.Documents(context.Background(), s) {
		if err = e; e == nil {
			docs++
		}
	}
	if err == nil || docs < 120 {
		t.Fatalf("%d documents, error %v", docs, err)
	}
	for _, part := range []string{"b-damaged.parquet", "row group ", "row ", "column content"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: does not say %q", err, part)
		}
	}
	t.Log(err)
	for _, n := range []int{0, 3, 100, len(good) / 2, len(good) - 1} {
		name := filepath.Join(dir, "short.parquet")
		if err := os.WriteFile(name, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), Options{Logger: quiet}, name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a file cut to %d bytes: %v", n, err)
		}
	}
}
