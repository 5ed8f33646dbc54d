package tabby_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/openai"
	"autodev/serve/servetest"
	"autodev/serve/tabby"
	"autodev/serve/wire"
)

var volatile = regexp.MustCompile(`"cmpl-[0-9a-f]{24}"`)

// start serves OpenAI's protocol too, with which a path is shared.
func start(t *testing.T, engine wire.Engine, r tabby.Recorder, change func(*wire.Model)) string {
	url, _ := servetest.Start(t, engine, serve.Options{Protocols: []*wire.Protocol{openai.New(), tabby.New(r)}}, change)
	return url
}

func TestAnswer(t *testing.T) {
	url := start(t, &servetest.Fake{}, nil, nil)
	const text = `{"id":ID,"choices":[{"index":0,"text":"one two<&>"}]`
	for _, c := range []struct{ body, want string }{
		{`{"segments":{"prefix":"p"}}`, text + `}`},
		{`{"language":"python","segments":{"prefix":"p","suffix":null,"clipboard":"c","git_url":5,"edit_history":{}},"user":"u","mode":"standard","debug_options":null}`, text + `,"mode":"standard"}`},
		{`{"debug_options":{"raw_prompt":"p"}}`, text + `}`},
		{`{"segments":{"prefix":"p","declarations":[{"filepath":"a.py","body":"<x>"}],"relevant_snippets_from_changed_files":[{"filepath":"b.py","body":"y","score":2.5}]},` +
			`"debug_options":{"return_snippets":true,"return_prompt":true}}`,
			text + `,"debug_data":{"snippets":[{"filepath":"a.py","body":"<x>","score":1},{"filepath":"b.py","body":"y","score":2.5}],"prompt":"##"}}`},
		{`{"segments":{"prefix":"p"},"debug_options":{"return_snippets":true}}`, text + `,"debug_data":{"snippets":[]}}`},
		{`{"prompt":"p","seed":1}`, `{"id":ID,"object":"text_completion",`}, // not Tabby's
	} {
		status, got, header := servetest.Post(t, url+"/v1/completions", c.body)
		got = volatile.ReplaceAllString(got, "ID")
		if same := got == c.want+"\n"; status != 200 || header.Get("Content-Type") != "application/json" || !same && !(strings.HasSuffix(c.want, ",") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %d %s\nexpected %s", c.body, status, got, c.want)
		}
	}
}

