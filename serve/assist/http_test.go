package assist_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"autodev/configs"
	"autodev/infer"
	"autodev/serve"
	"autodev/serve/assist"
	"autodev/serve/autodevv1"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

var _ autodevv1.Assist = (*assist.Service)(nil)

func start(t *testing.T, c configs.Assist, engine wire.Engine, change func(*wire.Model)) string {
	t.Helper()
	s, err := assist.Open(c, false)
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		change = func(m *wire.Model) { m.Chat = servetest.Chat{} }
	}
	url, _ := servetest.Start(t, engine, serve.Options{Protocols: []*wire.Protocol{s.Protocol()}}, change)
	return url
}

// says is an engine that answers with pieces.
func says(asked *infer.Request, finish infer.FinishReason, pieces ...string) *servetest.Fake {
	return &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if asked != nil {
			*asked = reqs[0]
		}
		res := infer.Result{PromptIDs: make([]int32, 5), IDs: make([]int32, 3), FinishReason: finish}
		for _, p := range pieces {
			res.Text += p
			if err := emit(0, infer.Chunk{Text: p}); err != nil {
				return []infer.Result{res}, err
			}
		}
		return []infer.Result{res}, nil
	}}
}

const selection = `"file":"a/b.py","before":"class A:\n","selection":"    def f(self):\n        pass\n","range":{"start":{"line":1,"character":0},"end":{"line":3,"character":0}}`

func TestList(t *testing.T) {
	url := start(t, configs.Assist{}, &servetest.Fake{}, nil)
	resp, err := http.Get(url + "/v1/assist")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	list := servetest.Decode[struct{ Functions []assist.Info }](t, line)
	var got []string
	for _, f := range list.Functions {
		got = append(got, fmt.Sprint(f.Name, " ", f.Output, " ", f.Place, " ", f.Backend))
	}
	want := "add-input-checks code replace local, document code replace local, edit code replace local, explain prose  local, find-problems prose  local, improve code replace local, review prose  local, write-tests code new local"
	if strings.Join(got, ", ") != want {
		t.Errorf("found %s", strings.Join(got, ", "))
	}
}

