package mistral

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve/wire"
)

func FuzzBody(f *testing.F) {
	for _, s := range []string{
		`{"model":"codestral","prompt":"a","suffix":"b","max_tokens":3,"min_tokens":1,"stop":["x"],"random_seed":5,"stream":true,"metadata":{"a":1},"prompt_cache_key":"k"}`,
		`{"prompt":"a","max_completion_tokens":0,"temperature":0.2,"frequency_penalty":1,"presence_penalty":-1,"lines":"one","files":[{"filename":"a","text":"b"}]}`,
		`{"prompt":null}`, `{"prompt":["a"]}`, `{"prompt":"a","stop":{"\n":1}}`, `{"prompt":"a","lines":"\n"}`, "\xff", `[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		f, err := wire.ParseFields(body)
		var r *request
		var q infer.Request
		if err == nil {
			r, err = parse(f)
		}
		if err == nil {
			q, err = r.request(infer.Shape{})
		}
		if err == nil {
			if q.MaxTokens < 0 {
				t.Fatalf("accepted %+v", q)
			}
			return
		}
		var own *wire.Error
		err = unprocessable(err)
		if !errors.As(err, &own) || own.Status != 422 || own.Message == "" || strings.ContainsAny(own.Message, "\n\r") {
			t.Fatalf("%#v is not an answer to a bad request", err)
		}
		if _, err := json.Marshal(fault(own)); err != nil {
			t.Fatal(err)
		}
	})
}
