package autodevv1_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/autodevv1"
	"autodev/serve/openai"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// scripted answers with the pieces, then with err, and notes what it was asked.
type scripted struct {
	pieces []string
	err    error
	asked  []string
}

func (a *scripted) Apply(_ *wire.Call, function, code string, html bool, emit func(string) error) error {
	a.asked = append(a.asked, fmt.Sprintf("%s %q %v", function, code, html))
	for _, p := range a.pieces {
		if err := emit(p); err != nil {
			return err
		}
	}
	return a.err
}

func start(t *testing.T, engine wire.Engine, a autodevv1.Assist, change func(*wire.Model)) string {
	url, _ := servetest.Start(t, engine, serve.Options{Protocols: []*wire.Protocol{openai.New(), autodevv1.New(a)}}, change)
	return url
}

// replay sends a request byte for byte and reads the answer.
func replay(t *testing.T, server, request string) (*http.Response, string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

// javaClient is a request as the plugin's client of java.net.http sends it: parts written by hand, without types, in UTF-8, and a body of unknown
// length with an offer of HTTP/2.
func javaClient(path string, fields ...string) string {
	var chunks []string
	for i := 0; i < len(fields); i += 2 {
		chunks = append(chunks, "--autocode___\r\nContent-Disposition: form-data; name=", `"`+fields[i]+`"`+"\r\n\r\n"+fields[i+1]+"\r\n")
	}
	request := "POST " + path + " HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: localhost:5000\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n" +
		"Transfer-encoding: chunked\r\nUpgrade: h2c\r\nUser-Agent: Java-http-client/17.0.6\r\nContent-Type: multipart/form-data; boundary=autocode___\r\n\r\n"
	for _, c := range append(chunks, "--autocode___--") {
		request += fmt.Sprintf("%x\r\n%s\r\n", len(c), c)
	}
	return request + "0\r\n\r\n"
}

// apacheClient is a request as the plugin's client of Apache's HttpClient sends it: MultipartEntityBuilder with addTextBody, whose parts are in
// ISO-8859-1.
func apacheClient(path string, fields ...string) string {
	const boundary = "V7tWkz_5qTnZDgX1mJm8mO1rK2mQ9cH"
	body := ""
	for i := 0; i < len(fields); i += 2 {
		body += "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" +
			fields[i+1] + "\r\n"
	}
	body += "--" + boundary + "--\r\n"
	return "POST " + path + " HTTP/1.1\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\nContent-Type: multipart/form-data; boundary=" + boundary +
		"\r\nHost: localhost:5000\r\nConnection: Keep-Alive\r\nUser-Agent: Apache-HttpClient/4.5.14 (Java/17.0.6)\r\nAccept-Encoding: gzip,deflate\r\n\r\n" + body
}

func TestCompletionOfPlugin(t *testing.T) {
	var got infer.Request
	server := start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		got = reqs[0]
		return []infer.Result{{Text: "return <größe>\n"}}, nil
	}}, nil, func(m *wire.Model) { m.Shape = infer.Shape{Lines: infer.AutoLines} })
	resp, body, err := replay(t, server, javaClient("/autocomplete", "filename", "src/größe.py", "prefix", "def größe():\n    ", "suffix", "\n\nprint(1)\n"))
	if err != nil || resp.StatusCode != 200 || body != "return <größe>\n" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%v %q %v", resp, body, err)
	}
	want := infer.Request{
		Prompt:    infer.Prompt{Prefix: "def größe():\n    ", Suffix: "\n\nprint(1)\n", Filename: "src/größe.py"},
		MaxTokens: 32, Sampling: infer.Sampling{TopP: 1}, Class: infer.Interactive, Reuse: true, Shape: infer.Shape{Lines: infer.AutoLines},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("engine got %+v\nexpected    %+v", got, want)
	}
	for _, c := range []struct {
		form   url.Values
		change func(*infer.Request)
	}{
		{url.Values{"prefix": {"p"}}, func(*infer.Request) {}},
		{url.Values{"prefix": {"p"}, "max_tokens": {"7"}, "lines": {"one"}, "no_overlap": {"true"}, "n_indent": {"4"}, "reuse": {"false"}, "heal": {"true"}, "more": {"x"}}, func(r *infer.Request) {
			r.MaxTokens, r.Prompt.Heal, r.Reuse, r.Shape = 7, true, false, infer.Shape{Lines: infer.OneLine, NoOverlap: true, MinIndent: 4}
		}},
		{url.Values{"prefix": {"7"}, "suffix": {"true"}, "filename": {"null"}, "max_tokens": {""}}, func(r *infer.Request) {
			r.Prompt = infer.Prompt{Prefix: "7", Suffix: "true", Filename: "null"}
		}},
	} {
		want := want
		want.Prompt = infer.Prompt{Prefix: "p"}
		c.change(&want)
		resp, err := http.PostForm(server+"/autocomplete", c.form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %d, engine got %+v\nexpected    %+v", c.form, resp.StatusCode, got, want)
		}
	}
}