func TestRequestsReachEngine(t *testing.T) {
	var got []infer.Request
	url := start(t, servetest.Asked(&got), nil, func(m *wire.Model) { m.Shape = infer.Shape{Lines: infer.AutoLines, NoOverlap: true} })
	one := func(change func(*infer.Request)) infer.Request {
		r := infer.Request{
			Prompt: infer.Prompt{Prefix: "p", Suffix: "\n"}, MaxTokens: 64, Sampling: infer.Sampling{TopP: 1, Seed: 1},
			Shape: infer.Shape{Lines: infer.AutoLines, NoOverlap: true}, Class: infer.Interactive, Reuse: true,
		}
		change(&r)
		return r
	}
	for body, want := range map[string]infer.Request{
		`{"segments":{"prefix":"p"}`:                                               one(func(*infer.Request) {}),
		`{"segments":{"prefix":"p","suffix":""},"temperature":0.5`:                 one(func(r *infer.Request) { r.Sampling.Temperature = 0.5 }),
		`{"segments":{"prefix":"p\r\n"}`:                                           one(func(r *infer.Request) { r.Prompt.Prefix, r.Prompt.Suffix = "p\r\n", "\r\n" }),
		`{"segments":{"prefix":"p","suffix":"s\r\n","filepath":"a/b.py"}`:          one(func(r *infer.Request) { r.Prompt.Suffix, r.Prompt.Filename = "s\r\n", "a/b.py" }),
		`{"debug_options":{"raw_prompt":"raw"},"segments":{"prefix":"ignored"}`:    one(func(r *infer.Request) { r.Prompt = infer.Prompt{Prefix: "raw"} }),
		`{"debug_options":{"raw_prompt":"<fim_prefix>a<fim_suffix>b<fim_middle>"}`: one(func(r *infer.Request) { r.Prompt = infer.Prompt{Prefix: "a", Suffix: "b", FIM: infer.FIMAlways} }),
		`{"segments":{"prefix":"<fim_prefix>a<fim_suffix>b<fim_middle>"}`:          one(func(r *infer.Request) { r.Prompt.Prefix = "<fim_prefix>a<fim_suffix>b<fim_middle>" }),
		`{"segments":{"prefix":"p"},"max_tokens":9.0,"reuse":false,"lines":"one","no_overlap":false,"heal":true,"filename":"c.go","files":[{"filename":"d","text":"e"}]`: one(func(r *infer.Request) {
			r.MaxTokens, r.Shape, r.Reuse = 9, infer.Shape{Lines: infer.OneLine}, false
			r.Prompt.Heal, r.Prompt.Filename, r.Prompt.Files = true, "c.go", []infer.File{{Name: "d", Text: "e"}}
		}),
		`{"segments":{"prefix":"p","relevant_snippets_from_recently_opened_files":[{"filepath":"r1","body":"5"},{"filepath":"r2","body":"6"}],` +
			`"relevant_snippets_from_changed_files":[{"filepath":"c1","body":"3","score":9},{"filepath":"c2","body":"4","score":8}],"clipboard":"x",` +
			`"declarations":[{"filepath":"d1","body":"1"},{"filepath":"empty","body":""},{"filepath":"d2","body":"2"}]}`: one(func(r *infer.Request) {
			r.Prompt.Files = []infer.File{{Name: "d1", Text: "1"}, {Name: "d2", Text: "2"}, {Name: "c1", Text: "3"}, {Name: "c2", Text: "4"}, {Name: "r1", Text: "5"}, {Name: "r2", Text: "6"}}
		}),
		`{"segments":{"prefix":"p","declarations":[{"filepath":"d1","body":"1"}]},"debug_options":{"disable_retrieval_augmented_code_completion":true}`:                     one(func(*infer.Request) {}),
		`{"segments":{"prefix":"p","suffix":null,"declarations":null,"filepath":null,"clipboard":null},"temperature":null,"mode":null,"debug_options":null,"language":null`: one(func(*infer.Request) {}),
	} {
		got = nil
		status, answer, _ := servetest.Post(t, url+"/v1/completions", body+`,"seed":1}`)
		if status != 200 || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s: %d %s\nengine got %+v\nexpected    %+v", body, status, answer, got, want)
		}
	}
}

// noFIM is an engine that cannot fill in.
type noFIM struct{ *servetest.Fake }

func (noFIM) Info() infer.Info { return infer.Info{Context: 64, Vocab: 100} }

func TestEmptySuffixWithoutFIM(t *testing.T) {
	var got infer.Prompt
	url := start(t, noFIM{&servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		got = reqs[0].Prompt
		return make([]infer.Result, 1), nil
	}}}, nil, nil)
	if status, answer, _ := servetest.Post(t, url+"/v1/completions", `{"segments":{"prefix":"p"}}`); status != 200 || got.Suffix != "" || got.Prefix != "p" {
		t.Errorf("%d %s, engine got %+v", status, answer, got)
	}
}

