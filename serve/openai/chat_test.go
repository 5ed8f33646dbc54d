package openai_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

func converses(m *wire.Model) { m.Chat = servetest.Chat{} }

const hello = `"messages":[{"role":"user","content":"hello"}]`

func TestChatWhole(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, converses)
	want := `{ID,"model":"some/model","choices":[` +
		`{"index":0,"message":{"role":"assistant","content":"one two<&>","refusal":null},"logprobs":null,"finish_reason":"stop"},` +
		`{"index":1,"message":{"role":"assistant","content":"one two<&>","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":2,"completion_tokens":6,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":1}},` +
		`"timings":{"cache_n":2,"prompt_n":2,"prompt_ms":0,"prompt_per_token_ms":0,"prompt_per_second":0,"predicted_n":6,"predicted_ms":0,"predicted_per_token_ms":0,"predicted_per_second":0,"draft_n":4,"draft_n_accepted":2}}` + "\n"
	for _, path := range []string{"/v1/chat/completions", "/chat/completions", "/api/v0/chat/completions", "/v1beta/chat/completions"} {
		status, got, header := servetest.Post(t, url+path, `{`+hello+`,"n":2,"model":"whatever","user":"u","store":false}`)
		if status != 200 || servetest.Steady(t, got, "chatcmpl-", "chat.completion") != want {
			t.Errorf("%s: %d %s\nexpected %s", path, status, got, want)
		}
		if header.Get("Content-Type") != "application/json" || !strings.HasPrefix(header.Get("Server-Timing"), "queue;dur=") {
			t.Errorf("%s: header %v", path, header)
		}
	}
}

func TestChatStream(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, converses)
	const first = `data: {CHUNK,"model":"some/model","choices":[{"index":0,"delta":{"role":"assistant","content":"one"},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		`data: {CHUNK,"model":"some/model","choices":[{"index":0,"delta":{"content":" two<&>"},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		`data: {CHUNK,"model":"some/model","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}` + "\n\n"
	for _, c := range []struct{ body, want string }{
		{`{` + hello + `,"stream":true}`, first + "data: [DONE]\n\n"},
		{`{` + hello + `,"stream":true,"stream_options":{"include_usage":true}}`, first +
			`data: {CHUNK,"model":"some/model","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}},"timings":{"cache_n":1,"prompt_n":1,"prompt_ms":0,"prompt_per_token_ms":0,"prompt_per_second":0,"predicted_n":3,"predicted_ms":0,"predicted_per_token_ms":0,"predicted_per_second":0,"draft_n":2,"draft_n_accepted":1}}` + "\n\n" +
			"data: [DONE]\n\n"},
	} {
		status, got, header := servetest.Post(t, url+"/v1/chat/completions", c.body)
		if status != 200 || header.Get("Content-Type") != "text/event-stream" || servetest.Steady(t, got, "chatcmpl-", "chat.completion") != c.want {
			t.Errorf("%d %v\n%s\nexpected\n%s", status, header, got, c.want)
		}
	}
}

// TestChatChoicesInterleave: each choice of a stream begins with a role and ends with a reason, whatever comes between.
func TestChatChoicesInterleave(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for _, c := range []struct {
			i int
			infer.Chunk
		}{{1, infer.Chunk{Text: "b"}}, {0, infer.Chunk{Text: "a"}}, {1, infer.Chunk{FinishReason: infer.FinishLength}}, {0, infer.Chunk{Text: "c", FinishReason: infer.FinishStop}}} {
			if err := emit(c.i, c.Chunk); err != nil {
				return nil, err
			}
		}
		return make([]infer.Result, 2), &infer.SupersededError{Session: "editor"}
	}}, serve.Options{}, converses)
	_, got, _ := servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`,"n":3,"stream":true}`)
	var choices []string
	for _, e := range servetest.Events(t, strings.NewReader(servetest.Steady(t, got, "chatcmpl-", "chat.completion"))) {
		_, c, _ := strings.Cut(e, `"choices":`)
		choices = append(choices, c)
	}
	want := []string{
		`[{"index":1,"delta":{"role":"assistant","content":"b"},"logprobs":null,"finish_reason":null}]}`,
		`[{"index":0,"delta":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":null}]}`,
		`[{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}]}`,
		`[{"index":0,"delta":{"content":"c"},"logprobs":null,"finish_reason":null}]}`,
		`[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}`,
		// A later request of the session ended this one before it began.
		`[{"index":2,"delta":{"role":"assistant"},"logprobs":null,"finish_reason":"length"}]}`,
		``,
	}
	if !slices.Equal(choices, want) {
		t.Errorf("choices\n%s\nexpected\n%s", strings.Join(choices, "\n"), strings.Join(want, "\n"))
	}
}

