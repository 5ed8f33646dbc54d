package tokenizer_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/parquet-go/parquet-go"

	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

var published = []string{"gpt2", "qwen3", "santacoder", "starcoder", "starcoder2"}

var (
	loadedMu sync.Mutex
	loaded   = map[string]*tokenizer.Tokenizer{}
)

// load returns a published vocabulary, loaded once for all tests.
func load(tb testing.TB, name string) *tokenizer.Tokenizer {
	tb.Helper()
	path := sharedtest.Path(tb, "tokenizers/"+name)
	loadedMu.Lock()
	defer loadedMu.Unlock()
	if t := loaded[name]; t != nil {
		return t
	}
	t, err := tokenizer.Load(path)
	if err != nil {
		tb.Fatal(err)
	}
	loaded[name] = t
	return t
}

func read(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(sharedtest.Path(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func numbers(tb testing.TB, fields []string) []int32 {
	tb.Helper()
	ids := []int32{}
	for _, f := range fields {
		n, err := strconv.ParseInt(f, 10, 32)
		if err != nil {
			tb.Fatal(err)
		}
		ids = append(ids, int32(n))
	}
	return ids
}

func sameIDs(t *testing.T, text string, got, want []int32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%.200q\n got %v\nwant %v", text, clip(got), clip(want))
	}
}

func clip(ids []int32) []int32 { return ids[:min(len(ids), 60)] }

// The .inp and .out files are llama.cpp's, made with the Hugging Face tokenizers.
func TestLlamaCppVectors(t *testing.T) {
	for vectors, vocabulary := range map[string]string{"gpt2": "gpt2", "qwen2": "qwen3", "starcoder": "starcoder", "starcoder2": "starcoder2"} {
		t.Run(vectors, func(t *testing.T) {
			tok := load(t, vocabulary)
			texts := strings.Split(read(t, "tokenizers/vectors/"+vectors+".inp"), "\n__ggml_vocab_test__\n")
			lines := strings.Split(read(t, "tokenizers/vectors/"+vectors+".out"), "\n")
			if len(texts) != 47 || len(lines) != 47 {
				t.Fatalf("found %d texts and %d lines, expected 47", len(texts), len(lines))
			}
			for i, text := range texts {
				sameIDs(t, text, tok.Encode(text), numbers(t, strings.Fields(lines[i])))
			}
		})
	}
}

// The .lines.txt files are ggml's.
func TestGgmlVectors(t *testing.T) {
	for _, name := range []string{"gpt2", "starcoder"} {
		t.Run(name, func(t *testing.T) {
			tok := load(t, name)
			lines := strings.Split(strings.TrimRight(read(t, "tokenizers/vectors/"+name+".lines.txt"), "\n"), "\n")
			if len(lines) != 100 {
				t.Fatalf("found %d lines, expected 100", len(lines))
			}
			for _, line := range lines {
				i := strings.LastIndex(line, " => ")
				text := line[:i]
				sameIDs(t, text, tok.Encode(text), numbers(t, strings.Split(line[i+4:], ",")))
			}
		})
	}
}

// The hf-*.jsonl files are made by Hugging Face tokenizers, which finds special tokens in the text.
func TestHuggingFaceVectors(t *testing.T) {
	for _, name := range []string{"gpt2", "santacoder", "starcoder", "starcoder2"} {
		for _, kind := range []string{"hard", "ids"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				tok := load(t, name)
				n := 0
				for line := range strings.Lines(read(t, "tokenizers/vectors/hf-"+name+"."+kind+".jsonl")) {
					var v struct {
						Text    string
						Decoded *string // absent: the text
						IDs     []int32
					}
					if err := json.Unmarshal([]byte(line), &v); err != nil {
						t.Fatal(err)
					}
					n++
					got := tok.EncodeSpecial(v.Text)
					sameIDs(t, v.Text, got, v.IDs)
					want := v.Text
					if v.Decoded != nil {
						want = *v.Decoded
					}
					if d := tok.Decode(v.IDs); d != want {
						t.Errorf("Decode: got %.200q, want %.200q", d, want)
					}
					if !slices.ContainsFunc(v.IDs, tok.IsSpecial) {
						sameIDs(t, v.Text, tok.Encode(v.Text), v.IDs)
					} else if slices.ContainsFunc(tok.Encode(v.Text), tok.IsSpecial) {
						t.Errorf("Encode(%q) holds a special token", v.Text)
					}
				}
				if n < 35 {
					t.Fatalf("found %d vectors", n)
				}
			})
		}
	}
}

// document is the part of a corpus row that the tests use.
type document struct {
	Repo    string `parquet:"max_stars_repo_name"`
	Path    string `parquet:"max_stars_repo_path"`
	Content string `parquet:"content"`
}

