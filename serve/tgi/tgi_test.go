package tgi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/openai"
	"autodev/serve/servetest"
	"autodev/serve/tgi"
	"autodev/serve/wire"
)

func start(t *testing.T, engine wire.Engine, change func(*wire.Model)) string {
	url, _ := servetest.Start(t, engine, serve.Options{Protocols: []*wire.Protocol{openai.New(), tgi.New()}}, change)
	return url
}

// spoken is an engine that gives each request the answer of its choice, token by token.
func spoken(results ...infer.Result) *servetest.Fake {
	return &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		for i := range reqs {
			r := results[i]
			for k, t := range r.Tokens {
				end := len(r.Text)
				if k+1 < len(r.Tokens) {
					end = r.Tokens[k+1].Start
				}
				if emit != nil {
					if err := emit(i, infer.Chunk{Text: r.Text[t.Start:end], Tokens: []infer.Token{t}}); err != nil {
						return nil, err
					}
				}
			}
			if emit != nil {
				if err := emit(i, infer.Chunk{FinishReason: r.FinishReason}); err != nil {
					return nil, err
				}
			}
		}
		return results[:len(reqs)], nil
	}}
}

func token(id int32, start int, logprob float64) infer.Token {
	return infer.Token{ID: id, Bytes: []byte{'#', byte(id)}, Start: start, LogProb: logprob, Top: []infer.TokenProb{{ID: 'x', LogProb: -2}}}
}

var (
	first  = infer.Result{Text: "one <two>", IDs: []int32{1, 2}, Tokens: []infer.Token{token(1, 0, -0.5), token(2, 3, -1)}, PromptIDs: []int32{7, 8}, PromptTokens: []infer.Token{{ID: 7, Bytes: []byte("p")}, {ID: 8, Bytes: []byte("q")}}, FinishReason: infer.FinishStop}
	second = infer.Result{Text: "three", IDs: []int32{3}, Tokens: []infer.Token{token(3, 0, -0.25)}, PromptIDs: []int32{7, 8}, FinishReason: infer.FinishLength}
	worded = infer.Result{Text: "one", IDs: []int32{1, 2}, Tokens: []infer.Token{token(1, 0, -0.5)}, PromptIDs: []int32{7, 8}, FinishReason: infer.FinishStop, StopText: " "}
)

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		path, body string
		results    []infer.Result
		want       string
	}{
		{"/generate", `{"inputs":"p"}`, []infer.Result{first}, `{"generated_text":"one <two>"}`},
		{"/generate", `{"inputs":"p&","parameters":{"return_full_text":true}}`, []infer.Result{first}, `{"generated_text":"p&one <two>"}`},
		{"/", `{"inputs":"p&","parameters":null}`, []infer.Result{first}, `[{"generated_text":"p&one <two>"}]`},
		{"/", `{"inputs":"p","parameters":{"return_full_text":false}}`, []infer.Result{first}, `[{"generated_text":"one <two>"}]`},
		{"/models/a/b", `{"inputs":"p","parameters":{"return_full_text":false}}`, []infer.Result{first}, `[{"generated_text":"one <two>"}]`},
		{"/generate", `{"inputs":"p","parameters":{"details":true}}`, []infer.Result{first},
			`{"generated_text":"one <two>","details":{"finish_reason":"eos_token","generated_tokens":2,"seed":null,"prefill":[{"id":7,"text":"p","logprob":null},{"id":8,"text":"q","logprob":null}],` +
				`"tokens":[{"id":1,"text":"one","logprob":-0.5,"special":false},{"id":2,"text":" <two>","logprob":-1,"special":false}]}}`},
		{"/generate", `{"inputs":"p","parameters":{"details":true,"do_sample":true,"seed":42,"top_n_tokens":1}}`, []infer.Result{worded},
			`{"generated_text":"one","details":{"finish_reason":"stop_sequence","generated_tokens":2,"seed":42,"prefill":[],"tokens":[{"id":1,"text":"one","logprob":-0.5,"special":false}],` +
				`"top_tokens":[[{"id":120,"text":"#x","logprob":-2,"special":false}]]}}`},
		{"/generate", `{"inputs":"p","parameters":{"details":true,"temperature":0.5,"seed":1,"best_of":2}}`, []infer.Result{worded, second},
			`{"generated_text":"three","details":{"finish_reason":"length","generated_tokens":1,"seed":1,"prefill":[],"tokens":[{"id":3,"text":"three","logprob":-0.25,"special":false}],` +
				`"best_of_sequences":[{"generated_text":"one","finish_reason":"stop_sequence","generated_tokens":2,"seed":1,"prefill":[],"tokens":[{"id":1,"text":"one","logprob":-0.5,"special":false}]}]}}`},
	} {
		status, got, header := servetest.Post(t, start(t, spoken(c.results...), nil)+c.path, c.body)
		if status != 200 || header.Get("Content-Type") != "application/json" || got != c.want+"\n" {
			t.Errorf("%s %s: %d %s\nexpected %s", c.path, c.body, status, got, c.want)
		}
	}
}