// TestChatLogprobs: tokens with their bytes, whole characters or not, and the alternatives.
func TestChatLogprobs(t *testing.T) {
	tokens := []infer.Token{
		{ID: 7, Bytes: []byte("é"), LogProb: -0.5, Top: []infer.TokenProb{{ID: 65, LogProb: -0.25}}},
		{ID: 8, Bytes: []byte{0xc3}, LogProb: -1},
	}
	url, _ := servetest.Start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if emit != nil {
			if err := emit(0, infer.Chunk{Text: "é", Tokens: tokens, FinishReason: infer.FinishStop}); err != nil {
				return nil, err
			}
		}
		return []infer.Result{{Text: "é", Tokens: tokens, FinishReason: infer.FinishStop}}, nil
	}}, serve.Options{}, converses)
	want := `"logprobs":{"content":[{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[{"token":"#A","logprob":-0.25,"bytes":[35,65]}]},` +
		`{"token":"bytes:\\xc3","logprob":-1,"bytes":[195],"top_logprobs":[]}],"refusal":null}`
	for _, stream := range []string{"false", "true"} {
		_, got, _ := servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`,"top_logprobs":1,"stream":`+stream+`}`)
		if !strings.Contains(got, want) {
			t.Errorf("stream %s: %s\nexpected %s", stream, got, want)
		}
	}
}

