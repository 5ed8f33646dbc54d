package openai_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

var volatile = regexp.MustCompile(`"id":"cmpl-[0-9a-f]{24}","object":"text_completion","created":\d{10}`)

// steady replaces what differs from run to run, after checking its form.
func steady(t *testing.T, s string) string {
	t.Helper()
	if !volatile.MatchString(s) {
		t.Fatalf("no id and time in %s", s)
	}
	return volatile.ReplaceAllString(s, `ID`)
}

func TestAnswerWhole(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	status, got, header := servetest.Post(t, url+"/v1/completions", `{"prompt":["a","b"],"n":2,"model":"whatever","user":"u","unknown":{"x":[1]}}`)
	want := `{ID,"model":"some/model","choices":[` +
		`{"text":"one two<&>","index":0,"logprobs":null,"finish_reason":"stop"},{"text":"one two<&>","index":1,"logprobs":null,"finish_reason":"stop"},` +
		`{"text":"one two<&>","index":2,"logprobs":null,"finish_reason":"stop"},{"text":"one two<&>","index":3,"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":4,"completion_tokens":12,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":2}},` +
		`"timings":{"cache_n":4,"prompt_n":4,"prompt_ms":0,"prompt_per_token_ms":0,"prompt_per_second":0,"predicted_n":12,"predicted_ms":0,"predicted_per_token_ms":0,"predicted_per_second":0,"draft_n":8,"draft_n_accepted":4}}` + "\n"
	if status != 200 || steady(t, got) != want {
		t.Errorf("%d %s\nexpected %s", status, got, want)
	}
	if ct := header.Get("Content-Type"); ct != "application/json" || !strings.HasPrefix(header.Get("Server-Timing"), "queue;dur=") || header.Get("X-Request-Id") == "" {
		t.Errorf("header %v", header)
	}
}

func TestAnswerStream(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	for _, c := range []struct{ body, want string }{
		{`{"prompt":"p","stream":true}`,
			`data: {ID,"model":"some/model","choices":[{"text":"one","index":0,"logprobs":null,"finish_reason":null}]}` + "\n\n" +
				`data: {ID,"model":"some/model","choices":[{"text":" two<&>","index":0,"logprobs":null,"finish_reason":"stop"}]}` + "\n\n" +
				"data: [DONE]\n\n"},
		{`{"prompt":"p","stream":true,"echo":true,"stream_options":{"include_usage":true}}`,
			`data: {ID,"model":"some/model","choices":[{"text":"pone","index":0,"logprobs":null,"finish_reason":null}]}` + "\n\n" +
				`data: {ID,"model":"some/model","choices":[{"text":" two<&>","index":0,"logprobs":null,"finish_reason":"stop"}]}` + "\n\n" +
				`data: {ID,"model":"some/model","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}},"timings":{"cache_n":1,"prompt_n":1,"prompt_ms":0,"prompt_per_token_ms":0,"prompt_per_second":0,"predicted_n":3,"predicted_ms":0,"predicted_per_token_ms":0,"predicted_per_second":0,"draft_n":2,"draft_n_accepted":1}}` + "\n\n" +
				"data: [DONE]\n\n"},
	} {
		status, got, header := servetest.Post(t, url+"/v1/completions", c.body)
		if status != 200 || header.Get("Content-Type") != "text/event-stream" || steady(t, got) != c.want {
			t.Errorf("%d %v\n%s\nexpected\n%s", status, header, got, c.want)
		}
		ids := volatile.FindAllString(got, -1)
		if slices.ContainsFunc(ids, func(s string) bool { return s != ids[0] }) {
			t.Errorf("events of one answer have different ids: %v", ids)
		}
	}
}

// TestStreamFails: before the first event an error has its own status, afterwards it is the last event.
func TestStreamFails(t *testing.T) {
	boom := errors.New("boom")
	after := 0
	url, log := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for range after {
			if err := emit(0, infer.Chunk{Text: "x"}); err != nil {
				return nil, err
			}
		}
		return nil, boom
	}}, serve.Options{}, nil)
	const failure = `{"error":{"message":"boom","type":"server_error","param":null,"code":"internal_error"}}`
	if status, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"p","stream":true}`); status != 500 || got != failure+"\n" {
		t.Errorf("%d %s", status, got)
	}
	after = 2
	status, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"p","stream":true}`)
	if all := servetest.Events(t, strings.NewReader(got)); status != 200 || len(all) != 3 || all[2] != failure {
		t.Errorf("%d %s", status, got)
	}
	if n := strings.Count(log.String(), "error=boom"); n != 2 {
		t.Errorf("%d of 2 failures in the log\n%s", n, log)
	}
}

