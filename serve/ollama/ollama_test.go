package ollama_test

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/ollama"
	"autodev/serve/openai"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// options are those of a server that speaks this protocol, and OpenAI's to compare it with.
func options() serve.Options {
	return serve.Options{Protocols: []*wire.Protocol{ollama.New(), openai.New()}}
}

func start(t *testing.T, engine wire.Engine, change func(*wire.Model)) string {
	t.Helper()
	url, _ := servetest.Start(t, engine, options(), change)
	return url
}

func converses(m *wire.Model) { m.Chat = servetest.Chat{} }

func request(t *testing.T, method, url, body string) (int, string, http.Header) {
	t.Helper()
	resp, answer := servetest.Send(t, method, url, body)
	return resp.StatusCode, answer, resp.Header
}

var (
	at    = regexp.MustCompile(`"created_at":"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`)
	total = regexp.MustCompile(`"total_duration":[1-9]\d*`)
)

// steady replaces what differs from run to run.
func steady(s string) string {
	return total.ReplaceAllString(at.ReplaceAllString(s, `"AT"`), "TOTAL")
}

const numbers = `TOTAL,"load_duration":0,"prompt_eval_count":2,"prompt_eval_duration":0,"eval_count":3,"eval_duration":0`

func TestAnswers(t *testing.T) {
	url := start(t, &servetest.Fake{}, converses)
	for _, c := range []struct{ path, body, contentType, want string }{
		{"/api/generate", `{"model":"some/model","prompt":"a","suffix":"b","stream":false}`, "application/json",
			`{"model":"some/model","AT","response":"one two<&>","done":true,"done_reason":"stop","context":[4,5,1,2,3],` + numbers + "}\n"},
		{"/api/generate", `{"prompt":"a","raw":true,"stream":false,"unknown":1,"keep_alive":"5m"}`, "application/json",
			`{"model":"some/model:latest","AT","response":"one two<&>","done":true,"done_reason":"stop",` + numbers + "}\n"},
		{"/api/generate", `{"model":"some/model:latest","prompt":"a","suffix":"b"}`, "application/x-ndjson",
			`{"model":"some/model:latest","AT","response":"one","done":false}` + "\n" +
				`{"model":"some/model:latest","AT","response":" two<&>","done":false}` + "\n" +
				`{"model":"some/model:latest","AT","response":"","done":true,"done_reason":"stop","context":[4,5,1,2,3],` + numbers + "}\n"},
		{"/api/generate", `{"model":"other"}`, "application/json", `{"model":"some/model:latest","AT","response":"","done":true,"done_reason":"load"}` + "\n"},
		{"/api/generate", `{"prompt":"","keep_alive":0}`, "application/json", `{"model":"some/model:latest","AT","response":"","done":true,"done_reason":"unload"}` + "\n"},
		{"/api/generate", `{"prompt":"","keep_alive":-1.0}`, "application/json", `{"model":"some/model:latest","AT","response":"","done":true,"done_reason":"load"}` + "\n"},
		{"/api/chat", `{"model":"some/model","messages":[{"role":"user","content":"hi"}],"stream":false}`, "application/json",
			`{"model":"some/model","AT","message":{"role":"assistant","content":"one two<&>"},"done":true,"done_reason":"stop",` + numbers + "}\n"},
		{"/api/chat", `{"model":"some/model","messages":[{"role":"user","content":"hi"}]}`, "application/x-ndjson",
			`{"model":"some/model","AT","message":{"role":"assistant","content":"one"},"done":false}` + "\n" +
				`{"model":"some/model","AT","message":{"role":"assistant","content":" two<&>"},"done":false}` + "\n" +
				`{"model":"some/model","AT","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",` + numbers + "}\n"},
		{"/api/chat", `{"messages":[]}`, "application/json", `{"model":"some/model:latest","AT","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}` + "\n"},
	} {
		status, got, header := servetest.Post(t, url+c.path, c.body)
		if status != 200 || steady(got) != c.want || header.Get("Content-Type") != c.contentType {
			t.Errorf("%s %s: %d %s\n%s\nexpected\n%s", c.path, c.body, status, header.Get("Content-Type"), steady(got), c.want)
		}
	}
}