func TestChatReachesEngine(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, servetest.Asked(&got), serve.Options{}, converses)
	one := func(change func(*infer.Request)) infer.Request {
		r := infer.Request{Prompt: infer.Prompt{Prefix: "user: hello\nassistant:"}, MaxTokens: 64, Stop: []string{"\nuser:"}, StopIDs: []int32{5}, Sampling: infer.Sampling{TopP: 1, Seed: 1}, Class: infer.Chat}
		change(&r)
		return r
	}
	prompt := func(p string) infer.Request { return one(func(r *infer.Request) { r.Prompt.Prefix = p }) }
	for body, want := range map[string]infer.Request{
		`{` + hello: one(func(*infer.Request) {}),
		`{"messages":[{"role":"developer","content":[{"type":"text","text":"be"},{"type":"text","text":"brief"}]},{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[]},{"role":"user","name":"x"}]`: prompt("system: be\nbrief\nuser: a\nassistant: \nuser: \nassistant:"),
		`{` + hello + `,"max_tokens":7.0`:                            one(func(r *infer.Request) { r.MaxTokens = 7 }),
		`{` + hello + `,"max_completion_tokens":8,"max_tokens":null`: one(func(r *infer.Request) { r.MaxTokens = 8 }),
		`{` + hello + `,"max_completion_tokens":8,"max_tokens":9`:    one(func(r *infer.Request) { r.MaxTokens = 8 }),
		`{` + hello + `,"max_tokens":-1`:                             one(func(*infer.Request) {}),
		`{` + hello + `,"n_predict":5`:                               one(func(r *infer.Request) { r.MaxTokens = 5 }),
		`{` + hello + `,"stop":["x",""],"stop_token_ids":[3]`:        one(func(r *infer.Request) { r.Stop, r.StopIDs = []string{"\nuser:", "x"}, []int32{5, 3} }),
		`{` + hello + `,"logprobs":true`:                             one(func(r *infer.Request) { r.Logprobs = true }),
		`{` + hello + `,"logprobs":true,"top_logprobs":4`:            one(func(r *infer.Request) { r.Logprobs, r.Top = true, 4 }),
		`{` + hello + `,"response_format":{"type":"text"},"grammar":"","modalities":["text"],"tools":[{"type":"function"}],"tool_choice":"auto","function_call":"none"`: one(func(*infer.Request) {}),
		`{` + hello + `,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.1,"repeat_penalty":1.5,"repeat_last_n":64,"logit_bias":{"5":-2.5}`: one(func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 0.5, TopP: 0.9, TopK: 40, MinP: 0.1, PresencePenalty: 1, FrequencyPenalty: -1, RepetitionPenalty: 1.1, RepetitionWindow: 64, Seed: 1, Bias: map[int32]float64{5: -2.5}}
		}),
		`{` + hello + `,"repeat_penalty":1.5,"repeat_last_n":-1`: one(func(r *infer.Request) { r.Sampling.RepetitionPenalty = 1.5 }),
		// llama.vim's instruct mode: a warm-up, then the instruction.
		`{"id_slot":7,"messages":[{"role":"system","content":"s"},{"role":"user","content":""}],"samplers":[],"n_predict":0,"stream":false,"cache_prompt":true,"response_fields":[""],"model":""`: one(func(r *infer.Request) {
			r.Prompt.Prefix, r.MaxTokens, r.Class = "system: s\nuser: \nassistant:", 0, infer.Background
		}),
		`{"id_slot":7,"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"min_p":0.1,"temperature":0.1,"samplers":["min_p","temperature"],"stream":true,"cache_prompt":true,"model":""`: one(func(r *infer.Request) {
			r.Prompt.Prefix, r.Sampling.MinP, r.Sampling.Temperature = "system: s\nuser: u\nassistant:", 0.1, 0.1
		}),
		`{` + hello + `,"stop":null,"max_tokens":null,"temperature":null,"stream":null,"logprobs":null,"n":null,"stream_options":null,"logit_bias":null,"model":null,"tools":null,"tool_choice":null,"response_format":null`: one(func(*infer.Request) {}),
	} {
		status, answer, _ := servetest.Post(t, url+"/v1/chat/completions", body+`,"seed":1}`)
		if status != 200 || len(got) != 1 || fmt.Sprintf("%+v", got[0]) != fmt.Sprintf("%+v", want) {
			t.Errorf("%s: %d %s\nengine got %+v\nexpected   %+v", body, status, answer, got, want)
		}
	}
	servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`,"n":2,"seed":9}`)
	if len(got) != 2 || got[0].Sampling.Choice != 0 || got[1].Sampling.Choice != 1 || got[1].Sampling.Seed != 9 {
		t.Errorf("choices %+v", got)
	}
}

// TestChatLlamaVim: what llama.vim's instruct mode reads of the answers to the requests above.
func TestChatLlamaVim(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, converses)
	status, got, _ := servetest.Post(t, url+"/v1/chat/completions", `{"id_slot":7,"messages":[{"role":"system","content":"s"},{"role":"user","content":""}],"samplers":[],"n_predict":0,"stream":false,"cache_prompt":true,"response_fields":[""],"model":""}`)
	if status != 200 || strings.Count(got, "\n") != 1 || !strings.Contains(got, `"message":{"role":"assistant","content":"","refusal":null}`) {
		t.Errorf("warm-up: %d %s", status, got)
	}
	_, got, _ = servetest.Post(t, url+"/v1/chat/completions", `{"id_slot":1007,"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"min_p":0.1,"temperature":0.1,"samplers":["min_p","temperature"],"stream":true,"cache_prompt":true,"model":"","max_tokens":20,`+servetest.Endless+`}`)
	type event struct {
		Choices []struct{ Delta struct{ Content string } }
	}
	var text string
	all := servetest.Events(t, strings.NewReader(got))
	for _, e := range all[:len(all)-1] {
		text += servetest.Decode[event](t, e).Choices[0].Delta.Content
	}
	if text == "" || all[len(all)-1] != "[DONE]" {
		t.Errorf("instruction: %q in %s", text, got)
	}
}

