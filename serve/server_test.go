package serve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

func TestRoutes(t *testing.T) {
	url, log := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	card := `{"id":"some/model","object":"model","created":1700000000,"owned_by":"autodev","max_model_len":64,"meta":{"n_ctx_train":64,"n_vocab":100,"n_params":12345,"fim":true}}`
	for _, c := range []struct {
		method, path string
		status       int
		allow, body  string
	}{
		{"GET", "/healthz", 200, "", `{"status":"ok"}`},
		{"HEAD", "/healthz", 200, "", ``},
		{"GET", "/v1/models", 200, "", `{"object":"list","data":[` + card + `]}`},
		{"GET", "/v1/models/some/model", 200, "", card},
		{"GET", "/v1/models/other", 404, "", `{"error":{"message":"model \"other\": not served here, expected one of those that /v1/models lists","type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
		{"GET", "/nothing", 404, "", `{"error":{"message":"GET /nothing: no such route","type":"invalid_request_error","param":null,"code":"not_found"}}`},
		{"GET", "/v1/completions", 405, "POST", `{"error":{"message":"GET /v1/completions: expected POST","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}`},
		{"DELETE", "/v1/models", 405, "GET, HEAD", `{"error":{"message":"DELETE /v1/models: expected GET or HEAD","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}`},
	} {
		req, err := http.NewRequest(c.method, url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow || strings.TrimSuffix(string(body), "\n") != c.body || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %v %s, expected %d %s", c.method, c.path, resp.StatusCode, resp.Header, body, c.status, c.body)
		}
	}
	// Two of them only looked whether all is well.
	if n := strings.Count(log.String(), "msg=request"); n != 6 {
		t.Errorf("%d log records, expected 6\n%s", n, log)
	}
}

// TestPanic: a bug costs one request, and its text is in the log, not in the answer.
func TestPanic(t *testing.T) {
	url, log := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if emit != nil {
			if err := emit(0, infer.Chunk{Text: "x"}); err != nil {
				return nil, err
			}
		}
		panic("a bug")
	}}, serve.Options{}, nil)
	status, got, header := servetest.Post(t, url+"/v1/completions", `{"prompt":"p"}`)
	if status != 500 || !strings.Contains(got, "internal error, request "+header.Get("X-Request-Id")) || strings.Contains(got, "a bug") {
		t.Errorf("%d %s", status, got)
	}
	resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"prompt":"p","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil {
		t.Error("a stream that broke off looks whole to the client")
	}
	if n := strings.Count(log.String(), `panic="a bug"`); n != 2 {
		t.Errorf("%d of 2 panics in the log", n)
	}
}

func TestListen(t *testing.T) {
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = serve.Listen(t.Context(), l.Addr().String())
	if want := "listen " + l.Addr().String() + ": the port is in use by another program, expected a free one"; err == nil || err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
	if _, err := serve.Listen(t.Context(), "127.0.0.1:99999"); err == nil {
		t.Error("port 99999: expected an error")
	}
}

func models(engine wire.Engine) *registry.Registry {
	m := registry.New(false)
	m.Put([]wire.Model{{ID: "some/model", Engine: engine}}, nil)
	return m
}

// serving starts Serve and returns its address, a function that asks it to stop, and its end.
func serving(t *testing.T, engine wire.Engine, o serve.Options) (url string, stop func(), done chan error) {
	t.Helper()
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done = make(chan error, 1)
	go func() { done <- serve.New(models(engine), o).Serve(ctx, l) }()
	return "http://" + l.Addr().String(), cancel, done
}

// waiting is an engine whose completion begins and then goes on until it is released or cancelled.
func waiting(begun, release chan struct{}) *servetest.Fake {
	return &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if err := emit(0, infer.Chunk{Text: "begun"}); err != nil {
			return nil, err
		}
		close(begun)
		select {
		case <-release:
			return []infer.Result{{}}, emit(0, infer.Chunk{Text: " ended", FinishReason: infer.FinishStop})
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}}
}

// TestShutdown: what is under way ends, new connections are refused, and Serve returns.
func TestShutdown(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	url, stop, done := serving(t, waiting(begun, release), serve.Options{})
	answers := make(chan string, 1)
	go func() {
		_, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"p","stream":true}`)
		answers <- got
	}()
	<-begun
	stop()
	for {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	close(release)
	if all := servetest.Events(t, strings.NewReader(<-answers)); len(all) != 3 || !strings.Contains(all[1], `" ended"`) || all[2] != "[DONE]" {
		t.Errorf("stream under way: %q", all)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShutdownGraceOver: what does not end in time is cancelled and told so.
func TestShutdownGraceOver(t *testing.T) {
	begun := make(chan struct{})
	url, stop, done := serving(t, waiting(begun, nil), serve.Options{Grace: 30 * time.Millisecond})
	answers := make(chan string, 1)
	go func() {
		_, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"p","stream":true}`)
		answers <- got
	}()
	<-begun
	stop()
	all := servetest.Events(t, strings.NewReader(<-answers))
	if want := `{"error":{"message":"the server is shutting down","type":"overloaded_error","param":null,"code":"shutting_down"}}`; len(all) != 2 || all[1] != want {
		t.Errorf("stream under way: %q, expected to end with %s", all, want)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServeFails(t *testing.T) {
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := serve.New(models(&servetest.Fake{}), serve.Options{}).Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
}
