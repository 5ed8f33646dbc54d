package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"autodev/infer"
	"autodev/infer/infertest"
	"autodev/model"
)

// fake is an Engine that does what a test says. By default it completes every prompt with "one two" in two chunks.
type fake struct {
	complete func(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error)
}

func (f *fake) Info() infer.Info {
	return infer.Info{Context: 64, Vocab: 100, Parameters: 12345, FIM: true}
}

func (f *fake) Decode(ids []int32) string { return strings.Repeat("#", len(ids)) }

func (f *fake) TokenText(id int32) []byte { return []byte{'#', byte(id)} }

func (f *fake) Complete(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
	if f.complete != nil {
		return f.complete(ctx, reqs, emit)
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

// syncBuffer is a log that handlers write while a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start serves engine and returns its address and its log.
func start(t *testing.T, engine Engine, o Options) (url string, log *syncBuffer) {
	t.Helper()
	log = &syncBuffer{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	if o.Model == "" {
		o.Model = "some/model"
	}
	srv := httptest.NewServer(New(engine, o).Handler())
	t.Cleanup(srv.Close)
	return srv.URL, log
}

// realEngine serves a random model with a tokenizer.
func realEngine(t *testing.T, change func(*model.Config), o infer.EngineOptions) *infer.Engine {
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

// endless keeps a completion of realEngine from ending by itself: the bias of its stop tokens.
const endless = `"logit_bias":{"0":-100,"1":-100,"2":-100,"3":-100,"4":-100}`

func post(t *testing.T, url, body string) (status int, answer string, header http.Header) {
	t.Helper()
	resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
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

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// events reads a stream of server-sent events strictly: "data: " and one line of JSON or [DONE], then an empty line.
func events(t *testing.T, r io.Reader) (all []string) {
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
