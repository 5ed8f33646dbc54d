package source

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autodev/data"
	"autodev/internal/sharedtest"
)

// server serves one file, with faults.
type server struct {
	*httptest.Server
	body    []byte
	gets    atomic.Int64
	heads   atomic.Int64
	sent    atomic.Int64
	noHead  bool
	noRange bool
	tag     func(get int64) string
	intrude func(w http.ResponseWriter, q *http.Request, get int64) bool // true: has answered
}

func serve(t testing.TB, body []byte) *server {
	s := &server{body: body, tag: func(int64) string { return `"v1"` }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		n := s.gets.Load()
		if q.Method == http.MethodHead {
			s.heads.Add(1)
			if s.noHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
		} else {
			n = s.gets.Add(1)
			if s.intrude != nil && s.intrude(w, q, n) {
				return
			}
		}
		if tag := s.tag(n); tag != "" {
			w.Header().Set("ETag", tag)
		}
		if s.noRange {
			q.Header.Del("Range")
		}
		http.ServeContent(&counter{w, &s.sent}, q, "x.parquet", time.Time{}, bytes.NewReader(s.body))
	}))
	t.Cleanup(s.Close)
	return s
}

type counter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func fast() HTTPOptions { return HTTPOptions{Backoff: time.Millisecond, Block: 16 << 10} }

func variant(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(sharedtest.Path(t, "parquet/variants/"+name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHTTPEqualsLocal(t *testing.T) {
	for _, name := range []string{"codec-snappy.parquet", "rowgroups-7.parquet", "codec-none.parquet"} {
		want := readAll(t, open(t, Options{}, sharedtest.Path(t, "parquet/variants/"+name)))
		for _, fault := range []string{"none", "no HEAD", "no Range", "no HEAD, no Range", "errors"} {
			s := serve(t, variant(t, name))
			s.noHead = strings.Contains(fault, "HEAD")
			s.noRange = strings.Contains(fault, "Range")
			lost := 0 // requests come one at a time
			if fault == "errors" {
				s.intrude = func(w http.ResponseWriter, q *http.Request, n int64) bool {
					switch n % 5 {
					case 1:
						w.WriteHeader(http.StatusServiceUnavailable)
					case 2:
						w.WriteHeader(http.StatusTooManyRequests)
					case 3: // connection lost in the middle of the body
						var first, last int
						if _, err := fmt.Sscanf(q.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
							t.Error(err)
						}
						w.Header().Set("ETag", `"v1"`)
						w.Header().Set("Content-Length", fmt.Sprint(last-first+1))
						w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(s.body)))
						w.WriteHeader(http.StatusPartialContent)
						if _, err := w.Write(s.body[first : first+(last-first)/2]); err != nil {
							t.Error(err)
						}
						w.(http.Flusher).Flush()
						lost++
						panic(http.ErrAbortHandler)
					default:
						return false
					}
					return true
				}
			}
			opts := fast()
			opts.Retries = 8
			set := open(t, Options{HTTP: opts}, s.URL+"/data/ruby/"+name)
			got := readAll(t, set)
			if len(got) != len(want) {
				t.Fatalf("%s, %s: %d documents, want %d", name, fault, len(got), len(want))
			}
			for i := range got {
				if got[i].Content != want[i].Content || got[i].Path != want[i].Path || got[i].Origin.Row != want[i].Origin.Row {
					t.Fatalf("%s, %s: document %d differs", name, fault, i)
				}
			}
			if fault == "errors" && lost == 0 {
				t.Errorf("%s: no connection was lost", name)
			}
			if s.noRange && s.gets.Load() > 2 {
				t.Errorf("%s, %s: %d downloads of the whole file", name, fault, s.gets.Load())
			}
		}
	}
}

// TestHTTPRequests checks that only the columns read are fetched, in few requests.
func TestHTTPRequests(t *testing.T) {
	name := sharedtest.Path(t, "corpus/data/ruby/data-00000-of-00003.parquet")
	body, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, body)
	set := open(t, Options{}, s.URL+"/x.parquet")
	if n := s.gets.Load(); n > 1 || s.heads.Load() != 1 {
		t.Errorf("opening took %d HEAD and %d GET requests", s.heads.Load(), n)
	}
	docs := readAll(t, set)
	blocks := int64(len(body)>>20 + 1)
	t.Logf("%d documents, file of %d kB: %d GET requests, %d kB", len(docs), len(body)/1000, s.gets.Load(), s.sent.Load()/1000)
	if n := s.gets.Load(); n > 3*blocks {
		t.Errorf("%d requests for %d blocks", n, blocks)
	}
	if want := readAll(t, open(t, Options{}, name)); len(want) != len(docs) {
		t.Errorf("%d documents, want %d", len(docs), len(want))
	}
}

