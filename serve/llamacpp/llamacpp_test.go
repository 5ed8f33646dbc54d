package llamacpp_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/llamacpp"
	"autodev/serve/openai"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// options are those of a server that speaks this protocol, and OpenAI's to compare it with.
func options() serve.Options {
	return serve.Options{Protocols: []*wire.Protocol{llamacpp.New(), openai.New()}}
}

func start(t *testing.T, engine wire.Engine, change func(*wire.Model)) string {
	t.Helper()
	url, _ := servetest.Start(t, engine, options(), change)
	return url
}

const timings = `"timings":{"cache_n":1,"prompt_n":1,"prompt_ms":0,"prompt_per_token_ms":0,"prompt_per_second":0,"predicted_n":3,"predicted_ms":0,"predicted_per_token_ms":0,"predicted_per_second":0,"draft_n":2,"draft_n_accepted":1}`

// whole is the default completion of a servetest.Fake.
func whole(index int, content, temperature string, rest string) string {
	return fmt.Sprintf(`{"index":%d,"content":"%s","tokens":[],"id_slot":0,"stop":true,"model":"some/model","tokens_predicted":3,"tokens_evaluated":2,`+
		`"generation_settings":{"n_ctx":64,"seed":7,"temperature":%s,%s},"prompt":"##","has_new_line":false,"truncated":false,"stop_type":"eos","stopping_word":"","tokens_cached":4,%s}`,
		index, content, temperature, rest, timings)
}

const usual = `"top_k":40,"top_p":0.95,"min_p":0.05,"repeat_last_n":64,"repeat_penalty":1,"presence_penalty":0,"frequency_penalty":0,"stop":[],"max_tokens":-1,"n_predict":-1,"n_keep":0,"ignore_eos":false,` +
	`"stream":false,"n_probs":0,"n_indent":0,"samplers":["penalties","top_k","top_p","min_p","temperature"],"lora":[]`

func TestAnswers(t *testing.T) {
	url := start(t, &servetest.Fake{}, nil)
	infill := strings.NewReplacer(`"repeat_last_n":64,"repeat_penalty":1`, `"repeat_last_n":0,"repeat_penalty":0`, `"min_p":0.05`, `"min_p":0`, `"top_p":0.95`, `"top_p":0.9`, `"max_tokens":-1,"n_predict":-1`, `"max_tokens":9,"n_predict":9`,
		`"n_indent":0`, `"n_indent":4`, `"samplers":["penalties","top_k","top_p","min_p","temperature"]`, `"samplers":["top_k","top_p","infill"]`).Replace(usual)
	const fields = `"input_prefix":"a","input_suffix":"b","seed":7`
	for _, c := range []struct{ path, body, want string }{
		{"/completion", `{"prompt":"p","seed":7}`, whole(0, `one two<&>`, "0", usual)},
		{"/completion", `{"prompt":["p","q"],"seed":7.0,"unknown":[1],"stream":false}`, "[" + whole(0, `one two<&>`, "0", usual) + "," + whole(1, `one two<&>`, "0", usual) + "]"}, // two prompts
		{"/infill", `{` + fields + `,"n_cmpl":2,"samplers":["top_k","top_p","infill"],"top_p":0.9,"n_predict":9,"n_indent":4}`,
			"[" + whole(0, `one two<&>`, "0", infill) + "," + whole(1, `one two<&>`, "1", infill) + "]"},
		{"/infill", `{` + fields + `,"response_fields":["content","timings/prompt_n","timings/predicted_ms","generation_settings/n_ctx","tokens_cached","nothing","content/x","timings/y"]}`,
			`{"content":"one two<&>","generation_settings/n_ctx":64,"timings/predicted_ms":0,"timings/prompt_n":1,"tokens_cached":4}`},
		{"/infill", `{` + fields + `,"ignore_eos":true,"response_fields":["generation_settings/ignore_eos"]}`, `{"generation_settings/ignore_eos":true}`},
		{"/infill", `{` + fields + `,"response_fields":["timings","prompt"]}`, `{"prompt":"##",` + timings + `}`},
		{"/infill", `{` + fields + `,"response_fields":[""],"n_predict":0}`, `{}`},
	} {
		status, got, header := servetest.Post(t, url+c.path, c.body)
		if status != 200 || got != c.want+"\n" || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d\n%s\nexpected\n%s", c.path, c.body, status, got, c.want)
		}
	}
}