func TestBadRequests(t *testing.T) {
	busy := &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, &infer.BusyError{Reason: "7 requests are waiting", RetryAfter: 1500 * time.Millisecond}
	}}
	url := start(t, busy, nil, nil)
	for _, c := range []struct {
		path, body string
		status     int
		message    string
	}{
		{"completions", `{"language":"python"}`, 400, "segments: missing, expected an object with a prefix"},
		{"completions", `{"segments":null,"mode":"standard"}`, 400, "segments: missing, expected an object with a prefix"},
		{"completions", `{"debug_options":{}}`, 400, "segments: missing, expected an object with a prefix"},
		{"completions", `{"segments":{}}`, 400, "segments: prefix: missing, expected a string"},
		{"completions", `{"segments":[1]}`, 400, "segments: found an array, expected an object"},
		{"completions", `{"segments":{"prefix":1}}`, 400, "segments: prefix: found 1, expected a string"},
		{"completions", `{"segments":{"prefix":"secret","suffix":{}}}`, 400, "segments: suffix: found an object, expected a string"},
		{"completions", `{"segments":{"prefix":"p","declarations":{}}}`, 400, "segments: declarations: found an object, expected an array of objects"},
		{"completions", `{"segments":{"prefix":"p","declarations":[null]}}`, 400, "segments: declarations: element 0: found null, expected an object"},
		{"completions", `{"segments":{"prefix":"p","declarations":[{"body":"secret"},{"body":1}]}}`, 400, "segments: declarations: body: found 1, expected a string"},
		{"completions", `{"segments":{"prefix":"p"},"temperature":"hot"}`, 400, "temperature: found a string, expected a number"},
		{"completions", `{"segments":{"prefix":"p"},"seed":"x"}`, 400, "seed: found a string, expected a whole number of 64 bits"},
		{"completions", `{"segments":{"prefix":"p"},"mode":"secret"}`, 400, "mode: found another word, expected standard"},
		{"completions", `{"segments":{"prefix":"p"},"mode":"next_edit_suggestion"}`, 501, "mode: the model completes and does not predict edits, expected standard"},
		{"completions", `{"segments":{"prefix":"p"},"debug_options":1}`, 400, "debug_options: found 1, expected an object"},
		{"completions", `{"segments":{"prefix":"p"},"debug_options":{"return_prompt":2}}`, 400, "debug_options: return_prompt: found 2, expected true or false"},
		{"completions", `{"segments":{"prefix":"p"},"lines":"three"}`, 400, "lines: found another word, expected all, one, block or auto"},
		{"completions", `{"segments":{"prefix":"p"},"model":1}`, 400, "model: found 1, expected a string"},
		{"completions", `{"segments":{"prefix":"p"}}`, 429, "busy: 7 requests are waiting"},
		{"events", `{"type":"view"`, 400, "body: malformed JSON at byte 14 of 14: unexpected end of JSON input"},
		{"events", `{"completion_id":"x"}`, 400, "type: missing, expected a string"},
		{"events", `{"type":"secret","completion_id":"x"}`, 400, "type: found another word, expected view, select or dismiss"},
		{"events", `{"type":"view"}`, 400, "completion_id: missing, expected a string"},
		{"events", `{"type":"view","completion_id":"x","choice_index":-1}`, 400, "choice_index: found -1, expected a whole number from 0 to 2147483647"},
		{"events", `{"type":"view","completion_id":"x","elapsed":"long"}`, 400, "elapsed: found a string, expected a whole number from 0 to 2147483647"},
	} {
		status, got, header := servetest.Post(t, url+"/v1/"+c.path, c.body)
		if want := fmt.Sprintf(`{"error":%q}`, c.message) + "\n"; status != c.status || got != want {
			t.Errorf("%s %s: %d %s\nexpected %d %s", c.path, c.body, status, got, c.status, want)
		}
		if c.status == 429 && header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", header.Get("Retry-After"))
		}
	}
	// Without anything of Tabby's it is OpenAI's clients' mistake.
	if status, got, _ := servetest.Post(t, url+"/v1/completions", `{}`); status != 400 || !strings.Contains(got, `"code":"missing_required_parameter"`) {
		t.Errorf("%d %s", status, got)
	}
}

type recorder struct {
	got []tabby.Event
	err error
}

func (r *recorder) Record(e tabby.Event) error {
	r.got = append(r.got, e)
	return r.err
}

func TestEvents(t *testing.T) {
	r := &recorder{}
	url := start(t, &servetest.Fake{}, r, nil)
	for _, c := range []struct {
		query, body string
		want        tabby.Event
	}{
		{"", `{"type":"view","completion_id":"cmpl-1","choice_index":0,"view_id":"v-7"}`, tabby.Event{Type: "view", CompletionID: "cmpl-1", View: "v-7", ElapsedMS: -1}},
		{"?select_kind=line", `{"type":"select","completion_id":"cmpl-1","choice_index":2,"elapsed":350}`, tabby.Event{Type: "select", CompletionID: "cmpl-1", Choice: 2, ElapsedMS: 350, Line: true}},
		{"?select_kind=all", `{"type":"select","completion_id":"cmpl-1","choice_index":1.0,"elapsed":null}`, tabby.Event{Type: "select", CompletionID: "cmpl-1", Choice: 1, ElapsedMS: -1}},
		{"?select_kind=line", `{"type":"dismiss","completion_id":"cmpl-1","more":[1]}`, tabby.Event{Type: "dismiss", CompletionID: "cmpl-1", ElapsedMS: -1}},
	} {
		r.got = nil
		status, got, _ := servetest.Post(t, url+"/v1/events"+c.query, c.body)
		if status != 200 || got != "" || len(r.got) != 1 || r.got[0] != c.want {
			t.Errorf("%s: %d %q, recorded %+v, expected %+v", c.body, status, got, r.got, c.want)
		}
	}
	r.err = errors.New("the disk is full")
	if status, got, _ := servetest.Post(t, url+"/v1/events", `{"type":"view","completion_id":"x"}`); status != 500 || got != `{"error":"the disk is full"}`+"\n" {
		t.Errorf("%d %s", status, got)
	}
}

