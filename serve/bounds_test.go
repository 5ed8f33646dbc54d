package serve_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/guard"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// TestBodyThatNobodyReads: who sends a beginning of a body and no more, where it is not even looked at, does not keep a connection.
func TestBodyThatNobodyReads(t *testing.T) {
	keys, _ := newKeys(t, guard.Key{Name: "ann"})
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "some/model", Engine: &servetest.Fake{}}}, nil)
	s, err := serve.Operate(models, serve.Options{Limits: wire.Limits{BodyTimeout: 200 * time.Millisecond}}, serve.Operations{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	for request, want := range map[string]int{
		"POST /nowhere HTTP/1.1\r\nContent-Length: 10":                404,
		"POST /infill HTTP/1.1\r\nContent-Length: 10":                 401,
		"POST /infill HTTP/1.1\r\nTransfer-Encoding: chunked":         401,
		"GET /healthz HTTP/1.1\r\nContent-Length: 100000":             200,
		"POST /v1/completions HTTP/1.1\r\nContent-Length: 100":        401, // looked at, to tell whose it is
		"PUT /v1/models HTTP/1.1\r\nContent-Length: 10\r\nA: b":       401,
		"POST /v1/fim/completions HTTP/1.1\r\nContent-Length: 200000": 401,
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s\r\nHost: localhost\r\n\r\n{", request)
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer, err := io.ReadAll(conn) // to the connection's end
		if err != nil || !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("%.40q: %.80q, %v, expected %d and a closed connection", request, answer, err, want)
		}
	}
	// A connection that sent all it said serves on, and its next request has no deadline of the one before.
	conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range 2 {
		fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 200" {
			t.Fatalf("%q, %v", answer, err)
		}
		for body := ""; !strings.HasSuffix(body, "\n"); {
			b := make([]byte, 1000)
			n, err := conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			body += string(b[:n])
		}
		time.Sleep(400 * time.Millisecond)
	}
}

// TestOptionsOfTheServer: no request is answered beside the handler, with bounds of its own.
func TestOptionsOfTheServer(t *testing.T) {
	url, _, _ := serving(t, &servetest.Fake{}, serve.Options{Limits: wire.Limits{BodyTimeout: 200 * time.Millisecond}})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v, expected 400 and a closed connection", answer, err)
	}
}

// TestRoomForBodies: long bodies at the same time have a bound together; short ones always pass, and what was taken is given back.
func TestRoomForBodies(t *testing.T) {
	const mib = 1 << 20
	release, begun := make(chan struct{}), make(chan struct{}, 10)
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		if len(reqs[0].Prompt.Prefix) > 100 {
			begun <- struct{}{}
			<-release
		}
		return make([]infer.Result, len(reqs)), nil
	}}, serve.Options{Limits: wire.Limits{MaxBody: 2 * mib, Room: wire.NewRoom(3 * mib)}}, nil)
	body := func(n int) string { return `{"prompt":"` + strings.Repeat("x", n) + `"}` }
	done := make(chan int, 2)
	for range 2 {
		go func() {
			status, _, _ := servetest.Post(t, url+"/v1/completions", body(mib*5/4))
			done <- status
		}()
		<-begun
	}
	for n, want := range map[int]int{10: 200, mib * 5 / 4: 503} {
		status, got, header := servetest.Post(t, url+"/v1/completions", body(n))
		if status != want || want == 503 && (header.Get("Retry-After") != "1" || !strings.Contains(got, "too many long ones")) {
			t.Errorf("a body of %d bytes beside two long ones: %d %s, expected %d", n, status, got, want)
		}
	}
	close(release)
	for range 2 {
		if status := <-done; status != 200 {
			t.Errorf("a long body: %d", status)
		}
	}
	for range 5 {
		if status, got, _ := servetest.Post(t, url+"/v1/completions", body(mib*5/4)); status != 200 {
			t.Fatalf("afterwards: %d %s", status, got)
		}
	}
}

// TestLogIsBounded: no client makes a line of the log as long as it likes, or two of it.
func TestLogIsBounded(t *testing.T) {
	models := registry.New(true)
	models.Put([]wire.Model{{ID: "some/model", Engine: &servetest.Fake{}}}, nil)
	url, log := servetest.StartModels(t, models, serve.Options{})
	long := strings.Repeat("x", 30000)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/completions", `{"prompt":"p","model":"` + strings.Repeat(`\nlevel=ERROR`, 10000) + `"}`},
		{"GET", "/v1/models/" + long, ""}, {"GET", "/" + long, ""}, {strings.ToUpper(long), "/v1/models", ""},
		{"GET", "/a%0Alevel=ERROR", ""}, {"GET", "/%FF%FE" + long, ""},
	} {
		req, err := http.NewRequest(c.method, url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode < 400 || len(answer) > 2000 {
			t.Errorf("%.30s %.30s: %d, %d bytes (%v)", c.method, c.path, resp.StatusCode, len(answer), err)
		}
	}
	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	if len(lines) != 6 {
		t.Errorf("%d lines of 6 requests", len(lines))
	}
	for _, l := range lines {
		if len(l) > 4000 || strings.Contains(l, "level=ERROR msg") {
			t.Errorf("a line of %d bytes: %.200s", len(l), l)
		}
	}
}

// TestListsAreBounded: what costs the server more than the client is refused when there is too much of it.
func TestListsAreBounded(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	many := func(one string, n int) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/infill", `{"input_prefix":"","input_suffix":"","response_fields":` + many(`"content"`, 128) + `}`, 200},
		{"/infill", `{"input_prefix":"","input_suffix":"","response_fields":` + many(`"content"`, 129) + `}`, 400},
		{"/v1/completions", `{"prompt":"","stop_token_ids":` + many("1", 1024) + `}`, 200},
		{"/v1/completions", `{"prompt":"","stop_token_ids":` + many("1", 1025) + `}`, 400},
		{"/tokenize", `{"content":"` + strings.Repeat("x", 1<<19) + `","with_pieces":true}`, 200},
		{"/tokenize", `{"content":"` + strings.Repeat("x", 1<<20) + `","with_pieces":true}`, 413},
		{"/tokenize", `{"inputs":"` + strings.Repeat("x", 1<<19) + `"}`, 200},
		{"/tokenize", `{"inputs":"` + strings.Repeat("x", 1<<20) + `"}`, 413},
	} {
		if status, got, _ := servetest.Post(t, url+c.path, c.body); status != c.status {
			t.Errorf("%s %.60s…: %d %.200s, expected %d", c.path, c.body, status, got, c.status)
		}
	}
}

// TestAdaptersForOthers: which adapter others get is for those who run the server to say.
func TestAdaptersForOthers(t *testing.T) {
	keys, secrets := newKeys(t, guard.Key{Name: "ann"}, guard.Key{Name: "root", Admin: true})
	url, _ := operate(t, serve.Operations{Keys: keys}, nil)
	for i, want := range []int{403, 200} {
		if resp, got := send(t, "POST", url+"/lora-adapters", "[]", "X-Api-Key", secrets[i]); resp.StatusCode != want {
			t.Errorf("key %d: %d %s, expected %d", i, resp.StatusCode, got, want)
		}
		if resp, got := send(t, "GET", url+"/lora-adapters", "", "X-Api-Key", secrets[i]); resp.StatusCode != 200 {
			t.Errorf("key %d, to see them: %d %s", i, resp.StatusCode, got)
		}
	}
}
