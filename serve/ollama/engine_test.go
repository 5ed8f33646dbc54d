package ollama_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve/servetest"
)

// TestSameText: what this protocol completes is what OpenAI's does.
func TestSameText(t *testing.T) {
	url := start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), nil)
	type answer struct {
		Choices  []struct{ Text string }
		Response string
		Context  []int32
	}
	for i, fields := range []string{`"prompt":"def add(a, b):\n    return","suffix":"\n\nprint(add(1, 2))\n"`, `"prompt":"def größe(a, b):\n    ret"`} {
		_, got, _ := servetest.Post(t, url+"/v1/completions", `{`+fields+`,"max_tokens":20}`)
		want := servetest.Decode[answer](t, got).Choices[0].Text
		if want == "" {
			t.Fatalf("case %d: no text to compare", i)
		}
		body := `{` + fields + `,"options":{"num_predict":20}`
		_, got, _ = servetest.Post(t, url+"/api/generate", body+`,"stream":false}`)
		a := servetest.Decode[answer](t, got)
		if a.Response != want || len(a.Context) < 20 {
			t.Errorf("case %d: %s, expected %q", i, got, want)
		}
		_, got, _ = servetest.Post(t, url+"/api/generate", body+`}`)
		text := ""
		for line := range strings.Lines(got) {
			text += servetest.Decode[answer](t, line).Response
		}
		if text != want {
			t.Errorf("case %d: streamed %q, expected %q", i, text, want)
		}
	}
}

// TestContext: a request with the context of an answer goes on after it.
func TestContext(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{})
	url := start(t, engine, nil)
	type answer struct {
		Choices  []struct{ Text string }
		Response string
		Context  []int32
	}
	ask := func(fields string) answer {
		_, got, _ := servetest.Post(t, url+"/api/generate", `{`+fields+`,"stream":false,"options":{"num_predict":12,"temperature":1,"top_p":1,"top_k":0,"seed":3}}`)
		return servetest.Decode[answer](t, got)
	}
	list := func(ids []int32) string {
		b, err := json.Marshal(ids)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := ask(`"prompt":"x = 1\n"`)
	second := ask(`"prompt":"y = 2\n","context":` + list(first.Context))
	whole := append(first.Context, engine.Encode("y = 2\n", false)...)
	_, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":`+list(whole)+`,"max_tokens":12,"temperature":1,"seed":3}`)
	if want := servetest.Decode[answer](t, got).Choices[0].Text; second.Response == "" || second.Response != want || !slices.Equal(second.Context[:len(whole)], whole) {
		t.Errorf("%+v after %+v, expected %q", second, first, want)
	}
}