func TestStream(t *testing.T) {
	const one = `data: {"index":1,"token":{"id":1,"text":"one","logprob":-0.5,"special":false},"generated_text":null,"details":null}` + "\n\n"
	const two = `data: {"index":2,"token":{"id":2,"text":" <two>","logprob":-1,"special":false},"generated_text":null,"details":null}` + "\n\n"
	for _, c := range []struct {
		path, body string
		result     infer.Result
		want       string
	}{
		{"/generate_stream", `{"inputs":"p"}`, first, one + two + `data: {"index":3,"token":{"id":0,"text":"","logprob":0,"special":true},"generated_text":"one <two>","details":null}` + "\n\n"},
		{"/", `{"inputs":"p","stream":true,"parameters":{"details":true}}`, first, one + two +
			`data: {"index":3,"token":{"id":0,"text":"","logprob":0,"special":true},"generated_text":"pone <two>","details":{"finish_reason":"eos_token","generated_tokens":2,"seed":null,"input_length":2}}` + "\n\n"},
		{"/generate_stream", `{"inputs":"p","parameters":{"top_n_tokens":1}}`, second,
			`data: {"index":1,"token":{"id":3,"text":"three","logprob":-0.25,"special":false},"top_tokens":[{"id":120,"text":"#x","logprob":-2,"special":false}],"generated_text":null,"details":null}` + "\n\n" +
				`data: {"index":2,"token":{"id":0,"text":"","logprob":0,"special":true},"generated_text":"three","details":null}` + "\n\n"},
	} {
		status, got, header := servetest.Post(t, start(t, spoken(c.result), nil)+c.path, c.body)
		if status != 200 || header.Get("Content-Type") != "text/event-stream" || got != c.want {
			t.Errorf("%s %s: %d\n%s\nexpected\n%s", c.path, c.body, status, got, c.want)
		}
	}
	// A last chunk that brings a token is the last event.
	url := start(t, &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		return []infer.Result{second}, emit(0, infer.Chunk{Text: second.Text, Tokens: second.Tokens, FinishReason: infer.FinishLength})
	}}, nil)
	_, got, _ := servetest.Post(t, url+"/generate_stream", `{"inputs":"p"}`)
	if want := `data: {"index":1,"token":{"id":3,"text":"three","logprob":-0.25,"special":false},"generated_text":"three","details":null}` + "\n\n"; got != want {
		t.Errorf("%s\nexpected %s", got, want)
	}
	boom := start(t, &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if err := emit(0, infer.Chunk{Text: "one", Tokens: first.Tokens[:1]}); err != nil {
			return nil, err
		}
		return nil, errors.New("boom")
	}}, nil)
	if _, got, _ := servetest.Post(t, boom+"/generate_stream", `{"inputs":"p"}`); got != one+`data: {"error":"boom","error_type":"generation"}`+"\n\n" {
		t.Errorf("failing stream: %s", got)
	}
}

