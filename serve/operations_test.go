package serve_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/configs"
	"autodev/infer"
	"autodev/serve"
	"autodev/serve/admin"
	"autodev/serve/assist"
	"autodev/serve/events"
	"autodev/serve/guard"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// operate serves the fake engine with p around it, and returns its address and its log.
func operate(t *testing.T, p serve.Operations, protocols []*wire.Protocol) (url string, log *servetest.Log) {
	t.Helper()
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "some/model", Engine: &servetest.Fake{}}}, nil)
	log = &servetest.Log{}
	s, err := serve.Operate(models, serve.Options{Logger: slog.New(slog.NewTextHandler(log, nil)), Protocols: protocols}, p)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL, log
}

// send is servetest.Send without the line end of the answer.
func send(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp, answer := servetest.Send(t, method, url, body, header...)
	return resp, strings.TrimSuffix(answer, "\n")
}

func newKeys(t *testing.T, keys ...guard.Key) (all *guard.Keys, secrets []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	for _, k := range keys {
		secret, err := guard.AddKey(path, k)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
	}
	all, err := guard.OpenKeys(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all, secrets
}

// TestKeysByProtocol: who has no key is told so in the form that the client reads.
func TestKeysByProtocol(t *testing.T) {
	keys, secrets := newKeys(t, guard.Key{Name: "ann"}, guard.Key{Name: "slow", Limits: guard.Limits{RequestsPerMinute: 1}}, guard.Key{Name: "few", Limits: guard.Limits{TokensPerDay: 1}})
	url, log := operate(t, serve.Operations{Keys: keys}, nil)
	const none = "no API key: expected one as Authorization: Bearer KEY, or in x-api-key or api-key"
	for _, c := range []struct{ path, body, want string }{
		{"/v1/completions", `{"prompt":"p"}`, `{"error":{"message":"` + none + `","type":"authentication_error","param":null,"code":"invalid_api_key"}}`},
		{"/v1/completions", `{"segments":{"prefix":"p"}}`, `{"error":"` + none + `"}`},
		// Of a long body no more is read than may tell the form: the path's owner answers.
		{"/v1/completions", `{"segments":{"prefix":"` + strings.Repeat("p", 20<<10) + `"}}`, none},
		{"/api/generate", `{"prompt":"p"}`, `{"error":"` + none + `"}`},
		{"/v1/fim/completions", `{"prompt":"p"}`, none},
		{"/infill", `{"input_prefix":"p","input_suffix":""}`, none},
		{"/generate", `{"inputs":"p"}`, none},
	} {
		resp, got := send(t, "POST", url+c.path, c.body)
		if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" || !strings.Contains(got, c.want) || got != c.want && c.want != none {
			t.Errorf("%s: %d %s, expected 401 %s", c.path, resp.StatusCode, got, c.want)
		}
		if resp, got := send(t, "POST", url+c.path, c.body, "Authorization", "Bearer "+secrets[0]); resp.StatusCode != 200 {
			t.Errorf("%s with a key: %d %s", c.path, resp.StatusCode, got)
		}
	}
	if resp, _ := send(t, "POST", url+"/v1/completions", `{"prompt":"p"}`, "X-Api-Key", secrets[1]); resp.StatusCode != 200 {
		t.Errorf("the first of a minute: %d", resp.StatusCode)
	}
	resp, got := send(t, "POST", url+"/v1/completions", `{"prompt":"p"}`, "X-Api-Key", secrets[1])
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "60" || got != `{"error":{"message":"the key slow may make 1 requests a minute","type":"overloaded_error","param":null,"code":"rate_limit_exceeded"}}` {
		t.Errorf("the second of a minute: %d %v %s", resp.StatusCode, resp.Header, got)
	}
	// Tokens are counted when they have been used.
	for i, want := range []int{200, 429} {
		if resp, got := send(t, "POST", url+"/v1/completions", `{"prompt":"p"}`, "Api-Key", secrets[2]); resp.StatusCode != want {
			t.Errorf("request %d: %d %s, expected %d", i, resp.StatusCode, got, want)
		}
	}
	if !strings.Contains(log.String(), "client=ann") {
		t.Error("the log does not name the client")
	}
	for _, s := range secrets {
		if strings.Contains(log.String(), s) {
			t.Error("a key is in the log")
		}
	}
	_, metrics := send(t, "GET", url+"/metrics", "", "X-Api-Key", secrets[0])
	for _, want := range []string{`autodev_refused_total{reason="unauthorized"} 7`, `autodev_refused_total{reason="rate_limit"} 2`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, s := range append(secrets, `"ann"`) {
		if strings.Contains(metrics, s) {
			t.Errorf("%.12s… is in the metrics", s)
		}
	}
}

// TestEveryRouteAsksForAKey: all but the page's frame and what tells that the server is well.
func TestEveryRouteAsksForAKey(t *testing.T) {
	keys, secrets := newKeys(t, guard.Key{Name: "ann"})
	functions, err := assist.Open(configs.Assist{Default: assist.LocalBackend}, true)
	if err != nil {
		t.Fatal(err)
	}
	protocols := append(serve.Protocols(), functions.Protocol(), admin.New(nil, ""))
	url, _ := operate(t, serve.Operations{Keys: keys}, protocols)
	routes := []wire.Route{{Method: "GET", Path: "/metrics"}, {Method: "GET", Path: "/v1/status"}, {Method: "GET", Path: "/{$}"}, {Method: "GET", Path: "/healthz"}, {Method: "GET", Path: "/readyz"}}
	for _, p := range protocols {
		routes = append(routes, p.Routes...)
	}
	public := map[string]bool{"GET /": true, "GET /healthz": true, "GET /readyz": true, "GET /health": true}
	admins := 0
	for _, r := range routes {
		path := strings.NewReplacer("{$}", "", "{id...}", "x", "{id}", "0", "{name}", "explain").Replace(r.Path)
		if strings.Contains(path, "{") {
			t.Fatalf("%s: what stands for its parts?", r.Path)
		}
		for _, key := range []string{"", secrets[0] + "x"} {
			resp, got := send(t, r.Method, url+path, "{}", "Authorization", "Bearer "+key)
			if free := key == "" && public[r.Method+" "+path]; (resp.StatusCode == 401) == free || free && resp.StatusCode != 200 {
				t.Errorf("%s %s with the key %q: %d %.100s", r.Method, path, key, resp.StatusCode, got)
			}
		}
		if r.Admin {
			admins++
			if resp, got := send(t, r.Method, url+path, "{}", "X-Api-Key", secrets[0]); resp.StatusCode != 403 {
				t.Errorf("%s %s with a key of a user: %d %.100s", r.Method, path, resp.StatusCode, got)
			}
		}
		if resp, _ := send(t, "HEAD", url+path, ""); !public["GET "+path] && resp.StatusCode != 401 {
			t.Errorf("HEAD %s: %d", path, resp.StatusCode)
		}
	}
	if len(routes) < 60 || admins != 5 {
		t.Errorf("%d routes, %d of them for administrators", len(routes), admins)
	}
}

// TestAdministrators: models are exchanged by who may.
func TestAdministrators(t *testing.T) {
	protocols := []*wire.Protocol{{Name: "admin", Fault: wire.OpenAIFault, Routes: []wire.Route{{Method: "POST", Path: "/v1/reload", Admin: true, Handle: func(c *wire.Call) error { return c.JSON("done") }}}}}
	keys, secrets := newKeys(t, guard.Key{Name: "ann"}, guard.Key{Name: "root", Admin: true})
	url, _ := operate(t, serve.Operations{Keys: keys}, protocols)
	for i, want := range []int{403, 200} {
		if resp, got := send(t, "POST", url+"/v1/reload", "", "X-Api-Key", secrets[i]); resp.StatusCode != want {
			t.Errorf("key %d: %d %s, expected %d", i, resp.StatusCode, got, want)
		}
	}
	if resp, got := send(t, "POST", url+"/v1/reload", ""); resp.StatusCode != 401 {
		t.Errorf("no key: %d %s", resp.StatusCode, got)
	}
	url, _ = operate(t, serve.Operations{}, protocols)
	if resp, got := send(t, "POST", url+"/v1/reload", ""); resp.StatusCode != 200 {
		t.Errorf("from this machine, where no keys are asked for: %d %s", resp.StatusCode, got)
	}
	if resp, got := send(t, "POST", url+"/v1/reload", "", "Origin", "http://evil.example"); resp.StatusCode != 403 {
		t.Errorf("a page of another site: %d %s", resp.StatusCode, got)
	}
}

// TestRebinding: a page that has its name point here gets nothing.
func TestRebinding(t *testing.T) {
	url, log := operate(t, serve.Operations{Hosts: []string{"dev.example.org"}, Origins: []string{"https://ide.example"}}, nil)
	for _, c := range []struct {
		header []string
		status int
		want   string
	}{
		{nil, 200, "one two"},
		{[]string{"Host", "evil.example"}, 403, `"code":"host_not_allowed"`},
		{[]string{"Host", "evil.example", "Origin", "http://evil.example"}, 403, `"code":"host_not_allowed"`},
		{[]string{"Origin", "http://evil.example"}, 403, `"code":"origin_not_allowed"`},
		{[]string{"Host", "dev.example.org"}, 200, "one two"},
		{[]string{"Origin", "https://ide.example"}, 200, "one two"},
		{[]string{"Origin", "vscode-webview://x"}, 200, "one two"},
	} {
		resp, got := send(t, "POST", url+"/v1/completions", `{"prompt":"p"}`, c.header...)
		if resp.StatusCode != c.status || !strings.Contains(got, c.want) || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%v: %d %s, expected %d %s", c.header, resp.StatusCode, got, c.status, c.want)
		}
	}
	if resp, _ := send(t, "OPTIONS", url+"/v1/completions", "", "Origin", "https://ide.example", "Access-Control-Request-Method", "POST"); resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "https://ide.example" {
		t.Errorf("preflight: %d %v", resp.StatusCode, resp.Header)
	}
	if n := strings.Count(log.String(), "status=403"); n != 3 {
		t.Errorf("%d refusals in the log, expected 3", n)
	}
}

