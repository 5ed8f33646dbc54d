package mistral_test

import (
	"context"
	"fmt"
	"io"
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

const path = "/v1/fim/completions"

func TestWhole(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	want := `{ID,"model":"some/model","choices":[{"index":0,"message":{"role":"assistant","content":"one two<&>"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}` + "\n"
	for _, path := range []string{path, "/fim/completions"} {
		status, got, header := servetest.Post(t, url+path, `{"model":"codestral-latest","prompt":"p","suffix":"s","stream":false,"min_tokens":null}`)
		if status != 200 || header.Get("Content-Type") != "application/json" || servetest.Steady(t, got, "cmpl-", "chat.completion") != want {
			t.Errorf("%s: %d %v %s\nexpected %s", path, status, header, got, want)
		}
	}
}

func TestStream(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	want := `data: {CHUNK,"model":"some/model","choices":[{"index":0,"delta":{"role":"assistant","content":"one"},"finish_reason":null}]}` + "\n\n" +
		`data: {CHUNK,"model":"some/model","choices":[{"index":0,"delta":{"content":" two<&>"},"finish_reason":null}]}` + "\n\n" +
		`data: {CHUNK,"model":"some/model","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}` + "\n\n" +
		"data: [DONE]\n\n"
	status, got, header := servetest.Post(t, url+path, `{"model":"codestral","prompt":"p","stream":true}`)
	if status != 200 || header.Get("Content-Type") != "text/event-stream" || servetest.Steady(t, got, "cmpl-", "chat.completion") != want {
		t.Errorf("%d %v\n%s\nexpected\n%s", status, header, got, want)
	}
}

func TestReachesEngine(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, servetest.Asked(&got), serve.Options{}, func(m *wire.Model) { m.Shape = infer.Shape{Lines: infer.AutoLines, NoOverlap: true} })
	shape := infer.Shape{Lines: infer.AutoLines, NoOverlap: true}
	one := func(change func(*infer.Request)) infer.Request {
		r := infer.Request{Prompt: infer.Prompt{Prefix: "p", Suffix: "s"}, MaxTokens: 256, Sampling: infer.Sampling{TopP: 1, Seed: 1}, Shape: shape}
		change(&r)
		return r
	}
	for body, want := range map[string]infer.Request{
		`{"prompt":"p","suffix":"s"`: one(func(*infer.Request) {}),
		`{"prompt":"p"`:              one(func(r *infer.Request) { r.Prompt.Suffix, r.Shape = "", infer.Shape{} }),
		`{"prompt":"p","suffix":"s","max_tokens":7,"max_completion_tokens":9,"min_tokens":3`: one(func(r *infer.Request) { r.MaxTokens, r.MinTokens = 7, 3 }),
		`{"prompt":"p","suffix":"s","min_tokens":300`:                                        one(func(r *infer.Request) { r.MaxTokens, r.MinTokens = 300, 300 }),
		`{"prompt":"p","suffix":"s","max_completion_tokens":9`:                               one(func(r *infer.Request) { r.MaxTokens = 9 }),
		`{"prompt":"p","suffix":"s","max_tokens":0`:                                          one(func(r *infer.Request) { r.MaxTokens, r.Class = 0, infer.Background }),
		`{"prompt":"p","suffix":"s","stop":["x",""]`:                                         one(func(r *infer.Request) { r.Stop = []string{"x"} }),
		`{"prompt":"p","suffix":"s","stop":"x"`:                                              one(func(r *infer.Request) { r.Stop = []string{"x"} }),
		`{"prompt":"p","suffix":"s","temperature":0.5,"top_p":0.9,"presence_penalty":1,"frequency_penalty":-1,"logit_bias":{"5":-2.5}`: one(func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 0.5, TopP: 0.9, PresencePenalty: 1, FrequencyPenalty: -1, Seed: 1, Bias: map[int32]float64{5: -2.5}}
		}),
		`{"prompt":"p","suffix":"s","lines":"one","no_overlap":false,"no_loops":true,"n_indent":4,"heal":true,"reuse":true,"filename":"a.py","files":[{"filename":"b.py","text":"b"}]`: one(func(r *infer.Request) {
			r.Shape = infer.Shape{Lines: infer.OneLine, NoLoops: true, MinIndent: 4}
			r.Reuse, r.Prompt.Heal, r.Prompt.Filename, r.Prompt.Files = true, true, "a.py", []infer.File{{Name: "b.py", Text: "b"}}
		}),
		`{"prompt":"p","suffix":"s","model":null,"temperature":null,"top_p":null,"max_tokens":null,"min_tokens":null,"stop":null,"metadata":null,"prompt_cache_key":null,"stream":null`: one(func(*infer.Request) {}),
	} {
		for _, seed := range []string{`,"random_seed":1}`, `,"seed":1}`, `,"random_seed":1,"seed":2}`} {
			status, answer, _ := servetest.Post(t, url+path, body+seed)
			if status != 200 || len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", want) {
				t.Errorf("%s: %d %s\nengine got %+v\nexpected   %+v", body+seed, status, answer, got, want)
			}
		}
	}
}