func TestRequestsReachEngine(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		got = reqs
		return make([]infer.Result, len(reqs)), nil
	}}, serve.Options{}, nil)
	one := func(change func(*infer.Request)) []infer.Request {
		r := infer.Request{Prompt: infer.Prompt{Prefix: "p"}, MaxTokens: 16, Sampling: infer.Sampling{TopP: 1, Seed: 1}}
		change(&r)
		return []infer.Request{r}
	}
	for body, want := range map[string][]infer.Request{
		`{"prompt":"p"}`:                      one(func(*infer.Request) {}),
		`{"prompt":["p"],"max_tokens":7.0}`:   one(func(r *infer.Request) { r.MaxTokens = 7 }),
		`{"prompt":"p","suffix":"s"}`:         one(func(r *infer.Request) { r.Prompt.Suffix = "s" }),
		`{"prompt":"p","truncate":false}`:     one(func(r *infer.Request) { r.Prompt.Whole = true }),
		`{"prompt":"p","stop":"x"}`:           one(func(r *infer.Request) { r.Stop = []string{"x"} }),
		`{"prompt":"p","stop":["x","","y"]}`:  one(func(r *infer.Request) { r.Stop = []string{"x", "y"} }),
		`{"prompt":"p","min_tokens":9}`:       one(func(r *infer.Request) { r.MinTokens = 9 }),
		`{"prompt":"p","min_tokens":40}`:      one(func(r *infer.Request) { r.MinTokens, r.MaxTokens = 40, 40 }),
		`{"prompt":"p","stop_token_ids":[3]}`: one(func(r *infer.Request) { r.StopIDs = []int32{3} }),
		`{"prompt":"p","temperature":0.5,"top_p":0.9,"top_k":-1,"presence_penalty":1,"frequency_penalty":-1,"logit_bias":{"5":-2.5}}`: one(func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 0.5, TopP: 0.9, PresencePenalty: 1, FrequencyPenalty: -1, Seed: 1, Bias: map[int32]float64{5: -2.5}}
		}),
		`{"prompt":"p","min_p":0.1,"repetition_penalty":1.1,"repeat_last_n":64,"reuse":true}`: one(func(r *infer.Request) {
			r.Sampling.MinP, r.Sampling.RepetitionPenalty, r.Sampling.RepetitionWindow, r.Reuse = 0.1, 1.1, 64, true
		}),
		`{"prompt":"p","max_tokens":0}`:             one(func(r *infer.Request) { r.MaxTokens, r.Class = 0, infer.Background }),
		`{"prompt":"p","max_tokens":0,"echo":true}`: one(func(r *infer.Request) { r.MaxTokens, r.Prompt.Whole = 0, true }),
		`{"prompt":"p","suffix":"s","lines":"auto","no_overlap":true,"no_loops":true,"n_indent":2,"heal":true,"filename":"a.py","files":[{"filename":"b.py","text":"b"}]}`: one(func(r *infer.Request) {
			r.Shape = infer.Shape{Lines: infer.AutoLines, NoOverlap: true, NoLoops: true, MinIndent: 2}
			r.Prompt = infer.Prompt{Prefix: "p", Suffix: "s", Heal: true, Filename: "a.py", Files: []infer.File{{Name: "b.py", Text: "b"}}}
		}),
		`{"prompt":"p","logprobs":2}`:             one(func(r *infer.Request) { r.Logprobs, r.Top = true, 2 }),
		`{"prompt":"p","logprobs":0,"echo":true}`: one(func(r *infer.Request) { r.Logprobs, r.PromptLogprobs, r.Prompt.Whole = true, true, true }),
		`{"prompt":[1,2]}`:                        one(func(r *infer.Request) { r.Prompt = infer.Prompt{IDs: []int32{1, 2}} }),
		`{"prompt":"p","suffix":null,"stop":null,"max_tokens":null,"temperature":null,"stream":null,"logprobs":null,"best_of":null,"n":null,"stream_options":null,"logit_bias":null,"model":null}`: one(func(*infer.Request) {}),
	} {
		status, answer, _ := servetest.Post(t, url+"/v1/completions", strings.TrimSuffix(body, "}")+`,"seed":1}`)
		if status != 200 || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %d %s\nengine got %+v\nexpected   %+v", body, status, answer, got, want)
		}
	}
	servetest.Post(t, url+"/v1/completions", `{"prompt":[[1],[2,3]],"n":2,"seed":9}`)
	var ids []string
	for _, r := range got {
		ids = append(ids, fmt.Sprint(r.Prompt.IDs, r.Sampling.Seed, r.Sampling.Choice))
	}
	if want := []string{"[1] 9 0", "[1] 9 1", "[2 3] 9 0", "[2 3] 9 1"}; !slices.Equal(ids, want) {
		t.Errorf("choices %v, expected %v", ids, want)
	}
	servetest.Post(t, url+"/v1/completions", `{"prompt":"p"}`)
	first := got[0].Sampling.Seed
	if servetest.Post(t, url+"/v1/completions", `{"prompt":"p"}`); got[0].Sampling.Seed == first {
		t.Error("two requests without a seed share one")
	}
}

