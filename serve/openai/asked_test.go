package openai_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

func TestRequestsReachEngine(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, servetest.Asked(&got), serve.Options{}, nil)
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
		`{"prompt":"p","ignore_eos":true}`:    one(func(r *infer.Request) { r.IgnoreEOS = true }),
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
	engine := servetest.Asked(&got)
	const raw = "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
	shape := infer.Shape{Lines: infer.AutoLines}
	shaped := func(m *wire.Model) { m.Shape = shape }
	plain := infer.Request{Prompt: infer.Prompt{Prefix: raw}, MaxTokens: 16, Sampling: infer.Sampling{TopP: 1, Seed: 1}}
	echoed, filled, several, fixed := plain, plain, plain, plain
	echoed.Prompt.Whole = true
	filled.Prompt, filled.Shape = infer.Prompt{Prefix: "a", Suffix: "b", FIM: infer.FIMAlways, Filename: "x.py", Files: []infer.File{{Name: "y.py", Text: "y"}}, Heal: true}, shape
	several.Prompt, several.Shape = infer.Prompt{Prefix: "a", Suffix: "b", FIM: infer.FIMAlways, Whole: true}, shape
	fixed.Prompt, fixed.Shape = infer.Prompt{Prefix: raw, Suffix: "s"}, shape
	unable := unable{engine}
	for _, c := range []struct {
		engine       wire.Engine
		body, header string
		want         infer.Request // the last one
	}{
		{engine, `"prompt":"` + raw + `","filename":"x.py","files":[{"filename":"y.py","text":"y"}],"heal":true`, "translated qwen", filled},
		{engine, `"prompt":["x","` + raw + `"],"truncate":false`, "translated qwen", several},
		{engine, `"prompt":"` + raw + `","echo":true`, "", echoed},
		{engine, `"prompt":"` + raw + `","suffix":"s"`, "", fixed},
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
type unable struct{ *servetest.Fake }

func (unable) Info() infer.Info { return infer.Info{Context: 64} }

// TestOptionsReachEngine: the server's order of prompts and its speculation are those of every request.
func TestOptionsReachEngine(t *testing.T) {
	var got []infer.Request
	url, _ := servetest.Start(t, servetest.Asked(&got), serve.Options{}, func(m *wire.Model) { m.Order, m.Speculate = infer.SPM, infer.SpeculateOff })
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
