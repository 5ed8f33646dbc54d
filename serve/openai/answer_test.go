package openai_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/servetest"
)

func TestAnswerWhole(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	status, got, header := servetest.Post(t, url+"/v1/completions", `{"prompt":["a","b"],"n":2,"model":"whatever","user":"u","unknown":{"x":[1]}}`)
	want := `{ID,"model":"some/model","choices":[` +
		`{"text":"one two<&>","index":0,"logprobs":null,"finish_reason":"stop"},{"text":"one two<&>","index":1,"logprobs":null,"finish_reason":"stop"},` +
		`{"text":"one two<&>","index":2,"logprobs":null,"finish_reason":"stop"},{"text":"one two<&>","index":3,"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":4,"completion_tokens":12,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":2}},` +
		`"timings":{"cache_n":4,"prompt_n":4,"prompt_ms":0,"prompt_per_token_ms":0,"prompt_per_second":0,"predicted_n":12,"predicted_ms":0,"predicted_per_token_ms":0,"predicted_per_second":0,"draft_n":8,"draft_n_accepted":4}}` + "\n"
	if status != 200 || servetest.Steady(t, got, "cmpl-", "text_completion") != want {
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
		if status != 200 || header.Get("Content-Type") != "text/event-stream" || servetest.Steady(t, got, "cmpl-", "text_completion") != c.want {
			t.Errorf("%d %v\n%s\nexpected\n%s", status, header, got, c.want)
		}
	}
}

// boom is the form of an error of the engine's.
const boom = `{"error":{"message":"boom","type":"server_error","param":null,"code":"internal_error"}}`

func TestStreamFails(t *testing.T) {
	servetest.StreamFails(t, nil, "/v1/completions", `{"prompt":"p","stream":true}`, boom)
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