// TestForeignMarkers: a raw prompt in another model's format is a prefix and a suffix, unless it is echoed or the model cannot fill in.
func TestForeignMarkers(t *testing.T) {
	var got []infer.Request
	do := func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		got = reqs
		return make([]infer.Result, len(reqs)), nil
	}
	const raw = "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
	shape := infer.Shape{Lines: infer.AutoLines}
	shaped := func(m *wire.Model) { m.Shape = shape }
	plain := infer.Request{Prompt: infer.Prompt{Prefix: raw}, MaxTokens: 16, Sampling: infer.Sampling{TopP: 1, Seed: 1}}
	echoed, filled, several, fixed := plain, plain, plain, plain
	echoed.Prompt.Whole = true
	filled.Prompt, filled.Shape = infer.Prompt{Prefix: "a", Suffix: "b", FIM: infer.FIMAlways, Filename: "x.py", Files: []infer.File{{Name: "y.py", Text: "y"}}, Heal: true}, shape
	several.Prompt, several.Shape = infer.Prompt{Prefix: "a", Suffix: "b", FIM: infer.FIMAlways, Whole: true}, shape
	fixed.Prompt, fixed.Shape = infer.Prompt{Prefix: raw, Suffix: "s"}, shape
	unable := &unable{servetest.Fake{Do: do}}
	for _, c := range []struct {
		engine       wire.Engine
		body, header string
		want         infer.Request // the last one
	}{
		{&servetest.Fake{Do: do}, `"prompt":"` + raw + `","filename":"x.py","files":[{"filename":"y.py","text":"y"}],"heal":true`, "translated qwen", filled},
		{&servetest.Fake{Do: do}, `"prompt":["x","` + raw + `"],"truncate":false`, "translated qwen", several},
		{&servetest.Fake{Do: do}, `"prompt":"` + raw + `","echo":true`, "", echoed},
		{&servetest.Fake{Do: do}, `"prompt":"` + raw + `","suffix":"s"`, "", fixed},
		{unable, `"prompt":"` + raw + `"`, "", plain},
	} {
		url, _ := servetest.Start(t, c.engine, serve.Options{}, shaped)
		status, answer, header := servetest.Post(t, url+"/v1/completions", `{`+c.body+`,"seed":1}`)
		if status != 200 || header.Get("X-AutoDev-FIM") != c.header || fmt.Sprintf("%+v", got[len(got)-1]) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%s: %d %s, header %q\nengine got %+v\nexpected   %+v", c.body, status, answer, header.Get("X-AutoDev-FIM"), got[len(got)-1], c.want)
		}
	}
}

// unable is an engine whose model cannot fill in.
type unable struct{ servetest.Fake }

func (*unable) Info() infer.Info { return infer.Info{Context: 64} }