func TestRequestsReachEngine(t *testing.T) {
	var got []infer.Request
	url := start(t, servetest.Asked(&got), func(m *wire.Model) { m.Shape = infer.Shape{Lines: infer.AutoLines} })
	one := func(change func(*infer.Request)) []infer.Request {
		r := infer.Request{Prompt: infer.Prompt{Prefix: "pqr"}, MaxTokens: 100, Sampling: infer.Sampling{TopP: 1, Seed: 1}}
		change(&r)
		return []infer.Request{r}
	}
	for parameters, want := range map[string][]infer.Request{
		`"seed":1`: one(func(*infer.Request) {}),
		`"seed":1,"max_new_tokens":7.0,"stop":["x"]`:                     one(func(r *infer.Request) { r.MaxTokens, r.Stop = 7, []string{"x"} }),
		`"seed":1,"do_sample":false,"watermark":true,"typical_p":null`:   one(func(*infer.Request) {}),
		`"seed":1,"temperature":1.0,"do_sample":false`:                   one(func(*infer.Request) {}),
		`"seed":1,"temperature":0`:                                       one(func(*infer.Request) {}),
		`"seed":1,"do_sample":true`:                                      one(func(r *infer.Request) { r.Sampling.Temperature = 1 }),
		`"seed":1,"temperature":0.2,"top_p":0.95`:                        one(func(r *infer.Request) { r.Sampling.Temperature, r.Sampling.TopP = 0.2, 0.95 }),
		`"seed":1,"top_k":5`:                                             one(func(r *infer.Request) { r.Sampling.Temperature, r.Sampling.TopK = 1, 5 }),
		`"seed":1,"repetition_penalty":1.1,"frequency_penalty":0.5`:      one(func(r *infer.Request) { r.Sampling.RepetitionPenalty, r.Sampling.FrequencyPenalty = 1.1, 0.5 }),
		`"seed":1,"presence_penalty":0.5`:                                one(func(r *infer.Request) { r.Sampling.PresencePenalty = 0.5 }),
		`"seed":1,"details":true,"top_n_tokens":2`:                       one(func(r *infer.Request) { r.Logprobs, r.Top = true, 2 }),
		`"seed":1,"decoder_input_details":true`:                          one(func(r *infer.Request) { r.Logprobs, r.PromptLogprobs = true, true }),
		`"seed":1,"truncate":2`:                                          one(func(r *infer.Request) { r.Prompt = infer.Prompt{IDs: []int32{'q', 'r'}} }),
		`"seed":1,"truncate":3`:                                          one(func(*infer.Request) {}),
		`"seed":1,"truncate":64`:                                         one(func(*infer.Request) {}),
		`"seed":1,"adapter_id":null,"return_full_text":null,"stop":null`: one(func(*infer.Request) {}),
		`"seed":9,"do_sample":true,"best_of":2`: append(one(func(r *infer.Request) { r.Logprobs, r.Sampling.Temperature, r.Sampling.Seed = true, 1, 9 }),
			one(func(r *infer.Request) {
				r.Logprobs, r.Sampling.Temperature, r.Sampling.Seed, r.Sampling.Choice = true, 1, 9, 1
			})...),
	} {
		got = nil
		status, answer, _ := servetest.Post(t, url+"/generate", `{"inputs":"pqr","parameters":{`+parameters+`}}`)
		if status != 200 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d %s\nengine got %+v\nexpected    %+v", parameters, status, answer, got, want)
		}
	}
	if servetest.Post(t, url+"/generate_stream", `{"inputs":"p"}`); !got[0].Logprobs {
		t.Error("a stream without log-probabilities")
	}
	// As llm-ls sends it, for any model.
	const raw = "<fim_prefix>def größe():\n<fim_suffix>\n    return a\n<fim_middle>"
	_, _, header := servetest.Post(t, url+"/generate", fmt.Sprintf(`{"inputs":%q,"parameters":{"return_full_text":false,"max_new_tokens":60,"temperature":0.2,"top_p":0.95,"do_sample":true,"truncate":5}}`, raw))
	if r := got[0]; r.Prompt.Prefix != "röße():\n" || r.Prompt.Suffix != "\n    return a\n" || r.Shape.Lines != infer.AutoLines || header.Get("X-AutoDev-FIM") != "translated starcoder" {
		t.Errorf("foreign markers: %+v, header %q", r, header.Get("X-AutoDev-FIM"))
	}
	servetest.Post(t, url+"/generate", `{"inputs":"p","reuse":true,"lines":"one","filename":"f.go","heal":true,"files":[{"filename":"a","text":"b"}]}`)
	if r := got[0]; r.Shape.Lines != infer.OneLine || !r.Reuse || r.Prompt.Filename != "f.go" || !r.Prompt.Heal || len(r.Prompt.Files) != 1 {
		t.Errorf("extensions: %+v", r)
	}
}

func TestModels(t *testing.T) {
	var asked []string
	url, _ := servetest.StartModels(t, service{func(name string) { asked = append(asked, name) }}, serve.Options{Protocols: []*wire.Protocol{tgi.New()}})
	servetest.Post(t, url+"/generate", `{"inputs":"p","parameters":{"adapter_id":"some-adapter"},"model":"m"}`)
	servetest.Post(t, url+"/generate", `{"inputs":"p","model":"m"}`)
	servetest.Post(t, url+"/models/org/name", `{"inputs":"p"}`)
	servetest.Post(t, url+"/", `{"inputs":"p"}`)
	if want := []string{"some-adapter", "m", "org/name", ""}; !slices.Equal(asked, want) {
		t.Errorf("models asked for: %q, expected %q", asked, want)
	}
}

