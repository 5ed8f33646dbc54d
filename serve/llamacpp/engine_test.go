package llamacpp_test

import (
	"strings"
	"testing"

	"autodev/infer"
	"autodev/model"
	"autodev/serve/servetest"
)

// TestSameText: what this protocol completes is what OpenAI's does.
func TestSameText(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{})
	url := start(t, engine, nil)
	bias := strings.TrimSuffix(strings.TrimPrefix(servetest.Endless, `"logit_bias":`), "")
	for i, c := range []struct{ route, fields, openai string }{
		{"/infill", `"input_prefix":"def add(a, b):\n","prompt":"    return","input_suffix":"\n\nprint(add(1, 2))\n"`, `"prompt":"def add(a, b):\n    return","suffix":"\n\nprint(add(1, 2))\n"`},
		{"/completion", `"prompt":"def größe(a, b):\n    ret"`, `"prompt":"def größe(a, b):\n    ret"`},
		{"/completion", `"prompt":[5,6,7]`, `"prompt":[5,6,7]`},
	} {
		type answer struct {
			Choices []struct{ Text string }
			Content string
		}
		_, got, _ := servetest.Post(t, url+"/v1/completions", `{`+c.openai+`,"max_tokens":20,"logit_bias":`+bias+`}`)
		want := servetest.Decode[answer](t, got).Choices[0].Text
		if want == "" {
			t.Fatalf("case %d: no text to compare", i)
		}
		rest := `,"n_predict":20,"logit_bias":` + bias
		status, got, _ := servetest.Post(t, url+c.route, `{`+c.fields+rest+`}`)
		if text := servetest.Decode[answer](t, got).Content; status != 200 || text != want {
			t.Errorf("case %d: %d %q, expected %q", i, status, text, want)
		}
		_, got, _ = servetest.Post(t, url+c.route, `{`+c.fields+rest+`,"stream":true}`)
		text := ""
		for _, e := range servetest.Events(t, strings.NewReader(got)) {
			text += servetest.Decode[answer](t, e).Content
		}
		if text != want {
			t.Errorf("case %d: streamed %q, expected %q", i, text, want)
		}
	}
}

// TestWarmUp: the extra context that an editor sends ahead is in the cache for the completion after it.
func TestWarmUp(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{})
	url := start(t, engine, nil)
	body := `{"input_prefix":"` + strings.Repeat("x = 1\\n", 40) + `","input_suffix":"\nz","prompt":"y","id_slot":77`
	status, got, _ := servetest.Post(t, url+"/infill", body+`,"n_predict":0,"samplers":[],"t_max_prompt_ms":1,"t_max_predict_ms":1,"response_fields":[""]}`)
	if status != 200 || got != "{}\n" {
		t.Fatalf("%d %s", status, got)
	}
	_, got, _ = servetest.Post(t, url+"/infill", body+`,"n_predict":4,"response_fields":["timings/cache_n","tokens_evaluated"]}`)
	a := servetest.Decode[map[string]int](t, got)
	if a["timings/cache_n"] < a["tokens_evaluated"]/2 || a["tokens_evaluated"] < 40 {
		t.Errorf("%v: the prompt was not in the cache", a)
	}
}

// TestPromptTime: a prompt that takes too long has no completion, but is in the cache as far as it was read, until a later try completes it.
func TestPromptTime(t *testing.T) {
	url := start(t, servetest.RealEngine(t, func(c *model.Config) { c.Positions = 4096 }, infer.EngineOptions{}), nil)
	body := `{"input_prefix":"` + strings.Repeat("x = 1\\n", 500) + `","input_suffix":"\nz","prompt":"y","n_predict":4,"t_max_prompt_ms":0.001,"logit_bias":` +
		strings.TrimPrefix(servetest.Endless, `"logit_bias":`) + `,"response_fields":["content","timings/cache_n","tokens_evaluated"]}`
	type answer struct {
		Content *string
		Cached  int `json:"timings/cache_n"`
		Prompt  int `json:"tokens_evaluated"`
	}
	before := -1
	for range 100 {
		status, got, _ := servetest.Post(t, url+"/infill", body)
		a := servetest.Decode[answer](t, got)
		if status != 200 || a.Cached <= before {
			t.Fatalf("%d %s after %d cached tokens", status, got, before)
		}
		if a.Content != nil {
			if before < 0 || *a.Content == "" {
				t.Errorf("%s at once; the test sees nothing", got)
			}
			return
		}
		before = a.Cached
	}
	t.Error("no try has a completion")
}