// TestBadRequests: every misuse has its own message, field and code.
func TestBadRequests(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 64 }, infer.EngineOptions{})
	url, log := servetest.Start(t, engine, serve.Options{Limits: wire.Limits{MaxBody: 2000}}, nil)
	ids := strings.TrimSuffix(strings.Repeat("7,", 70), ",")
	for _, c := range []struct {
		body               string
		status             int
		message, parameter string
		code               string
	}{
		{``, 400, "body: malformed JSON at byte 0 of 0: unexpected end of JSON input", "", "invalid_json"},
		{`{"prompt":"secret",}`, 400, "body: malformed JSON at byte 20 of 20: invalid character '}' looking for beginning of object key string", "", "invalid_json"},
		{`{"prompt":"a"}{`, 400, "body: malformed JSON at byte 15 of 15: invalid character '{' after top-level value", "", "invalid_json"},
		{`[1]`, 400, "body: found an array, expected an object", "", "invalid_json"},
		{`null`, 400, "body: found null, expected an object", "", "invalid_json"},
		{`{}`, 400, "prompt: missing, expected a string, an array of strings or an array of token ids", "prompt", "missing_required_parameter"},
		{`{"prompt":{}}`, 400, "prompt: found an object, expected a string, an array of strings, an array of token ids or an array of such arrays", "prompt", "invalid_value"},
		{`{"prompt":[]}`, 400, "prompt: found an empty array, expected at least one element", "prompt", "invalid_value"},
		{`{"prompt":["a",1]}`, 400, "prompt: element 1: found 1, expected a string, an array of strings, an array of token ids or an array of such arrays", "prompt", "invalid_value"},
		{`{"prompt":[1.5]}`, 400, "prompt: element 0: found 1.5, expected a string, an array of strings, an array of token ids or an array of such arrays", "prompt", "invalid_value"},
		{`{"prompt":[[]]}`, 400, "prompt: found no token ids, expected at least one", "prompt", "invalid_value"},
		{`{"prompt":[5,100000]}`, 400, "prompt: token 1: found id 100000, expected 0 to 321", "prompt", "invalid_value"},
		{`{"prompt":[` + ids + `]}`, 400, "prompt: found 70 tokens, expected at most 63: the model's context is 64 and at least 1 is left for the completion", "prompt", "context_length_exceeded"},
		{`{"prompt":"` + strings.Repeat("xyz ", 60) + `","truncate":false}`, 400, "prompt: found 240 tokens, expected at most 63: the model's context is 64 and at least 1 is left for the completion", "prompt", "context_length_exceeded"},
		{`{"prompt":[5],"suffix":"x"}`, 400, "suffix: found with token ids, expected only with a text prompt: ids are run as they are", "suffix", "invalid_value"},
		{`{"prompt":"a","suffix":["x"]}`, 400, "suffix: found an array, expected a string", "suffix", "invalid_value"},
		{`{"prompt":"a","suffix":"x","echo":true}`, 400, "echo: found together with suffix, expected one of them", "echo", "invalid_value"},
		{`{"prompt":"a","max_tokens":"many"}`, 400, "max_tokens: found a string, expected a whole number from 0 to 2147483647", "max_tokens", "invalid_value"},
		{`{"prompt":"a","max_tokens":-1}`, 400, "max_tokens: found -1, expected a whole number from 0 to 2147483647", "max_tokens", "invalid_value"},
		{`{"prompt":"a","max_tokens":1.5}`, 400, "max_tokens: found 1.5, expected a whole number from 0 to 2147483647", "max_tokens", "invalid_value"},
		{`{"prompt":"a","max_tokens":1e99}`, 400, "max_tokens: found 1e99, expected a whole number from 0 to 2147483647", "max_tokens", "invalid_value"},
		{`{"prompt":"a","temperature":"hot"}`, 400, "temperature: found a string, expected a number", "temperature", "invalid_value"},
		{`{"prompt":"a","temperature":-1}`, 400, "temperature: found -1, expected 0 to 100", "temperature", "invalid_value"},
		{`{"prompt":"a","top_p":2}`, 400, "top_p: found 2, expected 0 to 1", "top_p", "invalid_value"},
		{`{"prompt":"a","n":0}`, 400, "n: found 0, expected a whole number from 1 to 128", "n", "invalid_value"},
		{`{"prompt":["a","b"],"n":100}`, 400, "n: found 100 for 2 prompts, expected at most 128 completions in all", "n", "invalid_value"},
		{`{"prompt":"a","n":2,"best_of":3}`, 400, "best_of: found 3, expected at most n, which is 2: choosing among more completions is not supported", "best_of", "invalid_value"},
		{`{"prompt":"a","stream":"yes"}`, 400, "stream: found a string, expected true or false", "stream", "invalid_value"},
		{`{"prompt":"a","stream_options":[]}`, 400, "stream_options: found an array, expected an object", "stream_options", "invalid_value"},
		{`{"prompt":"a","stream_options":{"include_usage":1}}`, 400, "stream_options: include_usage: found 1, expected true or false", "stream_options", "invalid_value"},
		{`{"prompt":"a","stop":5}`, 400, "stop: found 5, expected a string or an array of strings", "stop", "invalid_value"},
		{`{"prompt":"a","stop":["a",null]}`, 400, "stop: found an array, expected a string or an array of strings", "stop", "invalid_value"},
		{`{"prompt":"a","stop_token_ids":["a"]}`, 400, "stop_token_ids: found an array, expected an array of token ids", "stop_token_ids", "invalid_value"},
		{`{"prompt":"a","seed":"x"}`, 400, "seed: found a string, expected a whole number of 64 bits", "seed", "invalid_value"},
		{`{"prompt":"a","logprobs":21}`, 400, "logprobs: found 21, expected a whole number from 0 to 20", "logprobs", "invalid_value"},
		{`{"prompt":"a","logit_bias":{"x":1}}`, 400, "logit_bias: found a key that is no token id", "logit_bias", "invalid_value"},
		{`{"prompt":"a","logit_bias":{"9999":1}}`, 400, "logit_bias: found token 9999, expected 0 to 321", "logit_bias", "invalid_value"},
		{`{"prompt":"a","logit_bias":[1]}`, 400, "logit_bias: found an array, expected an object of token ids and numbers", "logit_bias", "invalid_value"},
		{`{"prompt":"a","model":1}`, 400, "model: found 1, expected a string", "model", "invalid_value"},
		{`{"prompt":"` + strings.Repeat("x", 2000) + `"}`, 413, "body: found more than 2000 bytes, expected at most that", "", "body_too_large"},
	} {
		status, got, _ := servetest.Post(t, url+"/v1/completions", c.body)
		e := servetest.Decode[struct {
			Error struct {
				Message, Type string
				Param, Code   *string
			}
		}](t, got).Error
		text := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		if status != c.status || e.Message != c.message || e.Type != "invalid_request_error" || text(e.Param) != c.parameter || text(e.Code) != c.code {
			t.Errorf("%.60s: %d %s\nexpected %d %q %q %q", c.body, status, got, c.status, c.message, c.parameter, c.code)
		}
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "xyz") {
		t.Error("text of a user is in the log")
	}
}

