package soak

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

const clients = 64

// question is a greedy request and the answer that the model gives alone.
type question struct {
	servetest.Fill
	answer string
}

func duration(t *testing.T) time.Duration {
	v := os.Getenv("AUTODEV_SOAK")
	if v == "" {
		if testing.Short() {
			return 2 * time.Second
		}
		return 10 * time.Second
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("AUTODEV_SOAK=%s: %v", v, err)
	}
	return d
}

// code is what questions are cut from.
const code = `import json
import os


class Größe:
    """Ein Maß: 日本語, naïve."""

    def __init__(self, value, unit="m"):
        self.value = value
        self.unit = unit

    def scaled(self, factor):
        return Größe(self.value * factor, self.unit)


def load(path):
    with open(path) as f:
        data = json.load(f)
    if "sizes" not in data:
        raise ValueError("no sizes in " + path)
    return [Größe(v) for v in data["sizes"]]


def total(sizes):
	result = 0
	for size in sizes:
		if size.unit != "m":
			continue
		result += size.value
	return result
`

// questions draws fill-ins that begin alike in part, so that they share what is cached, and asks the model for each alone.
func questions(t *testing.T, m *infer.Model, r *rand.Rand) []question {
	var all []question
	answers := map[string]bool{}
	for range 40 {
		at := 40 + r.IntN(len(code)-60)
		q := question{Fill: servetest.Fill{Prefix: strings.ToValidUTF8(code[:at], ""), Suffix: strings.ToValidUTF8(code[at+r.IntN(len(code)-at-8):], ""), Tokens: 1 + r.IntN(30)}}
		res, err := m.Generate(t.Context(), infer.Request{Prompt: infer.Prompt{Prefix: q.Prefix, Suffix: q.Suffix}, MaxTokens: q.Tokens}, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.answer = res.Text
		answers[q.answer] = true
		all = append(all, q)
	}
	if len(answers) < len(all)/2 {
		t.Fatalf("%d different answers of %d: mistaken ones would not be seen", len(answers), len(all))
	}
	return all
}

// soaker is the state of a run.
type soaker struct {
	t         *testing.T
	url       string
	client    *http.Client
	questions []question
	dialects  []servetest.Dialect

	answered, streamed, left, refused, turnedAway atomic.Int64
	failures                                      atomic.Int64
}

func (s *soaker) fail(format string, args ...any) {
	if s.failures.Add(1) <= 10 {
		s.t.Errorf(format, args...)
	}
}

// one does something that clients do.
func (s *soaker) one(ctx context.Context, r *rand.Rand) {
	q, d := s.questions[r.IntN(len(s.questions))], s.dialects[r.IntN(len(s.dialects))]
	stream := d.Stream != nil && r.IntN(2) == 0
	switch r.IntN(8) {
	case 0:
		s.nonsense(ctx, r, d, q, stream)
	case 1, 2:
		s.leave(ctx, r, d, q, stream)
	default:
		s.ask(ctx, d, q, stream)
	}
}

func (s *soaker) post(ctx context.Context, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	return s.client.Do(req)
}

// ask expects the answer that the model gives alone, or to be told when to come back.
func (s *soaker) ask(ctx context.Context, d servetest.Dialect, q question, stream bool) {
	path, contentType, body := d.Ask(q.Fill, stream)
	resp, err := s.post(ctx, path, contentType, body)
	if err != nil {
		s.fail("%s: %v", path, err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		if resp.Header.Get("Retry-After") == "" {
			s.fail("%s: %d without Retry-After", path, resp.StatusCode)
		}
		s.turnedAway.Add(1)
		return
	}
	var text string
	if stream && resp.StatusCode == http.StatusOK {
		text, err = d.Stream(resp.Body)
		s.streamed.Add(1)
	} else {
		var answer []byte
		if answer, err = io.ReadAll(resp.Body); err == nil {
			text, err = d.Whole(answer)
		}
		s.answered.Add(1)
	}
	if err != nil || resp.StatusCode != http.StatusOK || text != q.answer {
		s.fail("%s, stream %v: %d %v %q, alone %q", d.Name, stream, resp.StatusCode, err, text, q.answer)
	}
}

// leave goes away after a moment, before or in the middle of the answer.
func (s *soaker) leave(ctx context.Context, r *rand.Rand, d servetest.Dialect, q question, stream bool) {
	path, contentType, body := d.Ask(q.Fill, stream)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(20_000))*time.Microsecond)
	defer cancel()
	resp, err := s.post(ctx, path, contentType, body)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body) // it may have been quick enough
		resp.Body.Close()
	}
	s.left.Add(1)
}