// TestLogprobs: probabilities of tokens come with their text, once.
func TestLogprobs(t *testing.T) {
	tokens := []infer.Token{{ID: 65, Bytes: []byte("A"), LogProb: -0.5, Top: []infer.TokenProb{{ID: 66, LogProb: -1.5}}}}
	url := start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if !reqs[0].Logprobs || reqs[0].Top != 1 {
			t.Errorf("the engine was asked for %+v", reqs[0])
		}
		if emit != nil {
			if err := emit(0, infer.Chunk{Text: "A", Tokens: tokens, FinishReason: infer.FinishLength}); err != nil {
				return nil, err
			}
		}
		return []infer.Result{{Text: "A", IDs: []int32{65}, Tokens: tokens, FinishReason: infer.FinishLength, Timings: infer.Timings{Queue: 1, Prompt: 2, Decode: 3}}}, nil
	}}, nil)
	const told = `"logprobs":[{"token":"A","logprob":-0.5,"bytes":[65],"top_logprobs":[{"token":"#B","logprob":-1.5,"bytes":[35,66]}]}]`
	const end = `TOTAL,"load_duration":1,"prompt_eval_count":0,"prompt_eval_duration":2,"eval_count":1,"eval_duration":3}` + "\n"
	body := `{"prompt":"p","raw":true,"logprobs":true,"top_logprobs":1`
	_, got, _ := servetest.Post(t, url+"/api/generate", body+`,"stream":false}`)
	if want := `{"model":"some/model:latest","AT","response":"A","done":true,"done_reason":"length",` + told + `,` + end; steady(got) != want {
		t.Errorf("%s\nexpected\n%s", steady(got), want)
	}
	_, got, _ = servetest.Post(t, url+"/api/generate", body+`}`)
	want := `{"model":"some/model:latest","AT","response":"A","done":false,` + told + "}\n" + `{"model":"some/model:latest","AT","response":"","done":true,"done_reason":"length",` + end
	if steady(got) != want {
		t.Errorf("%s\nexpected\n%s", steady(got), want)
	}
}