func TestStream(t *testing.T) {
	url := start(t, &servetest.Fake{}, nil)
	for _, path := range []string{"/completion", "/infill"} {
		status, got, header := servetest.Post(t, url+path, `{"prompt":"p","input_prefix":"a","input_suffix":"b","seed":7,"stream":true,"response_fields":["stop","content"]}`)
		want := `data: {"index":0,"content":"one","tokens":[],"stop":false,"id_slot":0,"tokens_predicted":0}` + "\n\n" +
			`data: {"index":0,"content":" two<&>","tokens":[],"stop":false,"id_slot":0,"tokens_predicted":0}` + "\n\n" +
			`data: {"content":"","stop":true}` + "\n\n"
		if status != 200 || got != want || header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%s: %d\n%s\nexpected\n%s", path, status, got, want)
		}
		_, got, _ = servetest.Post(t, url+path, `{"prompt":"p","input_prefix":"a","input_suffix":"b","seed":7,"stream":true}`)
		all := servetest.Events(t, strings.NewReader(got))
		if want := whole(0, "", "0", strings.Replace(usual, `"stream":false`, `"stream":true`, 1)); len(all) != 3 || all[2] != want {
			t.Errorf("%s: %d events, the last\n%s\nexpected\n%s", path, len(all), all[len(all)-1], want)
		}
	}
}

// TestTokens: ids and probabilities of tokens are told when they are asked for.
func TestTokens(t *testing.T) {
	tokens := []infer.Token{{ID: 65, Bytes: []byte("A"), LogProb: -0.5, Top: []infer.TokenProb{{ID: 66, LogProb: -1.5}}}, {ID: 67, Bytes: []byte{0xc3}, LogProb: -2}}
	url := start(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if !reqs[0].Logprobs || reqs[0].Top != 1 {
			t.Errorf("the engine was asked for %+v", reqs[0])
		}
		if emit != nil {
			if err := emit(0, infer.Chunk{Text: "A", Tokens: tokens}); err != nil {
				return nil, err
			}
		}
		return []infer.Result{{Text: "A", IDs: []int32{65, 67}, Tokens: tokens, FinishReason: infer.FinishLength, StopRule: infer.StopIndent}}, nil
	}}, nil)
	const probabilities = `[{"id":65,"token":"A","bytes":[65],"logprob":-0.5,"top_logprobs":[{"id":66,"token":"#B","bytes":[35,66],"logprob":-1.5}]},{"id":67,"token":"","bytes":[195],"logprob":-2,"top_logprobs":[]}]`
	_, got, _ := servetest.Post(t, url+"/completion", `{"prompt":"p","n_probs":1,"return_tokens":true,"response_fields":["tokens","completion_probabilities","stop_type"]}`)
	if want := `{"completion_probabilities":` + probabilities + `,"stop_type":"limit","tokens":[65,67]}` + "\n"; got != want {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
	_, got, _ = servetest.Post(t, url+"/completion", `{"prompt":"p","n_probs":1,"stream":true,"response_fields":["stop"]}`)
	want := `data: {"index":0,"content":"A","tokens":[65,67],"stop":false,"id_slot":0,"tokens_predicted":2,"completion_probabilities":` + probabilities + "}\n\ndata: {\"stop\":true}\n\n"
	if got != want {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
}

func TestStopTypes(t *testing.T) {
	var result infer.Result
	url := start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return []infer.Result{result}, nil
	}}, nil)
	ids := []int32{1}
	for _, c := range []struct {
		result infer.Result
		want   string
	}{
		{infer.Result{Text: "x\n", IDs: ids, FinishReason: infer.FinishStop}, `{"content":"x\n","has_new_line":true,"stop_type":"eos","stopping_word":"","truncated":false}`},
		{infer.Result{Text: "x", IDs: ids, FinishReason: infer.FinishStop, StopText: "END"}, `{"content":"x","has_new_line":false,"stop_type":"word","stopping_word":"END","truncated":false}`},
		{infer.Result{Text: "x", IDs: ids, FinishReason: infer.FinishStop, StopRule: infer.StopBlock}, `{"content":"x","has_new_line":false,"stop_type":"limit","stopping_word":"","truncated":false}`},
		{infer.Result{Text: "x", IDs: ids, FinishReason: infer.FinishLength, Shortened: true}, `{"content":"x","has_new_line":false,"stop_type":"limit","stopping_word":"","truncated":true}`},
		{infer.Result{FinishReason: infer.FinishCancel}, `{"content":"","has_new_line":false,"stop_type":"none","stopping_word":"","truncated":false}`},
		// The prompt took too long: llama.vim must not remember this.
		{infer.Result{FinishReason: infer.FinishLength}, `{"content":null,"has_new_line":false,"stop_type":"limit","stopping_word":"","truncated":false}`},
		{infer.Result{FinishReason: infer.FinishStop}, `{"content":"","has_new_line":false,"stop_type":"eos","stopping_word":"","truncated":false}`},
	} {
		result = c.result
		_, got, _ := servetest.Post(t, url+"/infill", `{"input_prefix":"","input_suffix":"","response_fields":["content","has_new_line","stop_type","stopping_word","truncated"]}`)
		if got != c.want+"\n" {
			t.Errorf("%+v: %s\nexpected %s", c.result, got, c.want)
		}
	}
}