func TestBusy(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, &infer.BusyError{Reason: "7 requests are waiting", RetryAfter: 1500 * time.Millisecond}
	}}, serve.Options{}, nil)
	for _, stream := range []string{"true", "false"} {
		status, got, header := servetest.Post(t, url+"/v1/completions", `{"prompt":"p","stream":`+stream+`}`)
		want := `{"error":{"message":"busy: 7 requests are waiting","type":"overloaded_error","param":null,"code":"busy"}}` + "\n"
		if status != 429 || header.Get("Retry-After") != "2" || got != want {
			t.Errorf("%d, Retry-After %q, %s", status, header.Get("Retry-After"), got)
		}
	}
}

// choice is what clients read of a choice.
type choice struct {
	Text     string
	Logprobs *logprobs
}

type logprobs struct {
	Tokens        []string
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

// TestConcurrent: clients at the same time get what each gets alone, whole and streamed.
func TestConcurrent(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{Concurrency: 3})
	url, _ := servetest.Start(t, engine, serve.Options{}, nil)
	var bodies []string
	for i := range 12 {
		prompt, err := json.Marshal(strings.Repeat("größe = 1\n", i))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, fmt.Sprintf(`{"prompt":%s,"suffix":"%s","max_tokens":25,"seed":%d,"temperature":%d,%s`, prompt, strings.Repeat("s", i%3), i, i%2, servetest.Endless))
	}
	type answer struct{ Choices []choice }
	text := func(a answer) string { return a.Choices[0].Text }
	alone := make([]string, len(bodies))
	for i, b := range bodies {
		status, got, _ := servetest.Post(t, url+"/v1/completions", b+"}")
		if status != 200 {
			t.Fatal(got)
		}
		alone[i] = text(servetest.Decode[answer](t, got))
	}
	if slices.Equal(alone[:6], alone[6:]) {
		t.Fatal("all completions are the same; the test would see nothing")
	}
	var wg sync.WaitGroup
	for i, b := range bodies {
		wg.Go(func() {
			_, got, _ := servetest.Post(t, url+"/v1/completions", b+"}")
			if s := text(servetest.Decode[answer](t, got)); s != alone[i] {
				t.Errorf("request %d: %q, alone %q", i, s, alone[i])
			}
		})
		wg.Go(func() {
			_, got, _ := servetest.Post(t, url+"/v1/completions", b+`,"stream":true}`)
			all := servetest.Events(t, strings.NewReader(got))
			var s string
			for _, e := range all[:len(all)-1] {
				s += text(servetest.Decode[answer](t, e))
			}
			if s != alone[i] || all[len(all)-1] != "[DONE]" {
				t.Errorf("stream %d: %q, alone %q", i, s, alone[i])
			}
		})
	}
	wg.Wait()
}

