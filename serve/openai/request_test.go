package openai

import (
	"errors"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve/wire"
)

func FuzzCompletionBody(f *testing.F) {
	for _, s := range []string{
		`{"prompt":"a","suffix":"b","max_tokens":3,"stop":["x"],"stream":true,"stream_options":{"include_usage":true}}`,
		`{"prompt":[[1,2],[3]],"n":2,"logprobs":3,"logit_bias":{"1":-1},"seed":-5,"echo":true}`,
		`{"prompt":["a",null]}`, `{"prompt":[null]}`, `{"n":1e999}`, `[`, `{"prompt":"\ud800"}`, "\xff", `{"stop":[1],"prompt":[-2147483649]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		f, err := wire.ParseFields(body)
		var r *completionRequest
		var all []infer.Request
		if err == nil {
			r, err = parseCompletion(f)
		}
		if err == nil {
			all, err = r.requests(infer.Shape{})
		}
		var own *wire.Error
		switch {
		case err != nil:
			if !errors.As(err, &own) || own.Status != 400 || own.Message == "" || strings.ContainsAny(own.Message, "\n\r") {
				t.Fatalf("%#v is not an answer to a bad request", err)
			}
		case len(r.prompts) == 0 || r.n < 1 || r.maxTokens < 0 || len(all) != r.n*len(r.prompts) || len(all) > maxChoices:
			t.Fatalf("accepted %+v", r)
		}
	})
}

// talk refuses the empty system message.
type talk struct{ wire.Chat }

func (talk) Prompt(messages []wire.Message) (infer.Prompt, []string, error) {
	if messages[0] == (wire.Message{Role: "system"}) {
		return infer.Prompt{}, nil, errors.New("nothing to go by")
	}
	return infer.Prompt{Prefix: messages[0].Content}, nil, nil
}

func (talk) StopIDs() []int32 { return nil }

type engine struct{ wire.Engine }

func (engine) Info() infer.Info { return infer.Info{Context: 64} }

func FuzzChatBody(f *testing.F) {
	for _, s := range []string{
		`{"messages":[{"role":"user","content":"a"}],"max_tokens":3,"stop":["x"],"stream":true,"stream_options":{"include_usage":true}}`,
		`{"messages":[{"role":"system","content":[{"type":"text","text":"a"},{"text":"b"}]},{"role":"assistant","content":null,"tool_calls":[]}],"n":2,"top_logprobs":3}`,
		`{"messages":[{"role":"user","content":[null]}]}`, `{"messages":[null]}`, `{"messages":[{"role":"a\nb"}]}`, `{"messages":{},"tools":[],"tool_choice":"\n"}`,
		`{"messages":[{"role":"assistant"}],"response_format":{"type":"x"},"modalities":[1],"n_predict":-3}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		f, err := wire.ParseFields(body)
		var r *chatRequest
		var all []infer.Request
		if err == nil {
			r, err = parseChat(f)
		}
		if err == nil {
			all, err = r.requests(wire.Model{Engine: engine{}, Chat: talk{}})
		}
		var own *wire.Error
		switch {
		case err != nil:
			if !errors.As(err, &own) || own.Status != 400 || own.Message == "" || strings.ContainsAny(own.Message, "\n\r") {
				t.Fatalf("%#v is not an answer to a bad request", err)
			}
		case len(r.messages) == 0 || len(all) != r.n || all[0].MaxTokens < 0:
			t.Fatalf("accepted %+v", r)
		}
	})
}