// TestChatBadRequests: every misuse has its own message, field and code.
func TestChatBadRequests(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 64 }, infer.EngineOptions{})
	url, log := servetest.Start(t, engine, serve.Options{}, converses)
	for _, c := range []struct{ body, kind, message, parameter, code string }{
		{`{}`, "invalid_request_error", "messages: missing, expected an array of at least one message", "messages", "missing_required_parameter"},
		{`{"messages":[]}`, "invalid_request_error", "messages: missing, expected an array of at least one message", "messages", "missing_required_parameter"},
		{`{"messages":"secret"}`, "invalid_request_error", "messages: found a string, expected an array of objects", "messages", "invalid_value"},
		{`{"messages":[null]}`, "invalid_request_error", "messages: element 0: found null, expected an object", "messages", "invalid_value"},
		{`{"messages":[{}]}`, "invalid_request_error", "messages: element 0: role: missing, expected system, developer, user or assistant", "messages", "invalid_value"},
		{`{"messages":[{"role":"secret"}]}`, "invalid_request_error", "messages: element 0: role: found another word, expected system, developer, user or assistant", "messages", "invalid_value"},
		{`{"messages":[{"role":"tool","content":"x"}]}`, "invalid_request_error", "messages: element 0: role: found another word, expected system, developer, user or assistant", "messages", "invalid_value"},
		{`{"messages":[{"role":5}]}`, "invalid_request_error", "messages: element 0: role: found 5, expected a string", "messages", "invalid_value"},
		{`{"messages":[{"role":"user","content":5}]}`, "invalid_request_error", "messages: element 0: content: found 5, expected a string or an array of text parts", "messages", "invalid_value"},
		{`{"messages":[{"role":"user","content":["secret"]}]}`, "invalid_request_error", "messages: element 0: content: found an array, expected an array of objects", "messages", "invalid_value"},
		{`{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"secret"}}]}]}`, "invalid_request_error", "messages: element 0: content: part 1: found a part that is no text, expected only parts of type text", "messages", "invalid_value"},
		{`{"messages":[{"role":"user","content":[{"type":"text"}]}]}`, "invalid_request_error", "messages: element 0: content: part 0: text: missing, expected a string", "messages", "invalid_value"},
		{`{"messages":[{"role":"user","content":[{"type":"text","text":1}]}]}`, "invalid_request_error", "messages: element 0: content: part 0: text: found 1, expected a string", "messages", "invalid_value"},
		{`{"messages":[{"role":"assistant","tool_calls":[{"id":"secret"}]}]}`, "invalid_request_error", "messages: element 0: tool_calls: found calls, expected none: tools are not supported", "messages", "invalid_value"},
		{`{"messages":[{"role":"assistant","content":"secret"}]}`, "invalid_request_error", "messages: the first message is the assistant's", "messages", "invalid_value"},
		{`{` + hello + `,"max_tokens":"many"}`, "invalid_request_error", "max_tokens: found a string, expected a whole number from -1 to 2147483647", "max_tokens", "invalid_value"},
		{`{` + hello + `,"max_completion_tokens":-2}`, "invalid_request_error", "max_completion_tokens: found -2, expected a whole number from -1 to 2147483647", "max_completion_tokens", "invalid_value"},
		{`{` + hello + `,"logprobs":3}`, "invalid_request_error", "logprobs: found 3, expected true or false", "logprobs", "invalid_value"},
		{`{` + hello + `,"top_logprobs":21}`, "invalid_request_error", "top_logprobs: found 21, expected a whole number from 0 to 20", "top_logprobs", "invalid_value"},
		{`{` + hello + `,"min_p":2}`, "invalid_request_error", "min_p: found 2, expected 0 to 1", "min_p", "invalid_value"},
		{`{` + hello + `,"repeat_last_n":-2}`, "invalid_request_error", "repeat_last_n: found -2, expected a whole number from -1 to 2147483647", "repeat_last_n", "invalid_value"},
		{`{` + hello + `,"tools":{}}`, "invalid_request_error", "tools: found an object, expected an array", "tools", "invalid_value"},
		{`{` + hello + `,"tools":[{}],"tool_choice":"required"}`, "not_supported_error", "tool_choice: found another word, expected none or auto: tools are not supported", "tool_choice", "unsupported_value"},
		{`{` + hello + `,"tool_choice":{"type":"function"}}`, "not_supported_error", "tool_choice: found a certain tool, expected none or auto: tools are not supported", "tool_choice", "unsupported_value"},
		{`{` + hello + `,"tool_choice":1}`, "invalid_request_error", "tool_choice: found 1, expected a string or an object", "tool_choice", "invalid_value"},
		{`{` + hello + `,"function_call":{"name":"secret"}}`, "not_supported_error", "function_call: found a certain tool, expected none or auto: tools are not supported", "function_call", "unsupported_value"},
		{`{` + hello + `,"response_format":{"type":"json_object"}}`, "not_supported_error", "response_format: found another type, expected text: other formats are not supported", "response_format", "unsupported_value"},
		{`{` + hello + `,"response_format":"json"}`, "invalid_request_error", "response_format: found a string, expected an object", "response_format", "invalid_value"},
		{`{` + hello + `,"response_format":{"type":1}}`, "invalid_request_error", "response_format: type: found 1, expected a string", "response_format", "invalid_value"},
		{`{` + hello + `,"grammar":"secret"}`, "not_supported_error", "grammar: found one, expected none: constrained output is not supported", "grammar", "unsupported_value"},
		{`{` + hello + `,"modalities":["text","audio"]}`, "not_supported_error", "modalities: found another word, expected text alone", "modalities", "unsupported_value"},
		{`{` + hello + `,"modalities":"text"}`, "invalid_request_error", "modalities: found a string, expected an array of strings", "modalities", "invalid_value"},
	} {
		status, got, _ := servetest.Post(t, url+"/v1/chat/completions", c.body)
		want := fmt.Sprintf(`{"error":{"message":"%s","type":"%s","param":"%s","code":"%s"}}`+"\n", c.message, c.kind, c.parameter, c.code)
		if status != 400 || got != want {
			t.Errorf("%s: %d %s\nexpected %s", c.body, status, got, want)
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("text of a user is in the log")
	}
}