func TestRequestsReachEngine(t *testing.T) {
	var got []infer.Request
	engine := servetest.Asked(&got)
	shape := infer.Shape{Lines: infer.Block, NoOverlap: true}
	base := start(t, engine, func(m *wire.Model) { m.Shape = shape })
	talks := start(t, engine, func(m *wire.Model) { m.Shape = shape; converses(m) })
	able := start(t, engine, func(m *wire.Model) { m.Chat = noTemplate{} })
	plain := infer.Request{MaxTokens: 1<<31 - 1, Sampling: infer.Sampling{TopK: 40, TopP: 0.9, RepetitionPenalty: 1, RepetitionWindow: 64, Seed: 1}}
	prompt := func(text string) func(*infer.Request) { return func(r *infer.Request) { r.Prompt.Prefix = text } }
	fill := func(r *infer.Request) {
		r.Prompt, r.Shape = infer.Prompt{Prefix: "p", Suffix: "s"}, shape
	}
	chat := func(text string) func(*infer.Request) {
		return func(r *infer.Request) {
			r.Prompt.Prefix, r.Stop, r.Class = text, []string{"\nuser:"}, infer.Chat
			r.StopIDs = servetest.Chat{}.StopIDs()
		}
	}
	both := func(all ...func(*infer.Request)) func(*infer.Request) {
		return func(r *infer.Request) {
			for _, f := range all {
				f(r)
			}
		}
	}
	for _, c := range []struct {
		url, path, fields, options string
		change                     func(*infer.Request)
	}{
		{base, "/api/generate", `"prompt":"p"`, ``, prompt("p")},
		{base, "/api/generate", `"prompt":"p","system":"s","template":"{{ .System }}"`, ``, prompt("p")},
		{base, "/api/generate", `"prompt":"p","suffix":"s"`, ``, fill},
		{base, "/api/generate", `"prompt":"p","suffix":"s","raw":true,"format":"","think":false,"images":[],"context":null`, ``, fill},
		{base, "/api/generate", `"prompt":"","suffix":"s"`, ``, both(fill, prompt(""))},
		{base, "/api/generate", `"prompt":"p","suffix":"s","lines":"one","no_overlap":false,"no_loops":true,"filename":"f.py","files":[{"filename":"g.py","text":"x"}],"heal":true`, ``,
			both(fill, func(r *infer.Request) {
				r.Shape = infer.Shape{Lines: infer.OneLine, NoLoops: true}
				r.Prompt.Filename, r.Prompt.Files, r.Prompt.Heal = "f.py", []infer.File{{Name: "g.py", Text: "x"}}, true
			})},
		{base, "/api/generate", `"prompt":"ab","context":[1,2]`, ``, func(r *infer.Request) { r.Prompt.IDs = []int32{1, 2, 'a', 'b'} }},
		{able, "/api/generate", `"prompt":"p"`, ``, prompt("p")},
		{able, "/api/chat", `"messages":[{"role":"user","content":"hi"}]`, ``, chat("user: hi\nassistant:")},
		{talks, "/api/generate", `"prompt":"p","suffix":"s"`, ``, fill},
		{talks, "/api/generate", `"prompt":"p","suffix":"s","reuse":true`, ``, both(fill, func(r *infer.Request) { r.Reuse = true })},
		{talks, "/api/generate", `"prompt":"<fim_prefix>p<fim_suffix>s<fim_middle>"`, ``, both(fill, func(r *infer.Request) { r.Prompt.FIM = infer.FIMAlways })},
		{talks, "/api/generate", `"prompt":"<|fim_prefix|>p<|fim_suffix|>s<|fim_middle|>","raw":true`, ``, both(fill, func(r *infer.Request) { r.Prompt.FIM = infer.FIMAlways })},
		{talks, "/api/generate", `"prompt":"p","raw":true`, ``, prompt("p")},
		{talks, "/api/generate", `"prompt":"p","template":"{{ .Prompt }}"`, ``, prompt("p")},
		{talks, "/api/generate", `"prompt":"p"`, ``, chat("user: p\nassistant:")},
		{talks, "/api/generate", `"prompt":"p","system":"be kind"`, ``, chat("system: be kind\nuser: p\nassistant:")},
		{talks, "/api/generate", `"prompt":"p","context":[7]`, ``, both(chat(""), func(r *infer.Request) {
			r.Prompt.IDs = engine.Encode("\auser: p\nassistant:", false)
		})},
		{talks, "/api/chat", `"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hi","images":null}],"tools":[]`, ``, chat("system: be kind\nuser: hi\nassistant:")},
		{talks, "/api/chat", `"messages":[{"role":"user","content":"hi"}]`, `"num_predict":5,"stop":["x"]`, both(chat("user: hi\nassistant:"), func(r *infer.Request) {
			r.MaxTokens, r.Stop = 5, []string{"\nuser:", "x"}
		})},
		{base, "/api/generate", `"prompt":"p"`, `"num_predict":7.0,"stop":["a","","b"]`, both(prompt("p"), func(r *infer.Request) { r.MaxTokens, r.Stop = 7, []string{"a", "b"} })},
		{base, "/api/generate", `"prompt":"p"`, `"num_predict":-2,"stop":"a","num_ctx":4096,"unknown":{}`, both(prompt("p"), func(r *infer.Request) { r.Stop = []string{"a"} })},
		{base, "/api/generate", `"prompt":"p"`, `"num_predict":null,"temperature":null,"stop":null,"top_k":null`, prompt("p")},
		{base, "/api/generate", `"prompt":"p"`, `"temperature":0.8,"top_k":0,"top_p":0.5,"min_p":0.1,"repeat_penalty":1.1,"repeat_last_n":-1,"presence_penalty":0.5,"frequency_penalty":0.25`, both(prompt("p"), func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 0.8, TopP: 0.5, MinP: 0.1, RepetitionPenalty: 1.1, PresencePenalty: 0.5, FrequencyPenalty: 0.25, Seed: 1}
		})},
		{base, "/api/generate", `"prompt":"p"`, `"repeat_last_n":0,"repeat_penalty":2`, both(prompt("p"), func(r *infer.Request) { r.Sampling.RepetitionPenalty, r.Sampling.RepetitionWindow = 0, 0 })},
	} {
		want := plain
		c.change(&want)
		body := `{` + c.fields + `,"options":{"seed":1`
		if c.options != "" {
			body += "," + c.options
		}
		status, answer, _ := servetest.Post(t, c.url+c.path, body+"}}")
		if status != 200 || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s %s: %d %.200s\nengine got %+v\nexpected   %+v", c.path, body, status, answer, got, want)
		}
	}
	servetest.Post(t, base+"/api/generate", `{"prompt":"p"}`)
	first := got[0].Sampling.Seed
	if servetest.Post(t, base+"/api/generate", `{"prompt":"p","options":{"seed":-1}}`); got[0].Sampling.Seed == first {
		t.Error("two requests without a seed share one")
	}
}

