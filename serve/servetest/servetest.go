// Package servetest starts servers for the tests of package serve and of its protocols.
package servetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"autodev/infer"
	"autodev/infer/infertest"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/registry"
	"autodev/serve/wire"
)

// Fake is an engine that does what a test says. By default it completes every prompt with "one two" in two chunks.
type Fake struct {
	Do func(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error)
}

// Info implements wire.Engine.
func (f *Fake) Info() infer.Info {
	return infer.Info{Context: 64, Vocab: 100, Parameters: 12345, FIM: true}
}

// Decode implements wire.Engine: a # for each token.
func (f *Fake) Decode(ids []int32) string { return strings.Repeat("#", len(ids)) }

// TokenText implements wire.Engine.
func (f *Fake) TokenText(id int32) []byte { return []byte{'#', byte(id)} }

// Encode implements wire.Engine: a token for each byte.
func (f *Fake) Encode(text string, _ bool) []int32 {
	ids := make([]int32, len(text))
	for i := range len(text) {
		ids[i] = int32(text[i])
	}
	return ids
}

// Complete implements wire.Engine.
func (f *Fake) Complete(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
	if f.Do != nil {
		return f.Do(ctx, reqs, emit)
	}
	var results []infer.Result
	for i := range reqs {
		if emit != nil {
			for _, c := range []infer.Chunk{{Text: "one"}, {Text: " two<&>", FinishReason: infer.FinishStop}} {
				if err := emit(i, c); err != nil {
					return results, err
				}
			}
		}
		results = append(results, infer.Result{Text: "one two<&>", IDs: []int32{1, 2, 3}, PromptIDs: []int32{4, 5}, FinishReason: infer.FinishStop, Cached: 1, Drafted: 2, Accepted: 1})
	}
	return results, nil
}

// Log is a log that handlers write while a test reads.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (s *Log) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String returns what was written.
func (s *Log) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Start serves engine as "some/model" and returns its address and its log. change, which may be nil, changes the model.
func Start(t testing.TB, engine wire.Engine, o serve.Options, change func(*wire.Model)) (url string, log *Log) {
	t.Helper()
	m := wire.Model{ID: "some/model", Engine: engine, Created: time.Unix(1700000000, 0)}
	if change != nil {
		change(&m)
	}
	models := registry.New(false)
	models.Put([]wire.Model{m}, nil)
	return StartModels(t, models, o)
}

// StartModels is Start for a service.
func StartModels(t testing.TB, service wire.Service, o serve.Options) (url string, log *Log) {
	t.Helper()
	log = &Log{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	srv := httptest.NewServer(serve.New(service, o).Handler())
	t.Cleanup(srv.Close)
	return srv.URL, log
}

// RealEngine serves a random model with a tokenizer.
func RealEngine(t testing.TB, change func(*model.Config), o infer.EngineOptions) *infer.Engine {
	t.Helper()
	tok := infertest.Tokenizer(t)
	c := infertest.Config(tok.VocabSize())
	if change != nil {
		change(&c)
	}
	m, err := infer.New(infertest.Checkpoint(c), tok, infer.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return infer.NewEngine(m, o)
}

// Endless keeps a completion of RealEngine's from ending by itself: the bias of its stop tokens.
const Endless = `"logit_bias":{"0":-100,"1":-100,"2":-100,"3":-100,"4":-100}`

// Post sends a JSON body to a path.
func Post(t testing.TB, url, body string) (status int, answer string, header http.Header) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// Decode reads JSON.
func Decode[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// Events reads a stream of server-sent events strictly: "data: " and one line of JSON or [DONE], then an empty line.
func Events(t testing.TB, r io.Reader) (all []string) {
	t.Helper()
	s := bufio.NewScanner(r)
	for s.Scan() {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			t.Fatalf("line %q in place of an event", s.Text())
		}
		if !s.Scan() || s.Text() != "" {
			t.Fatalf("line %q after an event, expected an empty one", s.Text())
		}
		all = append(all, data)
	}
	return all
}

// Disconnects checks that a client which leaves while it waits for an answer to body ends its completion. start serves an engine and returns
// its address.
func Disconnects(t *testing.T, start func(engine wire.Engine) (url string), path, body string) {
	t.Helper()
	begun, ended := make(chan struct{}), make(chan error, 1)
	url := start(&Fake{Do: func(ctx context.Context, _ []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		close(begun)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	if resp, err := http.DefaultClient.Do(req); !errors.Is(err, context.Canceled) {
		if err == nil {
			resp.Body.Close()
		}
		t.Fatalf("%s %s: %v, expected no answer", path, body, err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Errorf("%s %s: the completion ended of itself", path, body)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s %s: the completion goes on", path, body)
	}
}
