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
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"autodev/infer"
	"autodev/infer/chat"
	"autodev/infer/infertest"
	"autodev/model"
	"autodev/models"
	"autodev/serve"
	"autodev/serve/registry"
	"autodev/serve/wire"
	"autodev/tokenizer"
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

// Asked is a Fake that notes what it was asked last, and answers nothing.
func Asked(reqs *[]infer.Request) *Fake {
	return &Fake{Do: func(_ context.Context, asked []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		*reqs = asked
		return make([]infer.Result, len(asked)), nil
	}}
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
	all := registry.New(false)
	all.Put([]wire.Model{m}, nil)
	return StartModels(t, all, o)
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

// Tiny returns the model that the binary carries, and what makes prompts of its conversations.
func Tiny(t testing.TB, o infer.Options) (*infer.Model, *chat.Prompter) {
	t.Helper()
	fsys, _, err := models.Open(models.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.LoadFS(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := model.LoadFS(t.Context(), fsys, models.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	template, err := chat.LoadFS(fsys, models.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	m, err := infer.New(ckpt, tok, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, chat.NewPrompter(template, tok)
}

// Endless keeps a completion of RealEngine's from ending by itself: the bias of its stop tokens.
const Endless = `"logit_bias":{"0":-100,"1":-100,"2":-100,"3":-100,"4":-100}`

// Send sends a request with header fields, name and value in turn, of which "Host" is the request's own.
func Send(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Post sends a JSON body to a path.
func Post(t testing.TB, url, body string) (status int, answer string, header http.Header) {
	t.Helper()
	resp, answer := Send(t, http.MethodPost, url, body, "Content-Type", "application/json")
	return resp.StatusCode, answer, resp.Header
}

// Get returns what is at url.
func Get(t testing.TB, url string) string {
	t.Helper()
	_, answer := Send(t, http.MethodGet, url, "")
	return answer
}

// Steady replaces what differs from run to run of an answer in one of OpenAI's forms, its id (of that prefix), object and time, after checking
// them: by ID, and in the events of a chat's stream by CHUNK. All of an answer have one id.
func Steady(t testing.TB, answer, idPrefix, object string) string {
	t.Helper()
	head := regexp.MustCompile(`"id":"(` + idPrefix + `[0-9a-f]{24})","object":"` + regexp.QuoteMeta(object) + `(\.chunk)?","created":\d{10}`)
	all := head.FindAllStringSubmatch(answer, -1)
	if len(all) == 0 {
		t.Fatalf("no id and time in %s", answer)
	}
	for _, one := range all {
		if one[1] != all[0][1] {
			t.Errorf("one answer has the ids %s and %s", all[0][1], one[1])
		}
	}
	return head.ReplaceAllStringFunc(answer, func(found string) string {
		if strings.Contains(found, ".chunk") {
			return "CHUNK"
		}
		return "ID"
	})
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

// StreamFails checks how a stream is answered whose completion fails: before the first event the error has its own status, afterwards it is the last
// event, and the log has it both times. change is as of Start; failure is the error "boom" in the protocol's form.
func StreamFails(t *testing.T, change func(*wire.Model), path, body, failure string) {
	t.Helper()
	after := 0
	url, log := Start(t, &Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for range after {
			if err := emit(0, infer.Chunk{Text: "x"}); err != nil {
				return nil, err
			}
		}
		return nil, errors.New("boom")
	}}, serve.Options{}, change)
	if status, got, _ := Post(t, url+path, body); status != http.StatusInternalServerError || got != failure+"\n" {
		t.Errorf("%d %s", status, got)
	}
	after = 2
	status, got, _ := Post(t, url+path, body)
	if all := Events(t, strings.NewReader(got)); status != http.StatusOK || len(all) != 3 || all[2] != failure {
		t.Errorf("%d %s", status, got)
	}
	if n := strings.Count(log.String(), "error=boom"); n != 2 {
		t.Errorf("%d of 2 failures in the log\n%s", n, log)
	}
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