func TestRequestsReachEngine(t *testing.T) {
	var got []infer.Request
	url := start(t, servetest.Asked(&got), func(m *wire.Model) { m.Shape = infer.Shape{Lines: infer.Block, NoOverlap: true} })
	plain := infer.Request{
		Prompt: infer.Prompt{Prefix: "p"}, MaxTokens: 1<<31 - 1,
		Sampling: infer.Sampling{TopK: 40, TopP: 0.95, MinP: 0.05, RepetitionPenalty: 1, RepetitionWindow: 64, Seed: 1},
	}
	fill := plain
	fill.Prompt = infer.Prompt{Prefix: "ab", Suffix: "c", FIM: infer.FIMAlways}
	fill.Shape = infer.Shape{Lines: infer.Block, NoOverlap: true}
	bare := infer.Sampling{Temperature: 1, Seed: 1}
	for _, c := range []struct {
		route, fields string
		change        func(*infer.Request)
	}{
		{"/completion", ``, func(*infer.Request) {}},
		{"/completion", `,"stop":null,"n_predict":null,"temperature":null,"samplers":null,"lora":null,"logit_bias":null,"model":null,"response_fields":null,"stream":null,"grammar":null,"json_schema":{}`, func(*infer.Request) {}},
		{"/completion", `,"n_predict":-1`, func(*infer.Request) {}},
		{"/completion", `,"n_predict":7,"max_tokens":3`, func(r *infer.Request) { r.MaxTokens = 7 }},
		{"/completion", `,"max_tokens":3.0`, func(r *infer.Request) { r.MaxTokens = 3 }},
		{"/completion", `,"n_predict":0,"t_max_prompt_ms":1`, func(r *infer.Request) { r.MaxTokens, r.Class = 0, infer.Background }},
		{"/completion", `,"stop":["a","","b"]`, func(r *infer.Request) { r.Stop = []string{"a", "b"} }},
		{"/completion", `,"stop":"a"`, func(r *infer.Request) { r.Stop = []string{"a"} }},
		{"/completion", `,"ignore_eos":true`, func(r *infer.Request) { r.IgnoreEOS = true }},
		{"/infill", `,"ignore_eos":true`, func(r *infer.Request) { r.IgnoreEOS = true }},
		{"/completion", `,"cache_prompt":true`, func(r *infer.Request) { r.Reuse = true }},
		{"/completion", `,"t_max_prompt_ms":500,"t_max_predict_ms":250.5`, func(r *infer.Request) {
			r.PromptTime, r.DecodeTime = 500*time.Millisecond, 250500*time.Microsecond
		}},
		{"/completion", `,"t_max_prompt_ms":-1,"t_max_predict_ms":1e300`, func(r *infer.Request) { r.DecodeTime = 24 * time.Hour }},
		{"/completion", `,"temperature":0.8,"top_k":-1,"top_p":0.5,"min_p":0.1,"repeat_penalty":1.1,"repeat_last_n":-1,"presence_penalty":0.5,"frequency_penalty":0.25`, func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 0.8, TopP: 0.5, MinP: 0.1, RepetitionPenalty: 1.1, PresencePenalty: 0.5, FrequencyPenalty: 0.25, Seed: 1}
		}},
		{"/completion", `,"temperature":-1,"repeat_last_n":0,"repeat_penalty":3`, func(r *infer.Request) { r.Sampling.RepetitionPenalty, r.Sampling.RepetitionWindow = 0, 0 }},
		{"/completion", `,"samplers":[]`, func(r *infer.Request) { r.Sampling = bare }},
		{"/completion", `,"samplers":[],"temperature":0.0`, func(r *infer.Request) { r.Sampling = infer.Sampling{Seed: 1} }},
		{"/completion", `,"samplers":[],"temperature":0.7`, func(r *infer.Request) { r.Sampling = bare }},
		{"/completion", `,"samplers":["Top-K","xtc","whatever","nucleus","temp"],"temperature":0.5`, func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 0.5, TopK: 40, TopP: 0.95, Seed: 1}
		}},
		{"/completion", `,"samplers":"kpmz"`, func(r *infer.Request) {
			r.Sampling = infer.Sampling{Temperature: 1, TopK: 40, TopP: 0.95, MinP: 0.05, Seed: 1}
		}},
		{"/completion", `,"samplers":["min_p","temperature"],"min_p":0.1,"temperature":0.1`, func(r *infer.Request) { r.Sampling = infer.Sampling{Temperature: 0.1, MinP: 0.1, Seed: 1} }},
		{"/completion", `,"samplers":["infill","temperature"]`, func(r *infer.Request) { r.Sampling = infer.Sampling{Seed: 1} }},
		{"/completion", `,"logit_bias":{"5":-2.5,"AB":1,"7":false}`, func(r *infer.Request) {
			r.Sampling.Bias = map[int32]float64{5: -2.5, 'A': 1, 'B': 1, 7: -100}
		}},
		{"/completion", `,"logit_bias":[[5,-2.5],["A",2],[7,false]]`, func(r *infer.Request) { r.Sampling.Bias = map[int32]float64{5: -2.5, 'A': 2, 7: -100} }},
		{"/completion", `,"n_probs":3`, func(r *infer.Request) { r.Logprobs, r.Top = true, 3 }},
		{"/completion", `,"filename":"a.py","files":[{"filename":"b.py","text":"x"}],"lines":"one"`, func(r *infer.Request) {
			r.Prompt.Filename, r.Prompt.Files, r.Shape.Lines = "a.py", []infer.File{{Name: "b.py", Text: "x"}}, infer.OneLine
		}},
		{"/infill", ``, func(*infer.Request) {}},
		{"/infill", `,"prompt":null`, func(r *infer.Request) { r.Prompt.Prefix = "a" }},
		{"/infill", `,"n_indent":4,"no_loops":true,"lines":"auto","no_overlap":false`, func(r *infer.Request) {
			r.Shape = infer.Shape{Lines: infer.AutoLines, NoLoops: true, MinIndent: 4}
		}},
		{"/infill", `,"input_extra":[{"text":"old","time":[1,2],"filename":"o.py"},{"text":"new","time":5.5,"filename":null}]`, func(r *infer.Request) {
			r.Prompt.Files = []infer.File{{Text: "new"}, {Name: "o.py", Text: "old"}}
		}},
		{"/infill", `,"input_extra":null,"heal":true`, func(r *infer.Request) { r.Prompt.Heal = true }},
		{"/infill", `,"samplers":["top_k","top_p","infill"],"top_p":0.9`, func(r *infer.Request) { r.Sampling = infer.Sampling{TopK: 40, TopP: 0.9, Seed: 1} }},
	} {
		body, want := `{"prompt":"p","seed":1`+c.fields+`}`, plain
		if c.route == "/infill" {
			body, want = `{"input_prefix":"a","prompt":"b","input_suffix":"c","seed":1`+c.fields+`}`, fill
		}
		c.change(&want)
		status, answer, _ := servetest.Post(t, url+c.route, body)
		if status != 200 || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s %s: %d %.200s\nengine got %+v\nexpected   %+v", c.route, body, status, answer, got, want)
		}
	}

	// A model may heal, unless a request says otherwise.
	healing := start(t, servetest.Asked(&got), func(m *wire.Model) { m.Heal = true })
	for body, want := range map[string]bool{``: true, `,"heal":null`: true, `,"heal":false`: false, `,"heal":true`: true} {
		if servetest.Post(t, healing+"/infill", `{"input_prefix":"a","input_suffix":""`+body+`}`); got[0].Prompt.Heal != want {
			t.Errorf("%s: heal %v", body, !want)
		}
	}
	if servetest.Post(t, healing+"/completion", `{"prompt":"a"}`); got[0].Prompt.Heal {
		t.Error("a prompt without a suffix is healed")
	}

	for prompt, want := range map[string]string{
		`[1,2]`:                 `[{ [1 2]}]`,
		`[1,"AB",2]`:            `[{ [1 65 66 2]}]`,
		`["a","b"]`:             `[{a []} {b []}]`,
		`[[1],"a",["b","c",3]]`: `[{ [1]} {a []} { [98 99 3]}]`,
		`[["a","b"]]`:           `[{ab []}]`,
	} {
		servetest.Post(t, url+"/completion", `{"prompt":`+prompt+`}`)
		var prompts []string
		for _, r := range got {
			prompts = append(prompts, fmt.Sprint(struct {
				text string
				ids  []int32
			}{r.Prompt.Prefix, r.Prompt.IDs}))
		}
		if fmt.Sprint(prompts) != want {
			t.Errorf("prompt %s: %v, expected %s", prompt, prompts, want)
		}
	}

	// Another model's markers are taken apart.
	_, _, header := servetest.Post(t, url+"/completion", `{"prompt":["<PRE> a <SUF>b <MID>"],"seed":1}`)
	want := fill
	want.Prompt.Prefix, want.Prompt.Suffix = "a", "b"
	if !reflect.DeepEqual(got[0], want) || header.Get("X-AutoDev-FIM") != "translated codellama" {
		t.Errorf("engine got %+v, header %v", got[0], header)
	}

	// Choices: where a request leaves it open, the first is greedy and the others are drawn apart.
	for fields, want := range map[string]string{
		`"samplers":["top_k","infill"]`: "[9 0 0 5 9 1 1 5]",
		`"top_p":0.9`:                   "[9 0 0 5 9 1 0.8 5]",
		`"temperature":0.5`:             "[9 0 0.5 5 9 1 0.5 5]",
		`"temperature":0`:               "[9 0 0 5 9 1 0 5]",
	} {
		servetest.Post(t, url+"/infill", `{"input_prefix":"","input_suffix":"","n_cmpl":2,"top_k":5,"seed":9,`+fields+`}`)
		var choices []string
		for _, r := range got {
			s := r.Sampling
			choices = append(choices, fmt.Sprint(s.Seed, s.Choice, s.Temperature, s.TopK))
		}
		if fmt.Sprint(choices) != want {
			t.Errorf("%s: choices %v, expected %s", fields, choices, want)
		}
	}

	// Seeds that mean any are drawn, of 32 bits.
	seen := map[uint64]bool{}
	for _, seed := range []string{``, `,"seed":-1`, `,"seed":4294967295`, `,"seed":null`} {
		servetest.Post(t, url+"/completion", `{"prompt":"p"`+seed+`}`)
		if s := got[0].Sampling.Seed; seen[s] || s > 1<<32-1 {
			t.Errorf("seed %s: %d", seed, s)
		} else {
			seen[s] = true
		}
	}
}