func TestFunctionsOfPlugin(t *testing.T) {
	const page, text = "text/html; charset=utf-8", "text/plain; charset=utf-8"
	for _, c := range []struct{ path, contentType, asked string }{
		{"/fn/add-docstrings", text, `document "x = 'ö'\n" false`},
		{"/fn/potential-problems", page, `find-problems "x = 'ö'\n" true`},
		{"/fn/review", page, `review "x = 'ö'\n" true`},
		{"/fn/improve-code", text, `improve "x = 'ö'\n" false`},
		{"/fn/explain", page, `explain "x = 'ö'\n" true`},
		{"/fn/implement-tests", text, `write-tests "x = 'ö'\n" false`},
		{"/fn/stream/add-docstrings", text, `document "x = 'ö'\n" false`},
		{"/fn/stream/potential-problems", page, `find-problems "x = 'ö'\n" true`},
		{"/fn/stream/review", page, `review "x = 'ö'\n" true`},
		{"/fn/stream/improve-code", text, `improve "x = 'ö'\n" false`},
		{"/fn/stream/explain", page, `explain "x = 'ö'\n" true`},
		{"/fn/stream/implement-tests", text, `write-tests "x = 'ö'\n" false`},
		{"/fn/stream/input-checks", text, `add-input-checks "x = 'ö'\n" false`},
	} {
		a := &scripted{pieces: []string{"a ", "", "größe\n"}}
		server := start(t, &servetest.Fake{}, a, nil)
		request, streamed := javaClient(c.path, "code", "x = 'ö'\n"), strings.Contains(c.path, "stream")
		if streamed {
			request = apacheClient(c.path, "code", "x = '\xf6'\n")
		}
		resp, body, err := replay(t, server, request)
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != c.contentType || body != "a größe\n" || slices.Equal(resp.TransferEncoding, []string{"chunked"}) != streamed {
			t.Errorf("%s: %v %q %v", c.path, resp, body, err)
		}
		if !slices.Equal(a.asked, []string{c.asked}) {
			t.Errorf("%s: asked for %q, expected %s", c.path, a.asked, c.asked)
		}
	}
	server := start(t, &servetest.Fake{}, &scripted{}, nil)
	if resp, _, _ := replay(t, server, javaClient("/fn/input-checks", "code", "x")); resp.StatusCode != 404 {
		t.Errorf("/fn/input-checks, which the original has not: %d", resp.StatusCode)
	}
	if resp, body, err := replay(t, server, apacheClient("/fn/stream/explain", "code", "")); err != nil || resp.StatusCode != 200 || body != "" {
		t.Errorf("no output: %d %q %v", resp.StatusCode, body, err)
	}
}