// TestLogprobs: echoed prompt and completion with one entry per token in every list, offsets in characters.
func TestLogprobs(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	type answer struct{ Choices []choice }
	body := `{"prompt":"größe = ","max_tokens":12,"temperature":1,"seed":3,"echo":true,"logprobs":2,` + servetest.Endless
	_, got, _ := servetest.Post(t, url+"/v1/completions", body+"}")
	c := servetest.Decode[answer](t, got).Choices[0]
	l := c.Logprobs
	if l == nil || len(l.Tokens) == 0 || len(l.Tokens) != len(l.TokenLogprobs) || len(l.Tokens) != len(l.TopLogprobs) || len(l.Tokens) != len(l.TextOffset) {
		t.Fatalf("lists of different lengths: %+v", l)
	}
	if l.TokenLogprobs[0] != nil || l.TopLogprobs[0] != nil {
		t.Error("the first token of a prompt has a probability")
	}
	if !strings.HasPrefix(c.Text, "größe = ") {
		t.Errorf("text %q does not begin with the prompt", c.Text)
	}
	runes := []rune(c.Text)
	for i, tok := range l.Tokens {
		if i > 0 && (l.TokenLogprobs[i] == nil || *l.TokenLogprobs[i] > 0 || len(l.TopLogprobs[i]) < 2 || l.TopLogprobs[i][tok] != *l.TokenLogprobs[i]) {
			t.Errorf("token %d: %v in %v", i, l.TokenLogprobs[i], l.TopLogprobs[i])
		}
		// Broken characters become certain, as U+FFFD, with the token after them.
		broken := strings.HasPrefix(tok, `bytes:\x`) || i > 0 && strings.HasPrefix(l.Tokens[i-1], `bytes:\x`)
		if !broken && !strings.HasPrefix(string(runes[l.TextOffset[i]:]), tok) {
			t.Errorf("token %d %q is not at character %d of %q", i, tok, l.TextOffset[i], c.Text)
		}
	}
	_, got, _ = servetest.Post(t, url+"/v1/completions", body+`,"stream":true}`)
	var streamed logprobs
	for _, e := range servetest.Events(t, strings.NewReader(got)) {
		if e == "[DONE]" {
			break
		}
		p := servetest.Decode[answer](t, e).Choices[0].Logprobs
		streamed.Tokens = append(streamed.Tokens, p.Tokens...)
		streamed.TextOffset = append(streamed.TextOffset, p.TextOffset...)
	}
	n := len(l.Tokens) - len(streamed.Tokens)
	if n < 0 || len(streamed.Tokens) != 12 || !slices.Equal(streamed.Tokens, l.Tokens[n:]) || !slices.Equal(streamed.TextOffset, l.TextOffset[n:]) {
		t.Errorf("streamed tokens %q at %v, whole %q at %v", streamed.Tokens, streamed.TextOffset, l.Tokens, l.TextOffset)
	}
}

