package llamacpp_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

func TestTokenize(t *testing.T) {
	url := start(t, &servetest.Fake{}, func(m *wire.Model) { m.Chat = servetest.Chat{} })
	for _, c := range []struct{ path, body, want string }{
		{"/tokenize", `{"content":"AB","add_special":false,"parse_special":true}`, `{"tokens":[65,66]}`},
		{"/tokenize", `{"content":["A",7,"B"]}`, `{"tokens":[65,7,66]}`},
		{"/tokenize", `{}`, `{"tokens":[]}`},
		{"/tokenize", `{"content":""}`, `{"tokens":[]}`},
		{"/tokenize", `{"content":[65,200],"with_pieces":true}`, `{"tokens":[{"id":65,"piece":"#A"},{"id":200,"piece":[35,200]}]}`},
		{"/detokenize", `{"tokens":[1,2,3]}`, `{"content":"###"}`},
		{"/detokenize", `{}`, `{"content":""}`},
		{"/apply-template", `{"messages":[{"role":"user","content":"<hi>"}]}`, `{"prompt":"user: <hi>\nassistant:"}`},
	} {
		if status, got, _ := servetest.Post(t, url+c.path, c.body); status != 200 || got != c.want+"\n" {
			t.Errorf("%s %s: %d %s\nexpected %s", c.path, c.body, status, got, c.want)
		}
	}
}

// TestTokenizeReal: ids are the model's own, and go back to the text.
func TestTokenizeReal(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{})
	url := start(t, engine, nil)
	_, got, _ := servetest.Post(t, url+"/tokenize", `{"content":"größe = 1\n"}`)
	if _, back, _ := servetest.Post(t, url+"/detokenize", got); back != `{"content":"größe = 1\n"}`+"\n" {
		t.Errorf("%s became %s", got, back)
	}
	if _, back, _ := servetest.Post(t, url+"/detokenize", `{"tokens":[-5,100000]}`); back != `{"content":""}`+"\n" {
		t.Errorf("ids that are no tokens became %s", back)
	}
}

func TestHealth(t *testing.T) {
	url := start(t, &servetest.Fake{}, nil)
	if got := servetest.Get(t, url+"/health"); got != `{"status":"ok"}`+"\n" {
		t.Error(got)
	}
	url, _ = servetest.StartModels(t, registry.New(false), options())
	if got := servetest.Get(t, url+"/health"); got != `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`+"\n" {
		t.Error(got)
	}
	// Completions that are asked for before there is a model.
	if status, got, _ := servetest.Post(t, url+"/infill", `{"input_prefix":"a","input_suffix":"b"}`); status != 200 || got != `{"content": "","stop":true}`+"\n" {
		t.Errorf("%d %s", status, got)
	}
	if status, got, _ := servetest.Post(t, url+"/completion", `{"prompt":"a"}`); status != 503 || got != `{"error":{"code":503,"message":"no model is loaded yet","type":"unavailable_error"}}`+"\n" {
		t.Errorf("%d %s", status, got)
	}
}

func TestProps(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	url := start(t, &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		close(begun)
		<-end
		return make([]infer.Result, 1), nil
	}}, func(m *wire.Model) { m.Chat, m.Path, m.Shape.MinIndent = servetest.Chat{}, "models/some", 0 })
	params := `{"n_ctx":64,"seed":4294967295,"temperature":0,` + usual + `}`
	want := `{"default_generation_settings":{"id":0,"is_processing":false,"n_ctx":64,"params":` + params + `},"total_slots":1,"model_alias":"some/model","model_path":"models/some",` +
		`"modalities":{"audio":false,"vision":false},"endpoint_slots":true,"endpoint_props":false,"endpoint_metrics":true,"chat_template":"{{ lines }}","build_info":"autodev","is_sleeping":false}` + "\n"
	if got := servetest.Get(t, url+"/props?model=some%2Fmodel"); got != want {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
	slots := func(processing string) string {
		return `[{"id":0,"n_ctx":64,"is_processing":` + processing + `,"params":` + params + `}]` + "\n"
	}
	if got := servetest.Get(t, url+"/slots?fail_on_no_slot=1"); got != slots("false") {
		t.Error(got)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := http.Post(url+"/completion", "application/json", strings.NewReader(`{"prompt":"p"}`))
		if err == nil {
			resp.Body.Close()
		}
	}()
	<-begun
	if got := servetest.Get(t, url+"/slots"); got != slots("true") {
		t.Error(got)
	}
	close(end)
	<-done
	if got := servetest.Get(t, url+"/slots"); got != slots("false") {
		t.Error(got)
	}
}
