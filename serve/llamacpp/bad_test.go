package llamacpp_test

import (
	"fmt"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

func TestBadRequests(t *testing.T) {
	engine := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 64 }, infer.EngineOptions{})
	url, log := servetest.Start(t, engine, serve.Options{Protocols: options().Protocols, Limits: wire.Limits{MaxBody: 2000}}, nil)
	const fill = `"input_prefix":"a","input_suffix":"b"`
	for _, c := range []struct {
		route, body   string
		status        int
		message, kind string
	}{
		{"/infill", ``, 400, "body: malformed JSON at byte 0 of 0: unexpected end of JSON input", ""},
		{"/infill", `[]`, 400, "body: found an array, expected an object", ""},
		{"/infill", `{"input_suffix":"secret"}`, 400, "input_prefix: missing, expected a string", ""},
		{"/infill", `{"input_prefix":"secret","input_suffix":null}`, 400, "input_suffix: missing, expected a string", ""},
		{"/infill", `{"input_prefix":["secret"],"input_suffix":""}`, 400, "input_prefix: found an array, expected a string", ""},
		{"/infill", `{` + fill + `,"prompt":["secret"]}`, 400, "prompt: found an array, expected a string", ""},
		{"/infill", `{` + fill + `,"input_extra":{}}`, 400, "input_extra: found an object, expected an array of objects", ""},
		{"/infill", `{` + fill + `,"input_extra":[{"text":"x"},{"filename":"secret"}]}`, 400, "input_extra: element 1: text: missing, expected a string", ""},
		{"/infill", `{` + fill + `,"input_extra":[{"text":"x","filename":7}]}`, 400, "input_extra: element 0: filename: found 7, expected a string", ""},
		{"/infill", `{` + fill + `,"input_extra":[null]}`, 400, "input_extra: element 0: found null, expected an object", ""},
		{"/infill", `{` + fill + `,"n_cmpl":33}`, 400, "Field 'n_cmpl': Value must be between 1 <= value <= 32, but got 33", ""},
		{"/infill", `{` + fill + `,"n_cmpl":"secret"}`, 400, "n_cmpl: found a string, expected a whole number from -2147483648 to 2147483647", ""},
		{"/infill", `{` + fill + `,"n_indent":-1}`, 400, "n_indent: found -1, expected a whole number from 0 to 1000", ""},
		{"/infill", `{` + fill + `,"n_predict":"secret"}`, 400, "n_predict: found a string, expected a whole number from -2 to 2147483647", ""},
		{"/infill", `{` + fill + `,"samplers":{}}`, 400, "samplers: found an object, expected an array of names or a string", ""},
		{"/infill", `{` + fill + `,"samplers":[1]}`, 400, "samplers: found an array, expected an array of strings", ""},
		{"/infill", `{` + fill + `,"response_fields":"content"}`, 400, "response_fields: found a string, expected an array of strings", ""},
		{"/infill", `{` + fill + `,"t_max_predict_ms":"x"}`, 400, "t_max_predict_ms: found a string, expected a number", ""},
		{"/infill", `{` + fill + `,"stream":1}`, 400, "stream: found 1, expected true or false", ""},
		{"/infill", `{` + fill + `,"lora":[{"id":0,"scale":0.5}]}`, 400, "lora: element 0: id: found 0, expected one of the 0 adapters that GET /lora-adapters lists", ""},
		{"/infill", `{` + fill + `,"lora":[{"scale":1}]}`, 400, "lora: element 0: id: missing, expected the number of an adapter", ""},
		{"/infill", `{` + fill + `,"lora":5}`, 400, "lora: found 5, expected an array of objects", ""},
		{"/infill", `{` + fill + `,"lines":"secret"}`, 400, "lines: found another word, expected all, one, block or auto", ""},
		{"/completion", `{}`, 400, "prompt: missing, expected a string, an array of strings and token ids, or an array of such prompts", ""},
		{"/completion", `{"prompt":{}}`, 400, "prompt: found an object, expected a string, an array of strings and token ids, or an array of such prompts", ""},
		{"/completion", `{"prompt":[]}`, 400, "prompt: found an empty array, expected at least one element", ""},
		{"/completion", `{"prompt":[[]]}`, 400, "prompt: found no token ids, expected at least one", ""},
		{"/completion", `{"prompt":[1,null]}`, 400, "prompt: element 1: found null, expected a string or a token id", ""},
		{"/completion", `{"prompt":[1.5]}`, 400, "prompt: element 0: found 1.5, expected a string or a token id", ""},
		{"/completion", `{"prompt":[true]}`, 400, "prompt: found a boolean, expected a string, an array of strings and token ids, or an array of such prompts", ""},
		{"/completion", `{"prompt":[100000]}`, 400, "prompt: token 0: found id 100000, expected 0 to 321", ""},
		{"/completion", `{"prompt":["a","b","c","d","e"],"n":32}`, 400, "n_cmpl: found 32 for 5 prompts, expected at most 128 completions in all", ""},
		{"/completion", `{"prompt":[` + strings.TrimSuffix(strings.Repeat("7,", 70), ",") + `]}`, 400, "prompt: found 70 tokens, expected at most 63: the model's context is 64 and at least 1 is left for the completion", "exceed_context_size_error"},
		{"/completion", `{"prompt":"a","top_p":2}`, 400, "top_p: found 2, expected 0 to 1", ""},
		{"/completion", `{"prompt":"a","seed":"secret"}`, 400, "seed: found a string, expected a whole number of 64 bits", ""},
		{"/completion", `{"prompt":"a","n_probs":21}`, 400, "logprobs: found 21, expected 0 to 20", ""},
		{"/completion", `{"prompt":"a","logit_bias":5}`, 400, "logit_bias: found 5, expected an object of tokens and numbers, or an array of such pairs", ""},
		{"/completion", `{"prompt":"a","logit_bias":[[1]]}`, 400, "logit_bias: element 0: expected a token, as an id or a text, and a number or false", ""},
		{"/completion", `{"prompt":"a","logit_bias":[[1,true]]}`, 400, "logit_bias: element 0: expected a token, as an id or a text, and a number or false", ""},
		{"/completion", `{"prompt":"a","logit_bias":{"1":"secret"}}`, 400, "logit_bias: found a bias that is a string, expected a number or false", ""},
		{"/completion", `{"prompt":"a","logit_bias":{"9999":1}}`, 400, "logit_bias: found token 9999, expected 0 to 321", ""},
		{"/completion", `{"prompt":"a","grammar":"root ::= secret"}`, 400, "grammar: found a string, expected none: completions cannot be bound to a grammar here", ""},
		{"/completion", `{"prompt":"` + strings.Repeat("x", 2000) + `"}`, 413, "body: found more than 2000 bytes, expected at most that", ""},
		{"/tokenize", `{"content":5}`, 400, "content: found 5, expected a string, an array of strings and token ids, or an array of such prompts", ""},
		{"/tokenize", `{"content":"a","with_pieces":"secret"}`, 400, "with_pieces: found a string, expected true or false", ""},
		{"/detokenize", `{"tokens":"secret"}`, 400, "tokens: found a string, expected an array of token ids", ""},
		{"/apply-template", `{}`, 400, "messages: missing, expected an array of messages", ""},
		{"/apply-template", `{"messages":[{"role":"secret","content":"x"}]}`, 400, "messages: element 0: role: found another word, expected system, developer, user or assistant", ""},
		{"/apply-template", `{"messages":[]}`, 501, "model cannot converse: it has no chat template", "not_supported_error"},
		{"/lora-adapters", `{}`, 400, "body: found an object, expected an array", ""},
		{"/lora-adapters", `[`, 400, "body: malformed JSON at byte 1 of 1: unexpected end of JSON input", ""},
		{"/lora-adapters", `[{"id":3,"scale":1}]`, 400, "lora: element 0: id: found 3, expected one of the 0 adapters that GET /lora-adapters lists", ""},
		{"/slots/0", `{}`, 501, "slots cannot be saved, restored or erased here: the cache is shared by all requests", "not_supported_error"},
		{"/props", `{}`, 405, "POST /props: expected GET or HEAD", ""},
	} {
		status, got, _ := servetest.Post(t, url+c.route, c.body)
		if c.kind == "" {
			c.kind = "invalid_request_error"
		}
		want := fmt.Sprintf(`{"error":{"code":%d,"message":"%s","type":"%s"}}`, c.status, strings.ReplaceAll(c.message, `"`, `\"`), c.kind) + "\n"
		if status != c.status || got != want {
			t.Errorf("%s %.60s: %d %s\nexpected %d %s", c.route, c.body, status, got, c.status, want)
		}
	}
	if strings.Contains(log.String(), "secret") || strings.Contains(log.String(), "xxxx") {
		t.Error("text of a user is in the log")
	}
}

func TestCannotFillIn(t *testing.T) {
	url := start(t, noFIM{&servetest.Fake{}}, nil)
	status, got, _ := servetest.Post(t, url+"/infill", `{"input_prefix":"a","input_suffix":"b"}`)
	want := `{"error":{"code":501,"message":"Infill is not supported by this model: its tokenizer has no fill-in-the-middle tokens","type":"not_supported_error"}}` + "\n"
	if status != 501 || got != want {
		t.Errorf("%d %s", status, got)
	}
}

type noFIM struct{ *servetest.Fake }

func (noFIM) Info() infer.Info { return infer.Info{Context: 64} }