// service has one model by any name.
type service struct{ asked func(string) }

func (service) Models() []wire.Model { return nil }

func (s service) Use(name string) (wire.Model, func(), error) {
	s.asked(name)
	return wire.Model{ID: "m", Engine: &servetest.Fake{}}, func() {}, nil
}

func TestBadRequests(t *testing.T) {
	engine := &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		switch reqs[0].Prompt.Prefix {
		case "busy":
			return nil, &infer.BusyError{Reason: "7 requests are waiting", RetryAfter: 1500 * time.Millisecond}
		case "boom":
			return nil, errors.New("boom")
		}
		return nil, &infer.OptionError{Option: "top_p", Problem: "found 2, expected 0 to 1"}
	}}
	url := start(t, engine, nil)
	for _, c := range []struct {
		path, body string
		status     int
		message    string
		kind       string
	}{
		{"/generate", ``, 422, "body: malformed JSON at byte 0 of 0: unexpected end of JSON input", "validation"},
		{"/generate", `{}`, 422, "inputs: missing, expected a string", "validation"},
		{"/generate", `{"inputs":["secret"]}`, 422, "inputs: found an array, expected a string", "validation"},
		{"/generate", `{"inputs":"p","parameters":[]}`, 422, "parameters: found an array, expected an object", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"max_new_tokens":-1}}`, 422, "parameters: max_new_tokens: found -1, expected a whole number from 0 to 2147483647", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"temperature":"hot"}}`, 422, "parameters: temperature: found a string, expected a number", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"truncate":0}}`, 422, "parameters: truncate: found 0, expected a whole number from 1 to 2147483647", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"stop":[` + strings.Repeat(`"x",`, 64) + `"x"]}}`, 422, "parameters: stop: found 65 strings, expected at most 64", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"best_of":2}}`, 422, "parameters: best_of: found 2 for tokens that are not drawn, expected do_sample or a temperature with it", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"best_of":9}}`, 422, "parameters: best_of: found 9, expected a whole number from 1 to 8", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"typical_p":0.9}}`, 422, "parameters: typical_p: found a value other than 1, expected none: typical sampling is not supported", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"grammar":{"type":"regex","value":"secret"}}}`, 422, "parameters: grammar: found a grammar, expected none: answers cannot be bound to one", "validation"},
		{"/generate", `{"inputs":"p","parameters":{"adapter_id":1}}`, 422, "parameters: adapter_id: found 1, expected a string", "validation"},
		{"/generate", `{"inputs":"p"}`, 422, "top_p: found 2, expected 0 to 1", "validation"},
		{"/generate_stream", `{"inputs":"p","parameters":{"best_of":2,"do_sample":true}}`, 422, "parameters: best_of: found 2 for a stream, expected 1", "validation"},
		{"/generate_stream", `{"inputs":"p","parameters":{"decoder_input_details":true}}`, 422, "parameters: decoder_input_details: found true for a stream, expected false", "validation"},
		{"/", `{"inputs":"p","stream":"yes"}`, 422, "stream: found a string, expected true or false", "validation"},
		{"/generate", `{"inputs":"busy"}`, 429, "busy: 7 requests are waiting", "overloaded"},
		{"/generate_stream", `{"inputs":"busy"}`, 429, "busy: 7 requests are waiting", "overloaded"},
		{"/generate", `{"inputs":"boom"}`, 424, "boom", "generation"},
		{"/tokenize", `{"inputs":["secret"]}`, 422, "inputs: found an array, expected a string", "validation"},
		{"/generate/more", `{}`, 404, "POST /generate/more: no such route", ""},
	} {
		status, got, header := servetest.Post(t, url+c.path, c.body)
		want := fmt.Sprintf(`{"error":%q,"error_type":%q}`, c.message, c.kind) + "\n"
		if status != c.status || c.kind != "" && got != want || !strings.Contains(got, c.message) {
			t.Errorf("%s %s: %d %s\nexpected %d %s", c.path, c.body, status, got, c.status, want)
		}
		if c.status == 429 && header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", header.Get("Retry-After"))
		}
	}
	resp, err := http.Get(url + "/generate")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 405 || string(body) != `{"error":"GET /generate: expected POST","error_type":"validation"}`+"\n" {
		t.Errorf("%d %s %v", resp.StatusCode, body, err)
	}
}