// loading is a service that has no model yet.
type loading struct{}

func (loading) Models() []wire.Model { return nil }

func (loading) Use(string) (wire.Model, func(), error) {
	return wire.Model{}, nil, wire.Errorf(http.StatusServiceUnavailable, wire.Overload, "", "loading", "no model is loaded yet")
}

// chat is a model's ability to converse.
type chat struct{ wire.Chat }

func TestHealth(t *testing.T) {
	build := regexp.MustCompile(`"build_date":"[^"]*","build_timestamp":"[^"]*","git_sha":"[^"]*"`)
	get := func(url, method, path string) string {
		t.Helper()
		req, err := http.NewRequest(method, url+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(b.String(), "\r\n\r\n")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %s", method, path, b.String())
		}
		return build.ReplaceAllString(body, "BUILD")
	}
	tail := fmt.Sprintf(`"arch":%q,"cpu_info":%[1]q,"cpu_count":%d,"version":{BUILD,"git_describe":"v0.32.0"}}`, runtime.GOARCH, runtime.NumCPU()) + "\n"
	url := start(t, &servetest.Fake{}, nil, nil)
	want := `{"status":"ok","model":"some/model","device":"cpu","cuda_devices":[],"models":{"completion":{"local":{"model_id":"some/model","device":"cpu"}}},` + tail
	for _, method := range []string{"GET", "POST"} {
		if got := get(url, method, "/v1/health"); got != want {
			t.Errorf("%s: %s\nexpected %s", method, got, want)
		}
	}
	if got, want := get(url, "GET", "/v1beta/models"), `{"completion":["some/model"],"chat":[]}`+"\n"; got != want {
		t.Errorf("models: %s", got)
	}
	if got, want := get(url, "GET", "/v1beta/server_setting"), `{"disable_client_side_telemetry":true}`+"\n"; got != want {
		t.Errorf("setting: %s", got)
	}
	url = start(t, &servetest.Fake{}, nil, func(m *wire.Model) { m.Chat = chat{} })
	want = `{"status":"ok","model":"some/model","chat_model":"some/model","chat_device":"cpu","device":"cpu","cuda_devices":[],` +
		`"models":{"chat":{"local":{"model_id":"some/model","device":"cpu"}},"completion":{"local":{"model_id":"some/model","device":"cpu"}}},` + tail
	if got := get(url, "GET", "/v1/health"); got != want {
		t.Errorf("%s\nexpected %s", got, want)
	}
	if got, want := get(url, "GET", "/v1beta/models"), `{"completion":["some/model"],"chat":["some/model"]}`+"\n"; got != want {
		t.Errorf("models: %s", got)
	}
	url, _ = servetest.StartModels(t, loading{}, serve.Options{Protocols: []*wire.Protocol{tabby.New(nil)}})
	resp, err := http.Get(url + "/v1/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("without a model: %d", resp.StatusCode)
	}
}

// TestSameText: a completion is what OpenAI's protocol has for the same prompt.
func TestSameText(t *testing.T) {
	url := start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), nil, nil)
	_, got, _ := servetest.Post(t, url+"/v1/completions", `{"segments":{"prefix":"def größe(a):\n","suffix":"\n    return a\n"},"max_tokens":20}`)
	own := servetest.Decode[struct{ Choices []struct{ Text string } }](t, got)
	_, got, _ = servetest.Post(t, url+"/v1/completions", `{"prompt":"def größe(a):\n","suffix":"\n    return a\n","max_tokens":20}`)
	other := servetest.Decode[struct{ Choices []struct{ Text string } }](t, got)
	if len(own.Choices) != 1 || own.Choices[0].Text == "" || own.Choices[0].Text != other.Choices[0].Text {
		t.Errorf("%q, OpenAI's protocol has %q", own, other)
	}
}

// TestDisconnect: an agent that goes away ends its completion.
func TestDisconnect(t *testing.T) {
	servetest.Disconnects(t, func(e wire.Engine) string { return start(t, e, nil, nil) }, "/v1/completions", `{"segments":{"prefix":"p"}}`)
}