// TestShortenedPrompt: a whole answer says that its prompt was cut, and so does the last event of a stream.
func TestShortenedPrompt(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, func(c *model.Config) { c.Positions = 64 }, infer.EngineOptions{}), serve.Options{}, nil)
	for _, c := range []struct {
		prompt string
		cut    bool
	}{{"x = 1\n", false}, {strings.Repeat("x = 1\n", 40), true}} {
		body := fmt.Sprintf(`{"prompt":%q,"max_tokens":5,%s`, c.prompt, servetest.Endless)
		_, got, _ := servetest.Post(t, url+"/v1/completions", body+`}`)
		if strings.Contains(got, `"prompt_shortened":true`) != c.cut {
			t.Errorf("cut %v: %s", c.cut, got)
		}
		_, got, _ = servetest.Post(t, url+"/v1/completions", body+`,"stream":true}`)
		all := servetest.Events(t, strings.NewReader(got))
		for i, e := range all {
			if last := i == len(all)-2; strings.Contains(e, `"prompt_shortened":true`) != (c.cut && last) || strings.Contains(e, `"finish_reason":"length"`) != last {
				t.Errorf("cut %v, event %d of %d: %s", c.cut, i, len(all), e)
			}
		}
	}
}

// TestCachedTokens: a prompt that goes on from the one before is evaluated only where it does, and the answer says so.
func TestCachedTokens(t *testing.T) {
	url, log := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	type answer struct {
		Choices []struct{ Text string }
		Usage   struct {
			PromptTokens        int `json:"prompt_tokens"`
			PromptTokensDetails struct {
				CachedTokens int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
		Timings struct {
			CacheN   int     `json:"cache_n"`
			PromptN  int     `json:"prompt_n"`
			PromptMS float64 `json:"prompt_ms"`
			Rate     float64 `json:"predicted_per_second"`
		}
	}
	ask := func(prefix string) answer {
		_, got, _ := servetest.Post(t, url+"/v1/completions", fmt.Sprintf(`{"prompt":%q,"suffix":"\n    return a\n","max_tokens":4,%s}`, prefix, servetest.Endless))
		return servetest.Decode[answer](t, got)
	}
	if a := ask("def add(a, b):\n"); a.Usage.PromptTokensDetails.CachedTokens != 0 || a.Timings.PromptN != a.Usage.PromptTokens || !(a.Timings.PromptMS > 0 && a.Timings.Rate > 0) {
		t.Errorf("first request: %+v", a)
	}
	a := ask("def add(a, b):\n    if a")
	if n := a.Usage.PromptTokensDetails.CachedTokens; n < a.Usage.PromptTokens-5 || n != a.Timings.CacheN || a.Timings.PromptN != a.Usage.PromptTokens-n {
		t.Errorf("after typing: %+v", a)
	}
	if !strings.Contains(log.String(), "completion0.cached=") {
		t.Errorf("log %s", log)
	}
}

// TestOptionsReachEngine: the server's order of prompts and its speculation are those of every request.
func TestOptionsReachEngine(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		got = reqs
		return make([]infer.Result, len(reqs)), nil
	}}, serve.Options{}, func(m *wire.Model) { m.Order, m.Speculate = infer.SPM, infer.SpeculateOff })
	servetest.Post(t, url+"/v1/completions", `{"prompt":["a","b"],"suffix":"c","n":2}`)
	for i, r := range got {
		if r.Prompt.Order != infer.SPM || r.Speculate != infer.SpeculateOff {
			t.Errorf("request %d: %+v", i, r)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d requests", len(got))
	}
}

// TestOpenAIClient drives the server with OpenAI's own Python package. AUTODEV_PYTHON names an interpreter that has it.
func TestOpenAIClient(t *testing.T) {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_PYTHON is not set: no interpreter with the openai package")
	}
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	out, err := exec.CommandContext(t.Context(), python, "testdata/openai_client.py", url+"/v1").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all checks passed\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