// nonsense sends a body that something has been done to. The server may find it good; it must not fail.
func (s *soaker) nonsense(ctx context.Context, r *rand.Rand, d servetest.Dialect, q question, stream bool) {
	path, contentType, b := d.Ask(q.Fill, stream)
	switch r.IntN(4) {
	case 0:
		b = b[:r.IntN(len(b))]
	case 1:
		b[r.IntN(len(b))] = byte(r.IntN(256))
	case 2:
		b = []byte(`{"prompt":{},"inputs":[],"input_prefix":7,"segments":"x","suffix":-1,"options":[],"parameters":3}`)
	case 3:
		b = bytes.Repeat([]byte("["), 10_000)
	}
	resp, err := s.post(ctx, path, contentType, b)
	if err != nil {
		s.fail("nonsense to %s: %v", path, err)
		return
	}
	answer, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusNotImplemented || resp.StatusCode == http.StatusOK && len(answer) == 0 && strings.HasSuffix(contentType, "json") {
		s.fail("nonsense to %s: %d %.200s", path, resp.StatusCode, answer)
	}
	s.refused.Add(1)
}

// settled waits for the number of goroutines to fall to most, and returns it.
func settled(most int) int {
	n := 0
	for range 200 {
		if n = runtime.NumGoroutine(); n <= most {
			return n
		}
		time.Sleep(20 * time.Millisecond)
	}
	return n
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestSoak(t *testing.T) {
	before := runtime.NumGoroutine()
	m, _ := servetest.Tiny(t, infer.Options{Threads: 2, Weights: infer.Int8})
	r := rand.New(rand.NewPCG(1, 2))
	s := &soaker{t: t, questions: questions(t, m, r), dialects: servetest.Dialects()}
	engine := infer.NewEngine(m, infer.EngineOptions{Concurrency: 8, Queue: 2 * clients, MaxWait: time.Minute})
	served := registry.New(false)
	served.Put([]wire.Model{{ID: "soak", Engine: engine}}, nil)
	server := serve.New(served, serve.Options{Logger: slog.New(slog.DiscardHandler), Grace: time.Minute})
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url, s.client = "http://"+l.Addr().String(), &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()

	var wg sync.WaitGroup
	until := time.Now().Add(duration(t))
	for c := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(c)))
			for time.Now().Before(until) {
				s.one(t.Context(), r)
			}
		})
	}
	// Memory in use, from when caches are full on.
	var first, last uint64
	for i := 0; time.Now().Before(until); i++ {
		time.Sleep(time.Until(until) / 4)
		if last = heap(); i == 0 {
			first = last
		}
		if time.Until(until) < 200*time.Millisecond {
			break
		}
	}
	wg.Wait()
	if last > first+first/2+(16<<20) {
		t.Errorf("memory in use grew from %d to %d bytes", first, last)
	}

	// When the server stops, whoever has been let in gets the whole answer.
	var whole, late atomic.Int64
	for c := range clients {
		wg.Go(func() {
			q := s.questions[c%len(s.questions)]
			d := s.dialects[c%len(s.dialects)]
			path, contentType, body := d.Ask(q.Fill, false)
			resp, err := s.post(t.Context(), path, contentType, body)
			if err != nil {
				late.Add(1)
				return
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if resp.StatusCode == http.StatusServiceUnavailable {
				late.Add(1)
				return
			}
			text, parse := d.Whole(answer)
			if err := errors.Join(err, parse); err != nil || text != q.answer {
				s.fail("while the server stops: %d %v %q, alone %q", resp.StatusCode, err, text, q.answer)
			}
			whole.Add(1)
		})
	}
	time.Sleep(5 * time.Millisecond)
	stop()
	wg.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if whole.Load() == 0 {
		t.Error("the server stopped before anybody was let in: the test saw nothing")
	}
	s.client.CloseIdleConnections()
	engine.Close()
	m.Close()
	if n := settled(before); n > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
	t.Logf("%d whole answers and %d streams as the model gives them alone, %d clients left, %d bodies of nonsense, %d turned away; %d answers while the server stopped, %d too late; memory in use %.1f then %.1f MB",
		s.answered.Load(), s.streamed.Load(), s.left.Load(), s.refused.Load(), s.turnedAway.Load(), whole.Load(), late.Load(), float64(first)/1e6, float64(last)/1e6)
	if s.answered.Load() == 0 || s.streamed.Load() == 0 {
		t.Error("nothing was answered")
	}
}