func TestLogContent(t *testing.T) {
	for _, content := range []bool{false, true} {
		url, log := operate(t, serve.Operations{LogContent: content}, nil)
		warned := strings.Contains(log.String(), "level=WARN")
		_, _ = send(t, "POST", url+"/v1/completions", `{"prompt":"secret","suffix":"secret","model":"secret","user":"secret"}`)
		_, _ = send(t, "POST", url+"/v1/completions", `{"prompt":{"secret":1},"temperature":"secret","suffix":7}`)
		text := log.String()
		// The fake engine decodes two tokens as ##.
		if has := strings.Contains(text, `completion="one two<&>"`) && strings.Contains(text, "prompt=##"); has != content || warned != content {
			t.Errorf("content %v: warned %v\n%s", content, warned, text)
		}
		if strings.Contains(text, "secret") {
			t.Errorf("content %v: what a client sent is in the log\n%s", content, text)
		}
	}
}

// TestEventsOfProtocols: what any protocol completes, an event may name by the id in the answer's header, which is that of the body where there is
// one.
func TestEventsOfProtocols(t *testing.T) {
	dir := t.TempDir()
	log, err := events.Open(events.Options{Dir: dir, Content: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	url, _ := operate(t, serve.Operations{Events: log}, serve.ProtocolsWith(serve.Parts{Events: serve.Recorder(log)}))
	report := func(name, id string) {
		for _, event := range []string{"view", "select"} {
			if resp, got := send(t, "POST", url+"/v1/events", `{"type":"`+event+`","completion_id":"`+id+`","choice_index":0,"elapsed":120}`); resp.StatusCode != 200 {
				t.Errorf("%s of %s: %d %s", event, name, resp.StatusCode, got)
			}
		}
	}
	var want []string // of each completion: its language, file and text
	for _, d := range servetest.Dialects() {
		for _, stream := range []bool{false, true} {
			if stream && d.Stream == nil {
				continue
			}
			name := fmt.Sprintf("%s, stream %v", d.Name, stream)
			path, contentType, body := d.Ask(servetest.Fill{Prefix: name + ": ", Suffix: " end", Tokens: 5}, stream)
			resp, got := send(t, "POST", url+path, string(body), "Content-Type", contentType)
			id := resp.Header.Get("X-Completion-Id")
			if !regexp.MustCompile(`^cmpl-[0-9a-f]{24}$`).MatchString(id) {
				t.Errorf("%s: %d, id %q", name, resp.StatusCode, id)
			}
			for _, in := range regexp.MustCompile(`"id":"([^"]*)"`).FindAllStringSubmatch(got, -1) {
				if in[1] != id {
					t.Errorf("%s: id %s in the answer, %s in the header", name, in[1], id)
				}
			}
			report(name, id)
			language := ""
			if d.Name == "tabby" {
				language = "python"
			}
			want = append(want, fmt.Sprintf("%s  %s: one two<&> end", language, name))
		}
	}
	for _, c := range []struct{ path, body, want string }{
		{"/v1/completions", `{"prompt":"a","suffix":"z","filename":"f.go","n":2}`, " f.go aone two<&>z"},
		{"/v1/completions", `{"segments":{"prefix":"c","filepath":"g.rs"},"language":"rust"}`, "rust g.rs cone two<&>"}, // the suffix is Tabby's, not the file's
		{"/v1/completions", `{"prompt":["a","b"]}`, ""},
		{"/v1/completions", `{"prompt":[1,2]}`, ""},
		{"/completion", `{"prompt":["a",5]}`, ""},
	} {
		resp, _ := send(t, "POST", url+c.path, c.body)
		report(c.body, resp.Header.Get("X-Completion-Id"))
		if c.want != "" {
			want = append(want, c.want)
		}
	}
	for _, path := range []string{"/v1/models", "/v1/completions"} { // nothing was completed
		if resp, _ := send(t, "POST", url+path, `{"prompt":5}`); resp.Header.Get("X-Completion-Id") != "" {
			t.Errorf("%s: %d, id %q", path, resp.StatusCode, resp.Header.Get("X-Completion-Id"))
		}
	}
	if resp, got := send(t, "POST", url+"/v1/events", `{"type":"view","completion_id":"not an id"}`); resp.StatusCode != 400 || !strings.Contains(got, "completion_id") {
		t.Errorf("no id: %d %s", resp.StatusCode, got)
	}
	name := filepath.Join(dir, "events-"+time.Now().UTC().Format(time.DateOnly)+".jsonl")
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []string
	if err := events.ReadLines(f, name, func(l events.Line) error {
		if l.Model != "some/model" || l.Elapsed != 120 {
			t.Errorf("%+v", l)
		}
		if l.Content != nil {
			got = append(got, l.Language+" "+l.Path+" "+*l.Content)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("documents\n%q\nexpected\n%q", got, want)
	}
	if _, metrics := send(t, "GET", url+"/metrics", ""); !strings.Contains(metrics, fmt.Sprintf(`autodev_suggestion_events_total{type="select"} %d`, len(want)+3)) {
		t.Error("events are not counted")
	}
}

// TestConversationNamed: an answer in a conversation has an id, but what was said is nothing to learn completing from.
func TestConversationNamed(t *testing.T) {
	var got []wire.Suggestion
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{Remember: func(_ *wire.Call, s wire.Suggestion) { got = append(got, s) }}, func(m *wire.Model) { m.Chat = servetest.Chat{} })
	resp, answer := send(t, "POST", url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"secret"}]}`)
	id := resp.Header.Get("X-Completion-Id")
	if len(got) != 1 || !strings.HasPrefix(id, "chatcmpl-") || !strings.Contains(answer, `"id":"`+id+`"`) || got[0].ID != id || got[0].Texts != nil || strings.Contains(fmt.Sprint(got), "secret") {
		t.Errorf("%d %s, id %q, remembered %+v", resp.StatusCode, answer, id, got)
	}
}

// TestFailedHasNoID: an answer that has no completion names none.
func TestFailedHasNoID(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, &infer.BusyError{Reason: "full"}
	}}, serve.Options{}, nil)
	for _, d := range servetest.Dialects() {
		path, contentType, body := d.Ask(servetest.Fill{Prefix: "a", Suffix: "b", Tokens: 5}, d.Stream != nil)
		if resp, got := send(t, "POST", url+path, string(body), "Content-Type", contentType); resp.Header.Get("X-Completion-Id") != "" {
			t.Errorf("%s: %d %s, id %q", d.Name, resp.StatusCode, got, resp.Header.Get("X-Completion-Id"))
		}
	}
}

// TestAnnounce: a server that is to stop says so while it still answers, and tells streams why they end.
func TestAnnounce(t *testing.T) {
	begun := make(chan struct{})
	engine := &servetest.Fake{Do: func(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if emit == nil {
			return []infer.Result{{Text: "whole", FinishReason: infer.FinishStop}}, nil
		}
		if err := emit(0, infer.Chunk{Text: "begun"}); err != nil {
			return nil, err
		}
		close(begun)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}}
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "some/model", Engine: engine}}, nil)
	s := serve.New(models, serve.Options{Announce: 400 * time.Millisecond, Grace: 20 * time.Millisecond})
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, guard.Limit(l, 10)) }()
	url := "http://" + l.Addr().String()
	if resp, got := send(t, "GET", url+"/readyz", ""); resp.StatusCode != 200 || got != `{"status":"ready"}` {
		t.Errorf("before: %d %s", resp.StatusCode, got)
	}
	stream := make(chan string, 1)
	go func() {
		_, got := send(t, "POST", url+"/v1/completions", `{"prompt":"p","stream":true}`)
		stream <- got
	}()
	<-begun
	stop()
	for {
		resp, got := send(t, "GET", url+"/readyz", "")
		if resp.StatusCode == 503 {
			if resp.Header.Get("Retry-After") == "" || !strings.Contains(got, "shutting_down") {
				t.Errorf("%v %s", resp.Header, got)
			}
			break
		}
	}
	if resp, _ := send(t, "GET", url+"/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("a server that is to stop is alive: %d", resp.StatusCode)
	}
	if resp, got := send(t, "POST", url+"/v1/completions", `{"prompt":"p"}`); resp.StatusCode != 200 || !strings.Contains(got, "whole") {
		t.Errorf("a request that comes in time: %d %s", resp.StatusCode, got)
	}
	if got := <-stream; !strings.HasSuffix(got, "\n\n"+`data: {"error":{"message":"the server is shutting down","type":"overloaded_error","param":null,"code":"shutting_down"}}`+"\n") {
		t.Errorf("stream %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestHeaderLimit: a request's header has a bound.
func TestHeaderLimit(t *testing.T) {
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "some/model", Engine: &servetest.Fake{}}}, nil)
	l, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve.New(models, serve.Options{}).Serve(ctx, l) }()
	for size, want := range map[int]int{1 << 10: 200, 128 << 10: 431} {
		if resp, _ := send(t, "GET", "http://"+l.Addr().String()+"/healthz", "", "X-Long", strings.Repeat("x", size)); resp.StatusCode != want {
			t.Errorf("%d bytes of header: %d, expected %d", size, resp.StatusCode, want)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