// TestBusy: /infill has nothing to suggest, and llama.vim must not remember it; /completion says so.
func TestBusy(t *testing.T) {
	url, log := servetest.Start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, &infer.BusyError{Reason: "7 requests are waiting", RetryAfter: 1500 * time.Millisecond}
	}}, options(), nil)
	const fill = `{"input_prefix":"a","input_suffix":"b","n_cmpl":3`
	for _, c := range []struct {
		body, want, contentType string
	}{
		{fill + `}`, `{"content": "","stop":true}` + "\n", "application/json"},
		{fill + `,"stream":true}`, `data: {"content": "","stop":true}` + "\n\n", "text/event-stream"},
	} {
		if status, got, header := servetest.Post(t, url+"/infill", c.body); status != 200 || got != c.want || header.Get("Content-Type") != c.contentType {
			t.Errorf("%s: %d %s", c.body, status, got)
		}
	}
	status, got, header := servetest.Post(t, url+"/completion", `{"prompt":"p"}`)
	want := `{"error":{"code":429,"message":"busy: 7 requests are waiting","type":"unavailable_error"}}` + "\n"
	if status != 429 || header.Get("Retry-After") != "2" || got != want {
		t.Errorf("%d, Retry-After %q, %s", status, header.Get("Retry-After"), got)
	}
	if n := strings.Count(log.String(), "7 requests are waiting"); n != 3 {
		t.Errorf("%d of 3 failures in the log:\n%s", n, log)
	}
}