// TestForeignMarkers: a raw prompt in a model's own format is a prefix and a suffix.
func TestForeignMarkers(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, servetest.Asked(&got), serve.Options{}, func(m *wire.Model) { m.Shape = infer.Shape{Lines: infer.AutoLines} })
	_, _, header := servetest.Post(t, url+path, `{"prompt":"<fim-prefix>a<fim-suffix><fim-middle>","filename":"x.py"}`)
	want := infer.Prompt{Prefix: "a", FIM: infer.FIMAlways, Filename: "x.py"}
	if len(got) != 1 || fmt.Sprintf("%+v", got[0].Prompt) != fmt.Sprintf("%+v", want) || got[0].Shape.Lines != infer.AutoLines || header.Get("X-AutoDev-FIM") != "translated santacoder" {
		t.Errorf("engine got %+v, header %q", got, header.Get("X-AutoDev-FIM"))
	}
}

// TestBadRequests: every misuse has its own message and field, in every form that clients look for.
func TestBadRequests(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 64 }, infer.EngineOptions{})
	url, log := servetest.Start(t, engine, serve.Options{Limits: wire.Limits{MaxBody: 2000}}, nil)
	for _, c := range []struct{ body, message, parameter, code string }{
		{``, "body: malformed JSON at byte 0 of 0: unexpected end of JSON input", "", "invalid_json"},
		{`[]`, "body: found an array, expected an object", "", "invalid_json"},
		{`{}`, "prompt: missing, expected a string", "prompt", "missing"},
		{`{"prompt":["secret"]}`, "prompt: found an array, expected a string", "prompt", "invalid_value"},
		{`{"prompt":"a","suffix":1}`, "suffix: found 1, expected a string", "suffix", "invalid_value"},
		{`{"prompt":"a","model":{}}`, "model: found an object, expected a string", "model", "invalid_value"},
		{`{"prompt":"a","max_tokens":-1}`, "max_tokens: found -1, expected a whole number from 0 to 2147483647", "max_tokens", "invalid_value"},
		{`{"prompt":"a","min_tokens":"secret"}`, "min_tokens: found a string, expected a whole number from 0 to 2147483647", "min_tokens", "invalid_value"},
		{`{"prompt":"a","min_tokens":5,"max_tokens":4}`, "min_tokens: found 5, expected 0 to max_tokens, 4", "min_tokens", "invalid_value"},
		{`{"prompt":"a","temperature":"hot"}`, "temperature: found a string, expected a number", "temperature", "invalid_value"},
		{`{"prompt":"a","temperature":-1}`, "temperature: found -1, expected 0 to 100", "temperature", "invalid_value"},
		{`{"prompt":"a","random_seed":"x"}`, "random_seed: found a string, expected a whole number of 64 bits", "random_seed", "invalid_value"},
		{`{"prompt":"a","stop":[1]}`, "stop: found an array, expected a string or an array of strings", "stop", "invalid_value"},
		{`{"prompt":"a","stream":"yes"}`, "stream: found a string, expected true or false", "stream", "invalid_value"},
		{`{"prompt":"a","lines":"secret"}`, "lines: found another word, expected all, one, block or auto", "lines", "invalid_value"},
		{`{"prompt":"a","files":[{"text":1}]}`, "files: element 0: text: found 1, expected a string", "files", "invalid_value"},
	} {
		status, got, _ := servetest.Post(t, url+path, c.body)
		param, loc := "null", `"body"`
		if c.parameter != "" {
			param = `"` + c.parameter + `"`
			loc += "," + param
		}
		want := fmt.Sprintf(`{"object":"error","message":"%[1]s","type":"invalid_request_error","param":%[2]s,"code":"%[3]s","detail":[{"loc":[%[4]s],"msg":"%[1]s","type":"%[3]s"}],"error":{"message":"%[1]s","type":"invalid_request_error"}}`+"\n",
			c.message, param, c.code, loc)
		if status != 422 || got != want {
			t.Errorf("%s: %d %s\nexpected %s", c.body, status, got, want)
		}
	}
	status, got, _ := servetest.Post(t, url+path, `{"prompt":"`+strings.Repeat("x", 2000)+`"}`)
	want := `{"object":"error","message":"body: found more than 2000 bytes, expected at most that","type":"invalid_request_error","param":null,"code":"body_too_large","error":{"message":"body: found more than 2000 bytes, expected at most that","type":"invalid_request_error"}}` + "\n"
	if status != 413 || got != want {
		t.Errorf("%d %s", status, got)
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("text of a user is in the log")
	}
}

