package openai_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// TestDisconnect: when a client leaves, in the middle of a stream or while it waits for a whole answer, its completion ends
// and the engine serves the next.
func TestDisconnect(t *testing.T) {
	// A queue of one and a patience that would outlast the test: the next request waits for the engine to be free.
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 100000 }, infer.EngineOptions{Queue: 1, MaxWait: time.Hour})
	url, log := servetest.Start(t, engine, serve.Options{}, nil)
	for _, stream := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		body := fmt.Sprintf(`{"prompt":"def f","max_tokens":99990,"temperature":1,"stream":%v,%s}`, stream, servetest.Endless)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan error, 1)
		go func() {
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				var b [10]byte
				if _, err = io.ReadFull(resp.Body, b[:]); err == nil {
					cancel()
					_, err = io.Copy(io.Discard, resp.Body)
				}
				resp.Body.Close()
			}
			left <- err
		}()
		if !stream {
			time.Sleep(50 * time.Millisecond)
			cancel()
		}
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatalf("stream %v: %v", stream, err)
		}
		began := time.Now()
		if status, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"x","max_tokens":2}`); status != 200 {
			t.Fatalf("after a client left: %d %s", status, got)
		}
		// The endless completion alone would take minutes.
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("stream %v: the engine was free only after %v", stream, d)
		}
		cancel()
	}
	deadline := time.Now().Add(5 * time.Second)
	for strings.Count(log.String(), "status=499") != 2 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if n := strings.Count(log.String(), "status=499"); n != 2 {
		t.Errorf("%d of 2 departures in the log:\n%s", n, log)
	}
}

// TestStalledClient: a client that stops reading does not hold the engine.
func TestStalledClient(t *testing.T) {
	ended := make(chan error, 1)
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		text := strings.Repeat("x", 1<<16)
		for {
			if err := emit(0, infer.Chunk{Text: text}); err != nil {
				ended <- err
				return nil, err
			}
		}
	}}, serve.Options{Limits: wire.Limits{StallTimeout: 100 * time.Millisecond}}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"prompt":"p","stream":true}`
	fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the engine still waits for a client that does not read")
	}
}

// TestStalledClientOfAWholeAnswer: an answer that nobody reads does not keep its connection.
func TestStalledClientOfAWholeAnswer(t *testing.T) {
	url, log := servetest.Start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return []infer.Result{{Text: strings.Repeat("x", 24<<20)}}, nil
	}}, serve.Options{Limits: wire.Limits{StallTimeout: 100 * time.Millisecond}}, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"prompt":"p"}`
	fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for range 1000 {
		if strings.Contains(log.String(), "msg=request") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the request still waits for a client that does not read")
}

// TestSlowBody: a body that does not arrive in time is refused; one that does keeps no deadline for the completion.
func TestSlowBody(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(400 * time.Millisecond):
			return []infer.Result{{Text: "late"}}, nil
		}
	}}, serve.Options{Limits: wire.Limits{BodyTimeout: 150 * time.Millisecond}}, nil)
	status, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"p"}`)
	if status != 200 || !strings.Contains(got, "late") {
		t.Errorf("completion longer than the body's deadline: %d %s", status, got)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || !strings.Contains(string(answer), "body: not complete after 150ms") {
		t.Errorf("slow body: %q, %v", answer, err)
	}
}