// TestFailure: an error before a stream's first part has its own status, afterwards it is the last part.
func TestFailure(t *testing.T) {
	after := 0
	url := start(t, &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for range after {
			if err := emit(0, infer.Chunk{Text: "x"}); err != nil {
				return nil, err
			}
		}
		return nil, &infer.BusyError{Reason: "late"}
	}}, nil)
	const failure = `{"error":{"code":429,"message":"busy: late","type":"unavailable_error"}}`
	if status, got, _ := servetest.Post(t, url+"/completion", `{"prompt":"p","stream":true}`); status != 429 || got != failure+"\n" {
		t.Errorf("%d %s", status, got)
	}
	after = 1
	for _, route := range []string{"/completion", "/infill"} {
		status, got, _ := servetest.Post(t, url+route, `{"prompt":"p","input_prefix":"","input_suffix":"","stream":true}`)
		if all := servetest.Events(t, strings.NewReader(got)); status != 200 || len(all) != 2 || all[1] != failure {
			t.Errorf("%s: %d %s", route, status, got)
		}
	}
}

// TestDisconnect: a completion whose client leaves ends.
func TestDisconnect(t *testing.T) {
	for _, route := range []string{"/infill", "/completion"} {
		for _, stream := range []bool{true, false} {
			body := fmt.Sprintf(`{"prompt":"p","input_prefix":"","input_suffix":"","stream":%v}`, stream)
			servetest.Disconnects(t, func(e wire.Engine) string { return start(t, e, nil) }, route, body)
		}
	}
}