// TestFailures: nothing that fails looks like an answer, also to a plugin that looks at no status.
func TestFailures(t *testing.T) {
	busy := &infer.BusyError{Reason: "<7> requests are waiting", RetryAfter: 1500 * time.Millisecond}
	engine := &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, busy
	}}
	server := start(t, engine, &scripted{err: busy}, nil)
	without := start(t, engine, nil, nil)
	for _, c := range []struct {
		server, request   string
		status            int
		contentType, body string
	}{
		{server, javaClient("/autocomplete", "prefix", "p"), 429, "text/plain", ""},
		{server, javaClient("/autocomplete", "suffix", "p"), 400, "text/plain", ""},
		{server, javaClient("/autocomplete", "prefix", "p", "max_tokens", "many"), 400, "text/plain", ""},
		{server, "GET /autocomplete HTTP/1.1\r\nHost: h\r\n\r\n", 405, "text/plain", ""},
		{server, javaClient("/fn/improve-code", "code", "x = 'ö'\n"), 429, "text/plain", "x = 'ö'\n"},
		{server, apacheClient("/fn/stream/add-docstrings", "code", "x = '\xf6'\n"), 429, "text/plain", "x = 'ö'\n"},
		{server, apacheClient("/fn/stream/input-checks", "wrong", "x"), 400, "text/plain", ""},
		{server, javaClient("/fn/explain", "code", "x"), 429, "text/html", "<p>busy: &lt;7&gt; requests are waiting</p>\n"},
		{server, apacheClient("/fn/stream/review", "code", "x"), 429, "text/html", "<p>busy: &lt;7&gt; requests are waiting</p>\n"},
		{server, javaClient("/fn/implement-tests", "code", "x"), 429, "text/plain", "busy: <7> requests are waiting\n"},
		{server, javaClient("/fn/explain", "wrong", "x"), 400, "text/html", "<p>code: missing, expected a text</p>\n"},
		{without, javaClient("/fn/explain", "code", "x"), 501, "text/html", "<p>assistance functions are not set up on this server</p>\n"},
		{without, apacheClient("/fn/stream/improve-code", "code", "x"), 501, "text/plain", "x"},
	} {
		resp, body, err := replay(t, c.server, c.request)
		path, _, _ := strings.Cut(c.request, " HTTP")
		if err != nil || resp.StatusCode != c.status || !strings.HasPrefix(resp.Header.Get("Content-Type"), c.contentType) || body != c.body {
			t.Errorf("%s: %d %s %q %v, expected %d %s %q", path, resp.StatusCode, resp.Header.Get("Content-Type"), body, err, c.status, c.contentType, c.body)
		}
		if c.status == 429 && resp.Header.Get("Retry-After") != "2" {
			t.Errorf("%s: Retry-After %q", path, resp.Header.Get("Retry-After"))
		}
	}
	broken := start(t, engine, &scripted{pieces: []string{"half an "}, err: errors.New("boom")}, nil)
	if _, body, err := replay(t, broken, apacheClient("/fn/stream/improve-code", "code", "x")); err == nil || body != "half an " {
		t.Errorf("a stream that fails looks whole: %q", body)
	}
	if resp, body, err := replay(t, broken, javaClient("/fn/improve-code", "code", "x")); err != nil || resp.StatusCode != 500 || body != "x" {
		t.Errorf("%d %q %v", resp.StatusCode, body, err)
	}
}

// TestHealing: a form may refuse what the model has by default.
func TestHealing(t *testing.T) {
	var got []bool
	server := start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		got = append(got, reqs[0].Prompt.Heal)
		return make([]infer.Result, 1), nil
	}}, nil, func(m *wire.Model) { m.Heal = true })
	for _, extra := range [][]string{nil, {"heal", "false"}, {"heal", "true"}} {
		if resp, _, err := replay(t, server, javaClient("/autocomplete", append([]string{"prefix", "p", "suffix", "s"}, extra...)...)); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	if !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("healed: %v", got)
	}
}

// TestSameText: a completion is what OpenAI's protocol has for the same prompt.
func TestSameText(t *testing.T) {
	server := start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), nil, nil)
	_, body, err := replay(t, server, javaClient("/autocomplete", "prefix", "def größe(a):\n", "suffix", "\n    return a\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := servetest.Post(t, server+"/v1/completions", `{"prompt":"def größe(a):\n","suffix":"\n    return a\n","max_tokens":32}`)
	if want := servetest.Decode[struct{ Choices []struct{ Text string } }](t, got).Choices[0].Text; want == "" || body != want {
		t.Errorf("%q, OpenAI's protocol has %q", body, want)
	}
}

// TestDisconnect: a plugin that goes away ends its completion.
func TestDisconnect(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	server := start(t, &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}}, nil, nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(server, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, javaClient("/autocomplete", "prefix", "p")); err != nil {
		t.Fatal(err)
	}
	<-begun
	conn.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the completion goes on")
	}
}