func TestChatWithoutTemplate(t *testing.T) {
	url, _ := servetest.Start(t, &servetest.Fake{}, serve.Options{}, nil)
	status, got, _ := servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`}`)
	want := `{"error":{"message":"model \"some/model\": cannot converse, expected a model with a chat template","type":"not_supported_error","param":"model","code":"no_chat"}}` + "\n"
	if status != 501 || got != want {
		t.Errorf("%d %s", status, got)
	}
}

func TestChatStreamFails(t *testing.T) {
	servetest.StreamFails(t, converses, "/v1/chat/completions", `{`+hello+`,"stream":true}`, boom)
}

// TestChatEqualsCompletion: the greedy answer to a conversation is the completion of its prompt, whole and streamed.
func TestChatEqualsCompletion(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, converses)
	rest := `"max_tokens":30,"temperature":0,` + servetest.Endless
	_, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":"user: hello\nassistant:","stop":"\nuser:","stop_token_ids":[5],`+rest+`}`)
	want := servetest.Decode[struct{ Choices []choice }](t, got).Choices[0].Text
	type answer struct {
		Choices []struct{ Message, Delta struct{ Content string } }
	}
	_, got, _ = servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`,`+rest+`}`)
	whole := servetest.Decode[answer](t, got).Choices[0].Message.Content
	_, got, _ = servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`,"stream":true,`+rest+`}`)
	var streamed string
	for _, e := range servetest.Events(t, strings.NewReader(strings.TrimSuffix(got, "data: [DONE]\n\n"))) {
		streamed += servetest.Decode[answer](t, e).Choices[0].Delta.Content
	}
	if want == "" || whole != want || streamed != want {
		t.Errorf("completion %q, chat %q, streamed %q", want, whole, streamed)
	}
}

// TestChatDisconnect: when a client leaves, the answer that nobody reads any more ends.
func TestChatDisconnect(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 100000 }, infer.EngineOptions{Concurrency: 1, Queue: 1, MaxWait: time.Hour})
	url, log := servetest.Start(t, engine, serve.Options{}, converses)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(`{`+hello+`,"stream":true,"temperature":1,`+servetest.Endless+`}`))
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
	if status, got, _ := servetest.Post(t, url+"/v1/chat/completions", `{`+hello+`,"max_tokens":2}`); status != 200 {
		t.Fatalf("after a client left: %d %s", status, got)
	}
	// The endless answer alone would take minutes.
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the engine was free only after %v", d)
	}
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(log.String(), "status=499"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no departure in the log:\n%s", log)
		}
	}
}