func TestInfo(t *testing.T) {
	resp, err := http.Get(start(t, &servetest.Fake{}, nil) + "/info")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := servetest.Decode[map[string]any](t, string(body))
	delete(got, "sha")
	want := map[string]any{
		"model_id": "some/model", "model_dtype": "", "model_device_type": "cpu", "model_pipeline_tag": "text-generation", "max_concurrent_requests": 64.0, "max_best_of": 8.0,
		"max_stop_sequences": 64.0, "max_input_tokens": 63.0, "max_input_length": 63.0, "max_total_tokens": 64.0, "max_client_batch_size": 1.0, "validation_workers": 1.0,
		"router": "autodev", "version": "3.3.6",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nexpected %v", body, want)
	}
}

func TestTokenize(t *testing.T) {
	url := start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), nil)
	const text = "def größe(a):\n\treturn '€'"
	_, got, _ := servetest.Post(t, url+"/tokenize", fmt.Sprintf(`{"inputs":%q,"add_special_tokens":true}`, text))
	runes := []rune(text)
	at := 0
	for _, tok := range servetest.Decode[[]struct {
		ID          int32
		Text        string
		Start, Stop int
	}](t, got) {
		if tok.Start > at || tok.Stop < tok.Start || tok.Text != string(runes[tok.Start:tok.Stop]) {
			t.Errorf("%+v after character %d", tok, at)
		}
		at = tok.Stop
	}
	if at != len(runes) {
		t.Errorf("%d of %d characters in %s", at, len(runes), got)
	}
	if _, got, _ := servetest.Post(t, url+"/tokenize", `{"inputs":""}`); got != "[]\n" {
		t.Errorf("empty text: %s", got)
	}
	_, got, _ = servetest.Post(t, start(t, &servetest.Fake{}, nil)+"/tokenize", `{"inputs":"ab"}`)
	if want := `[{"id":97,"text":"","start":0,"stop":0},{"id":98,"text":"","start":0,"stop":0}]` + "\n"; got != want {
		t.Errorf("a tokenizer that changes texts: %s", got)
	}
}

// TestSameText: a completion is what OpenAI's protocol has for the same prompt, whole and streamed.
func TestSameText(t *testing.T) {
	url := start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), nil)
	const prompt = `"def größe(a):\n"`
	_, got, _ := servetest.Post(t, url+"/v1/completions", `{"prompt":`+prompt+`,"max_tokens":20}`)
	want := servetest.Decode[struct{ Choices []struct{ Text string } }](t, got).Choices[0].Text
	_, got, _ = servetest.Post(t, url+"/generate", `{"inputs":`+prompt+`,"parameters":{"max_new_tokens":20,"details":true}}`)
	own := servetest.Decode[struct {
		Text    string `json:"generated_text"`
		Details struct {
			Tokens []struct {
				ID      int32
				Text    string
				LogProb float64
			}
		}
	}](t, got)
	joined := ""
	for _, tok := range own.Details.Tokens {
		if joined += tok.Text; tok.LogProb >= 0 {
			t.Errorf("log-probability %v", tok.LogProb)
		}
	}
	if want == "" || own.Text != want || joined != want {
		t.Errorf("%q, of tokens %q, OpenAI's protocol has %q", own.Text, joined, want)
	}
	_, got, _ = servetest.Post(t, url+"/generate_stream", `{"inputs":`+prompt+`,"parameters":{"max_new_tokens":20}}`)
	joined = ""
	events := servetest.Events(t, strings.NewReader(got))
	for i, e := range events {
		v := servetest.Decode[struct {
			Token struct {
				ID   int32
				Text string
			}
			Text *string `json:"generated_text"`
		}](t, e)
		joined += v.Token.Text
		if last := i == len(events)-1; (v.Text != nil) != last || last && *v.Text != want {
			t.Errorf("event %d of %d: %s", i, len(events), e)
		}
		if i < len(own.Details.Tokens) && (v.Token.ID != own.Details.Tokens[i].ID || v.Token.Text != own.Details.Tokens[i].Text) {
			t.Errorf("token %d: %+v, whole %+v", i, v.Token, own.Details.Tokens[i])
		}
	}
	if joined != want {
		t.Errorf("stream %q, expected %q", joined, want)
	}
}

// TestDisconnect: a client that goes away ends its completion.
func TestDisconnect(t *testing.T) {
	servetest.Disconnects(t, func(e wire.Engine) string { return start(t, e, nil) }, "/generate", `{"inputs":"p"}`)
}
