package openai_test

import (
	"strings"
	"testing"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

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