// corpus calls f with every document of the parquet files that match glob, below the shared folder.
func corpus(tb testing.TB, glob string, f func(language string, d document) (more bool)) {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(sharedtest.Path(tb, "corpus"), glob))
	if err != nil || len(names) == 0 {
		tb.Fatalf("%s: no files (%v)", glob, err)
	}
	slices.Sort(names)
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			tb.Fatal(err)
		}
		defer file.Close()
		r := parquet.NewGenericReader[document](file)
		defer r.Close()
		rows := make([]document, 64)
		for {
			n, err := r.Read(rows)
			for _, d := range rows[:n] {
				if !f(filepath.Base(filepath.Dir(name)), d) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				tb.Fatalf("%s: %v", name, err)
			}
		}
	}
}

// hf-*.files.tsv holds a hash of the ids of whole corpus files.
func TestCorpusFileVectors(t *testing.T) {
	if testing.Short() {
		t.Skip("reads the corpus")
	}
	type want struct {
		size, tokens int
		sum          string
	}
	names := []string{"gpt2", "santacoder", "starcoder", "starcoder2"}
	wanted := make(map[string]map[string]want) // vocabulary → language/repository/path → want
	for _, name := range names {
		wanted[name] = make(map[string]want)
		s := bufio.NewScanner(strings.NewReader(read(t, "tokenizers/vectors/hf-"+name+".files.tsv")))
		for s.Scan() {
			f := strings.Split(s.Text(), "\t")
			size, err1 := strconv.Atoi(f[1])
			tokens, err2 := strconv.Atoi(f[2])
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			wanted[name][f[0]] = want{size, tokens, f[3]}
		}
	}
	found := make(map[string]int)
	var ids []int32
	var sum bytes.Buffer
	visit := func(language string, d document) bool {
		if language == "c-sharp" {
			language = "csharp"
		}
		key := language + "/" + d.Repo + "/" + d.Path
		for _, name := range names {
			w, ok := wanted[name][key]
			if !ok || w.size != len(d.Content) {
				continue
			}
			found[name]++
			delete(wanted[name], key)
			tok := load(t, name)
			ids = tok.AppendEncode(ids[:0], d.Content)
			if special := tok.EncodeSpecial(d.Content); slices.ContainsFunc(special, tok.IsSpecial) {
				t.Logf("%s: %s holds a special token", name, key)
				ids = special // the hash is that of an encoding which takes it for one
			}
			sum.Reset()
			for _, id := range ids {
				sum.Write(binary.LittleEndian.AppendUint32(nil, uint32(id)))
			}
			h := sha256.Sum256(sum.Bytes())
			if len(ids) != w.tokens || hex.EncodeToString(h[:]) != w.sum {
				t.Errorf("%s: %s: %d tokens, expected %d with hash %s", name, key, len(ids), w.tokens, w.sum)
			}
		}
		return true
	}
	corpus(t, "data/*/*.parquet", visit)
	corpus(t, "test/*/*.parquet", visit)
	for _, name := range names {
		t.Logf("%s: %d files equal, %d of the list not in the corpus", name, found[name], len(wanted[name]))
		if found[name] < 100 {
			t.Errorf("%s: only %d files of the list are in the corpus", name, found[name])
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	var texts []string
	size := 0
	for _, language := range []string{"python", "java", "javascript", "go"} {
		limit := size + 4<<20
		corpus(b, "data/"+language+"/data-00000-*.parquet", func(_ string, d document) bool {
			texts = append(texts, d.Content)
			size += len(d.Content)
			return size < limit
		})
	}
	for _, name := range published {
		b.Run(name, func(b *testing.B) {
			tok := load(b, name)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var ids []int32
			for b.Loop() {
				for _, text := range texts {
					ids = tok.AppendEncode(ids[:0], text)
				}
			}
		})
	}
}

// BenchmarkEncodeFile is our side of bench/tokenizer/compare.py, which sets the two variables.
func BenchmarkEncodeFile(b *testing.B) {
	name, texts := os.Getenv("AUTODEV_BENCH_TOKENIZER"), os.Getenv("AUTODEV_BENCH_TEXTS")
	if name == "" || texts == "" {
		b.Skip("AUTODEV_BENCH_TOKENIZER and AUTODEV_BENCH_TEXTS are not set")
	}
	tok, err := tokenizer.Load(name)
	if err != nil {
		b.Fatal(err)
	}
	content, err := os.ReadFile(texts)
	if err != nil {
		b.Fatal(err)
	}
	var docs []string
	size := 0
	for line := range bytes.Lines(content) {
		var d struct{ Content string }
		if err := json.Unmarshal(line, &d); err != nil {
			b.Fatal(err)
		}
		docs = append(docs, d.Content)
		size += len(d.Content)
	}
	b.SetBytes(int64(size))
	var ids []int32
	count := 0
	for b.Loop() {
		count = 0
		for _, d := range docs {
			ids = tok.AppendEncode(ids[:0], d)
			count += len(ids)
		}
	}
	b.ReportMetric(float64(count), "tokens")
}