func TestStreamFails(t *testing.T) {
	const want = `{"object":"error","message":"boom","type":"server_error","param":null,"code":"internal_error","error":{"message":"boom","type":"server_error"}}`
	servetest.StreamFails(t, nil, path, `{"prompt":"p","stream":true}`, want)
}

// TestBusy: a full server says when to come back.
func TestBusy(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, &infer.BusyError{Reason: "7 requests are waiting", RetryAfter: 1500 * time.Millisecond}
	}}, serve.Options{}, nil)
	status, got, header := servetest.Post(t, url+path, `{"prompt":"p"}`)
	if status != 429 || header.Get("Retry-After") != "2" || !strings.HasPrefix(got, `{"object":"error","message":"busy: 7 requests are waiting","type":"overloaded_error",`) {
		t.Errorf("%d %v %s", status, header, got)
	}
}

// TestEqualsCompletion: the greedy completion is that of OpenAI's route, whole and streamed.
func TestEqualsCompletion(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	body := `{"prompt":"def add(a, b):\n","suffix":"\n    return c\n","max_tokens":30,` + servetest.Endless
	_, got, _ := servetest.Post(t, url+"/v1/completions", body+`}`)
	want := servetest.Decode[struct{ Choices []struct{ Text string } }](t, got).Choices[0].Text
	type answer struct {
		Choices []struct{ Message, Delta struct{ Content string } }
	}
	_, got, _ = servetest.Post(t, url+path, body+`}`)
	whole := servetest.Decode[answer](t, got).Choices[0].Message.Content
	_, got, _ = servetest.Post(t, url+path, body+`,"stream":true}`)
	var streamed string
	for _, e := range servetest.Events(t, strings.NewReader(strings.TrimSuffix(got, "data: [DONE]\n\n"))) {
		streamed += servetest.Decode[answer](t, e).Choices[0].Delta.Content
	}
	if want == "" || whole != want || streamed != want {
		t.Errorf("completion %q, Mistral's %q, streamed %q", want, whole, streamed)
	}
}

// TestMinTokens: nothing ends a completion before so many tokens.
func TestMinTokens(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	answer := func(body string) (tokens int, reason, text string) {
		status, got, _ := servetest.Post(t, url+path, `{"prompt":"def add(a, b):\n","suffix":"\n","max_tokens":12,"logit_bias":{"0":100,"70":60},`+body)
		if status != 200 {
			t.Fatalf("%s: %d %s", body, status, got)
		}
		type choice struct {
			Message      struct{ Content string }
			FinishReason string `json:"finish_reason"`
		}
		a := servetest.Decode[struct {
			Choices []choice
			Usage   wire.Usage
		}](t, got)
		return a.Usage.CompletionTokens, a.Choices[0].FinishReason, a.Choices[0].Message.Content
	}
	if n, reason, _ := answer(`"min_tokens":0}`); n != 0 || reason != "stop" {
		t.Fatalf("a model that ends at once: %d tokens, %s", n, reason)
	}
	n, reason, text := answer(`"min_tokens":7}`)
	if n != 7 || reason != "stop" || text == "" {
		t.Errorf("at least 7: %d tokens, %s, %q", n, reason, text)
	}
	// A stop text that the first token completes, and each one after it.
	if n, reason, _ := answer(fmt.Sprintf(`"min_tokens":7,"stop":%q}`, text[:1])); n != 7 || reason != "stop" {
		t.Errorf("at least 7 with a stop text: %d tokens, %s", n, reason)
	}
	if n, reason, cut := answer(fmt.Sprintf(`"min_tokens":4,"stop":%q,"logit_bias":{"70":100}}`, text[:1])); n != 5 || reason != "stop" || cut != strings.Repeat(text[:1], 4) {
		t.Errorf("at least 4 with a stop text: %d tokens, %s, %q", n, reason, cut)
	}
}

// TestDisconnect: when a client leaves, the completion that nobody reads any more ends.
func TestDisconnect(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 100000 }, infer.EngineOptions{Concurrency: 1, Queue: 1, MaxWait: time.Hour})
	url, log := servetest.Start(t, engine, serve.Options{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, strings.NewReader(`{"prompt":"def f","max_tokens":99990,"stream":true,"temperature":1,`+servetest.Endless+`}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	began := time.Now()
	if status, got, _ := servetest.Post(t, url+path, `{"prompt":"x","max_tokens":2}`); status != 200 {
		t.Fatalf("after a client left: %d %s", status, got)
	}
	// The endless completion alone would take minutes.
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the engine was free only after %v", d)
	}
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(log.String(), "status=499"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no departure in the log:\n%s", log)
		}
	}
}