func TestAnswers(t *testing.T) {
	var asked infer.Request
	engine := says(&asked, infer.FinishStop, "Here:\n``", "`python\ndef f(self):\n    ret", "urn 1\n``", "`\nDone.")
	url := start(t, configs.Assist{}, engine, nil)
	const edit = `{"place":"replace","range":{"start":{"line":1,"character":0},"end":{"line":3,"character":0}},"newText":"    def f(self):\n        return 1\n"}`
	const rest = `"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8},"finish_reason":"stop","model":"some/model"}`
	status, body, _ := servetest.Post(t, url+"/v1/assist/improve", "{"+selection+`,"instruction":"Return one."}`)
	if want := `{"text":"    def f(self):\n        return 1\n","edit":` + edit + "," + rest + "\n"; status != 200 || body != want {
		t.Errorf("found %d %s, expected %s", status, body, want)
	}
	if !strings.Contains(asked.Prompt.Prefix, "def f(self):\n    pass\n```") || !strings.Contains(asked.Prompt.Prefix, "Return one.") || asked.Class != infer.Chat ||
		len(asked.StopIDs) != 1 || asked.Stop[0] != "\nuser:" || asked.MaxTokens != 1500 {
		t.Errorf("asked %+v", asked)
	}
	resp, err := http.Post(url+"/v1/assist/improve", "application/json", strings.NewReader("{"+selection+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := servetest.Events(t, resp.Body)
	var text strings.Builder
	for _, e := range events[:len(events)-1] {
		text.WriteString(servetest.Decode[struct{ Delta string }](t, e).Delta)
	}
	if text.String() != "    def f(self):\n        return 1\n" || events[len(events)-1] != `{"edit":`+edit+","+rest {
		t.Errorf("found %q", events)
	}
	url = start(t, configs.Assist{}, says(nil, infer.FinishLength, "A *list*: List<int>"), nil)
	status, body, _ = servetest.Post(t, url+"/v1/assist/explain", "{"+selection+`,"format":"html"}`)
	if want := `{"text":"<p>A <em>list</em>: List&lt;int&gt;</p>\n",` + strings.Replace(rest, "stop", "length", 1) + "\n"; status != 200 || body != want {
		t.Errorf("found %d %s, expected %s", status, body, want)
	}
	// A model that cannot converse goes on with a text.
	url = start(t, configs.Assist{}, says(&asked, infer.FinishStop, " waits."), func(*wire.Model) {})
	status, body, _ = servetest.Post(t, url+"/v1/assist/explain", `{"selection":"wait()"}`)
	if got := servetest.Decode[struct{ Text string }](t, body).Text; status != 200 || got != "This code waits." || asked.Prompt.FIM != infer.FIMNever {
		t.Errorf("found %d %s for %+v", status, body, asked.Prompt)
	}
}

func TestRefusals(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(map[string]int{"Bearer busy": 429, "Bearer bad": 401}[r.Header.Get("Authorization")])
		fmt.Fprint(w, `{"error":{"message":"no"}}`)
	}))
	defer refusing.Close()
	t.Setenv("AUTODEV_TEST_BUSY", "busy")
	t.Setenv("AUTODEV_TEST_BAD", "bad")
	backend := func(name, key string, requests int) configs.AssistBackend {
		return configs.AssistBackend{Name: name, BaseURL: refusing.URL + "/v1", Model: "m", KeyEnv: key, TimeoutSeconds: 5, RequestsPerDay: requests}
	}
	url := start(t, configs.Assist{Backends: []configs.AssistBackend{backend("busy", "AUTODEV_TEST_BUSY", 1), backend("bad", "AUTODEV_TEST_BAD", 0)}},
		says(nil, infer.FinishStop, "I cannot do that for you, sorry. Ask somebody else."), nil)
	cut := start(t, configs.Assist{}, says(nil, infer.FinishLength, "```\nx = 1\ny"), nil)
	later := start(t, configs.Assist{}, says(nil, infer.FinishCancel, "```\nx = 1\n```\n"), nil)
	for _, c := range []struct {
		url, body string
		status    int
		want      string
	}{
		{url + "/v1/assist/nope", `{}`, 404, `"code":"function_not_found"`},
		{url + "/v1/assist/improve", `{`, 400, `"code":"invalid_json"`},
		{url + "/v1/assist/improve", `{}`, 400, `selection: found no text`},
		{url + "/v1/assist/improve", `{"selection":7}`, 400, `selection: found 7, expected a string`},
		{url + "/v1/assist/improve", `{"selection":"x","format":"pdf"}`, 400, `expected text or html`},
		{url + "/v1/assist/improve", `{"selection":"x","range":{"start":{"line":1}}}`, 400, `range: `},
		{url + "/v1/assist/improve", `{"selection":"x","range":{"start":{"line":1,"character":0},"end":{"line":0,"character":9}}}`, 400, `before the start`},
		{url + "/v1/assist/improve", `{"selection":"x","backend":"nowhere"}`, 400, `backend: found \"nowhere\", expected one of local, busy, bad`},
		{url + "/v1/assist/improve", `{"selection":"` + strings.Repeat("x", 300<<10) + `"}`, 400, `expected at most 262144`},
		{url + "/v1/assist/improve", `{"selection":"x"}`, 422, `"code":"no_code"`},
		{cut + "/v1/assist/improve", `{"selection":"x"}`, 422, `"code":"truncated"`},
		{later + "/v1/assist/improve", `{"selection":"x"}`, 409, `"code":"superseded"`},
		{url + "/v1/assist/explain", `{"selection":"x","backend":"busy"}`, 429, `"code":"backend_busy"`},
		{url + "/v1/assist/explain", `{"selection":"x","backend":"busy"}`, 429, `"code":"budget_exceeded"`},
		{url + "/v1/assist/explain", `{"selection":"x","backend":"bad"}`, 502, `the key was refused`},
	} {
		status, body, header := servetest.Post(t, c.url, c.body)
		if status != c.status || !strings.Contains(body, c.want) || !strings.HasPrefix(body, `{"error":{"message":`) {
			t.Errorf("%.80s: found %d %s, expected %d %s", c.body, status, body, c.status, c.want)
		}
		if c.want == `"code":"backend_busy"` && header.Get("Retry-After") != "7" {
			t.Errorf("found Retry-After %q, expected the service's", header.Get("Retry-After"))
		}
	}
	// In a stream that has begun, the failure is the last event, and there is no edit.
	resp, err := http.Post(cut+"/v1/assist/improve", "application/json", strings.NewReader(`{"selection":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := servetest.Events(t, resp.Body)
	last := events[len(events)-1]
	if len(events) < 2 || !strings.Contains(last, `"code":"truncated"`) || strings.Contains(strings.Join(events, ""), `"edit"`) {
		t.Errorf("found %q", events)
	}
}

func TestClientLeaves(t *testing.T) {
	ended := make(chan error, 1)
	engine := &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if err := emit(0, infer.Chunk{Text: "first"}); err != nil {
			return nil, err
		}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}}
	url := start(t, configs.Assist{}, engine, nil)
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/assist/explain", strings.NewReader(`{"selection":"x","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "data: {\"delta\":\"first\"}\n" {
		t.Fatalf("found %q (%v)", line, err)
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the engine goes on")
	}
}

// A real model with random weights talks nonsense, which must not matter.
func TestRealEngine(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{})
	url := start(t, configs.Assist{}, engine, func(*wire.Model) {})
	status, body, _ := servetest.Post(t, url+"/v1/assist/explain", `{"selection":"x","seed":1}`)
	if status != 200 && !(status == 400 && strings.Contains(body, "context_length_exceeded")) {
		t.Errorf("found %d %s", status, body)
	}
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{"{" + selection + "}", `{"selection":"x","stream":true}`, `{"range":{"start":{},"end":[]}}`, `[]`, `{"selection":"\ud800"}`, `{"selection":"x","seed":1e99,"format":null}`} {
		f.Add(s, "improve")
	}
	s, err := assist.Open(configs.Assist{}, false)
	if err != nil {
		f.Fatal(err)
	}
	url, _ := servetest.Start(f, says(nil, infer.FinishStop, "```\nx\n```"), serve.Options{Protocols: []*wire.Protocol{s.Protocol()}}, nil)
	f.Fuzz(func(t *testing.T, body, name string) {
		status, answer, _ := servetest.Post(t, url+"/v1/assist/"+strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r == '-' {
				return r
			}
			return -1
		}, name)+"x"[:len(name)%2], body)
		if status >= 500 {
			t.Fatalf("%q: found %d %s", body, status, answer)
		}
	})
}