// noTemplate converses as well as a model can that was not made for it.
type noTemplate struct{ servetest.Chat }

func (noTemplate) Template() string { return "" }

func TestBadRequests(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 64 }, infer.EngineOptions{})
	url, log := servetest.Start(t, engine, serve.Options{Protocols: options().Protocols, Limits: wire.Limits{MaxBody: 2000}}, nil)
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/api/generate", ``, 400, "body: malformed JSON at byte 0 of 0: unexpected end of JSON input"},
		{"/api/generate", `[]`, 400, "body: found an array, expected an object"},
		{"/api/generate", `{"prompt":["secret"]}`, 400, "prompt: found an array, expected a string"},
		{"/api/generate", `{"prompt":"a","suffix":5}`, 400, "suffix: found 5, expected a string"},
		{"/api/generate", `{"prompt":"a","model":[]}`, 400, "model: found an array, expected a string"},
		{"/api/generate", `{"prompt":"a","stream":"secret"}`, 400, "stream: found a string, expected true or false"},
		{"/api/generate", `{"prompt":"a","raw":true,"system":"secret"}`, 400, "raw: raw mode does not support template, system, or context"},
		{"/api/generate", `{"prompt":"a","suffix":"b","context":[1]}`, 400, "context: found together with suffix, expected one of them"},
		{"/api/generate", `{"prompt":"a","context":["secret"]}`, 400, "context: found an array, expected an array of token ids"},
		{"/api/generate", `{"prompt":"a","context":[100000]}`, 400, "prompt: token 0: found id 100000, expected 0 to 321"},
		{"/api/generate", `{"prompt":"a","format":"json"}`, 400, "format: found a string, expected none: answers cannot be bound to a form here"},
		{"/api/generate", `{"prompt":"a","think":true}`, 400, "think: found a boolean, expected false: no model here thinks before it answers"},
		{"/api/generate", `{"prompt":"a","images":["secret"]}`, 400, "images: found images, expected none: no model here sees"},
		{"/api/generate", `{"prompt":"a","top_logprobs":21}`, 400, "top_logprobs: found 21, expected a whole number from 0 to 20"},
		{"/api/generate", `{"prompt":"a","keep_alive":{}}`, 400, "keep_alive: found an object, expected a number"},
		{"/api/generate", `{"prompt":"a","options":[]}`, 400, "options: found an array, expected an object"},
		{"/api/generate", `{"prompt":"a","options":{"temperature":"secret"}}`, 400, "options: temperature: found a string, expected a number"},
		{"/api/generate", `{"prompt":"a","options":{"num_predict":1.5}}`, 400, "options: num_predict: found 1.5, expected a whole number from -2147483648 to 2147483647"},
		{"/api/generate", `{"prompt":"a","options":{"stop":[1]}}`, 400, "options: stop: found an array, expected a string or an array of strings"},
		{"/api/generate", `{"prompt":"a","options":{"top_p":2}}`, 400, "top_p: found 2, expected 0 to 1"},
		{"/api/generate", `{"prompt":"a","lines":"secret"}`, 400, "lines: found another word, expected all, one, block or auto"},
		{"/api/generate", `{"prompt":"` + strings.Repeat("x", 2000) + `"}`, 413, "body: found more than 2000 bytes, expected at most that"},
		{"/api/chat", `{"messages":"secret"}`, 400, "messages: found a string, expected an array of objects"},
		{"/api/chat", `{"messages":[{"role":"secret","content":"x"}]}`, 400, "messages: element 0: role: found another word, expected system, developer, user or assistant"},
		{"/api/chat", `{"messages":[{"role":"user","content":"x","images":["secret"]}]}`, 400, "messages: element 0: images: found images, expected none: no model here sees"},
		{"/api/chat", `{"messages":[{"role":"user","content":"x"}],"tools":[{}]}`, 400, "tools: found tools, expected none: this server does not support tools"},
		{"/api/chat", `{"messages":[{"role":"user","content":"x"}]}`, 501, `model "some/model": cannot converse, expected a model with a chat template`},
		{"/api/show", `{"model":5}`, 400, "model: found 5, expected a string"},
		{"/api/pull", `{"model":"secret"}`, 501, "this server does not support pulling models"},
		{"/api/push", `{}`, 501, "this server does not support pushing models"},
		{"/api/create", `{}`, 501, "this server does not support creating models"},
		{"/api/copy", `{}`, 501, "this server does not support copying models"},
		{"/api/embed", `{}`, 501, "this server does not support embeddings"},
		{"/api/embeddings", `{}`, 501, "this server does not support embeddings"},
		{"/api/tags", `{}`, 405, "POST /api/tags: expected GET or HEAD"},
	} {
		status, got, _ := servetest.Post(t, url+c.path, c.body)
		message, err := json.Marshal(c.want)
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"error":` + string(message) + "}\n"; status != c.status || got != want {
			t.Errorf("%s %.60s: %d %s\nexpected %d %s", c.path, c.body, status, got, c.status, want)
		}
	}
	if status, got, _ := request(t, http.MethodDelete, url+"/api/delete", `{"model":"x"}`); status != 501 || got != `{"error":"this server does not support deleting models"}`+"\n" {
		t.Errorf("%d %s", status, got)
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "xxxx") {
		t.Error("text of a user is in the log")
	}
}

func TestCannotFillIn(t *testing.T) {
	url := start(t, noFIM{&servetest.Fake{}}, nil)
	if status, got, _ := servetest.Post(t, url+"/api/generate", `{"prompt":"a","suffix":"b"}`); status != 400 || got != `{"error":"suffix: model some/model does not support insert"}`+"\n" {
		t.Errorf("%d %s", status, got)
	}
	_, got, _ := servetest.Post(t, url+"/api/show", `{"model":"some/model"}`)
	if strings.Contains(got, ".Suffix") || strings.Contains(got, "insert") {
		t.Error(got)
	}
}

type noFIM struct{ *servetest.Fake }

func (noFIM) Info() infer.Info { return infer.Info{Context: 64} }

// TestFailure: an error before a stream's first part has its own status, afterwards it is the last part.
func TestFailure(t *testing.T) {
	after := 0
	url := start(t, &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for range after {
			if err := emit(0, infer.Chunk{Text: "x"}); err != nil {
				return nil, err
			}
		}
		return nil, &infer.BusyError{Reason: "7 requests are waiting", RetryAfter: time.Second}
	}}, nil)
	const failure = `{"error":"busy: 7 requests are waiting"}` + "\n"
	for _, stream := range []string{"true", "false"} {
		status, got, header := servetest.Post(t, url+"/api/generate", `{"prompt":"p","stream":`+stream+`}`)
		if status != 429 || got != failure || header.Get("Retry-After") != "1" || header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %v %s", status, header, got)
		}
	}
	after = 1
	status, got, _ := servetest.Post(t, url+"/api/generate", `{"prompt":"p"}`)
	if want := `{"model":"some/model:latest","AT","response":"x","done":false}` + "\n" + failure; status != 200 || steady(got) != want {
		t.Errorf("%d %s", status, got)
	}
}

// TestDisconnect: a completion whose client leaves ends.
func TestDisconnect(t *testing.T) {
	for _, body := range []string{`{"prompt":"p"}`, `{"prompt":"p","stream":false}`} {
		servetest.Disconnects(t, func(e wire.Engine) string { return start(t, e, nil) }, "/api/generate", body)
	}
}