func TestHTTPErrors(t *testing.T) {
	body := variant(t, "rowgroups-7.parquet")
	read := func(s *server, o HTTPOptions) error {
		set, err := Open(context.Background(), Options{HTTP: o, Logger: quiet}, s.URL+"/x.parquet")
		if err == nil {
			_, err = data.Load(context.Background(), set, 0)
		}
		return err
	}
	expect := func(what string, err error, want ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", what)
			return
		}
		for _, w := range append(want, "/x.parquet") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q", what, err, w)
			}
		}
	}

	s := serve(t, body)
	s.tag = func(n int64) string { return fmt.Sprintf(`"v%d"`, n/20) }
	expect("changed ETag", read(s, fast()), "the file changed while it was read", "row group")

	s = serve(t, body)
	s.intrude = func(w http.ResponseWriter, q *http.Request, n int64) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	expect("always 502", read(s, fast()), "after 6 attempts", "502")
	if n := s.gets.Load(); n != 6 {
		t.Errorf("always 502: %d requests, want 6", n)
	}

	s = serve(t, body)
	s.intrude = func(w http.ResponseWriter, q *http.Request, n int64) bool {
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	expect("404", read(s, fast()), "404")
	if n := s.gets.Load(); n != 1 {
		t.Errorf("404: %d requests, want 1", n)
	}

	s = serve(t, body)
	s.intrude = func(w http.ResponseWriter, q *http.Request, n int64) bool {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-99/%d", len(body)))
		w.WriteHeader(http.StatusPartialContent)
		return true
	}
	expect("wrong range", read(s, fast()), "got bytes from 7")

	s = serve(t, body)
	var times []time.Time
	s.intrude = func(w http.ResponseWriter, q *http.Request, n int64) bool {
		times = append(times, time.Now())
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return n == 1
	}
	if err := read(s, fast()); err != nil {
		t.Error(err)
	}
	if wait := times[1].Sub(times[0]); wait < time.Second {
		t.Errorf("Retry-After 1: waited %v", wait)
	}

	// A server that never answers: the attempt's time limit ends it.
	s = serve(t, body)
	stop := make(chan struct{})
	s.intrude = func(w http.ResponseWriter, q *http.Request, n int64) bool { <-stop; return true }
	o := fast()
	o.Timeout, o.Retries = 20*time.Millisecond, 1
	expect("stalled", read(s, o), "after 2 attempts", "nothing received for 20ms")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{HTTP: fast(), Logger: quiet}, s.URL+"/x.parquet"); err == nil || time.Until(deadline(ctx)) < -5*time.Second {
		t.Errorf("cancelled: %v", err)
	}
	close(stop)

	s = serve(t, body)
	s.Close()
	o = fast()
	o.Retries = 2
	expect("refused", read(s, o), "after 3 attempts")
}

func deadline(ctx context.Context) time.Time { d, _ := ctx.Deadline(); return d }

func TestRetryAfter(t *testing.T) {
	for h, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, "-3": 0, "x": 0, "999999999": maxWait} {
		if got := retryAfter(h); got != want {
			t.Errorf("%q: %v, want %v", h, got, want)
		}
	}
	if got := retryAfter(time.Now().Add(10 * time.Second).UTC().Format(http.TimeFormat)); got < 8*time.Second || got > 10*time.Second {
		t.Errorf("date in 10 s: %v", got)
	}
}

// FuzzParquet damages a good file: there must be no panic, no huge allocation, and rows that are returned without an
// error anywhere must be the right number.
func FuzzParquet(f *testing.F) {
	for _, name := range []string{"content-only.parquet", "rowgroups-7.parquet", "v2pages-zstd.parquet", "delta-byte-array.parquet"} {
		body := variant(f, name)
		f.Add(body[max(0, len(body)-20000):], uint16(3), byte(255))
	}
	for _, name := range []string{"ARROW-RS-GH-6229-DICTHEADER.parquet", "negative_page_size.parquet", "PARQUET-1481.parquet", "ARROW-RS-GH-6229-LEVELS.parquet"} {
		b, err := os.ReadFile(sharedtest.Path(f, "parquet/bad/"+name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(9), byte(1))
	}
	base := variant(f, "content-only.parquet")
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip byte) {
		damaged := slices.Clone(base)
		damaged[int(at)*len(base)>>16] ^= flip
		for _, file := range [][]byte{b, damaged} {
			name := t.TempDir() + "/x.parquet"
			if err := os.WriteFile(name, file, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, column := range []string{"content", "name", "comment_col"} {
				set, err := Open(context.Background(), Options{Logger: quiet, Column: column}, name)
				if err != nil {
					continue
				}
				if _, err := data.Load(context.Background(), set, 1<<28); err != nil && !strings.Contains(err.Error(), "x.parquet: row group ") && !strings.Contains(err.Error(), "x.parquet: row ") {
					t.Errorf("no place named: %v", err)
				}
			}
		}
	})
}
