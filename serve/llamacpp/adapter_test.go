package llamacpp_test

import (
	"context"
	"fmt"
	"testing"

	"autodev/infer"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// models serves a model with two adapters, and another that is none of theirs.
func models(t *testing.T, engine wire.Engine) string {
	t.Helper()
	r := registry.New(false)
	r.Put([]wire.Model{{ID: "m", Engine: engine}, {ID: "m+a", Engine: engine, Adapter: "a"}, {ID: "m+b", Engine: engine, Adapter: "b"}}, nil)
	r.Put([]wire.Model{{ID: "other", Engine: &servetest.Fake{}, Adapter: "c"}}, nil)
	url, _ := servetest.StartModels(t, r, options())
	return url
}

func TestAdapters(t *testing.T) {
	var adapter string
	url := models(t, &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		adapter = reqs[0].Adapter
		return make([]infer.Result, len(reqs)), nil
	}})
	check := func(fields, want string) {
		t.Helper()
		status, got, _ := servetest.Post(t, url+"/infill", `{"input_prefix":"","input_suffix":"","response_fields":["generation_settings/lora"]`+fields+`}`)
		if status != 200 || adapter != want {
			t.Errorf("%s: %d %s: adapter %q, expected %q", fields, status, got, adapter, want)
		}
	}
	list := func(a, b int) {
		t.Helper()
		got := servetest.Get(t, url+"/lora-adapters")
		if want := fmt.Sprintf(`[{"id":0,"path":"a","scale":%d},{"id":1,"path":"b","scale":%d}]`+"\n", a, b); got != want {
			t.Errorf("%s\nexpected %s", got, want)
		}
	}
	set := func(body string) {
		t.Helper()
		if status, got, _ := servetest.Post(t, url+"/lora-adapters", body); status != 200 || got != `{"success":true}`+"\n" {
			t.Errorf("%s: %d %s", body, status, got)
		}
	}
	list(0, 0)
	check(``, "")
	check(`,"lora":[{"id":1,"scale":1.0}]`, "b")
	check(`,"lora":[{"id":0,"scale":1},{"id":1,"scale":0}]`, "a")
	check(`,"lora":[]`, "")
	check(`,"model":"m+a","lora":[]`, "")
	check(`,"model":"m+a"`, "a")
	set(`[{"id":1,"scale":1}]`)
	list(0, 1)
	check(``, "b")
	check(`,"model":"m"`, "")
	check(`,"lora":[]`, "")
	set(`[{"id":1,"scale":0}]`)
	list(0, 0)
	check(``, "")
	for body, want := range map[string]string{
		`[{"id":0,"scale":0.5}]`:                  "lora: element 0: scale: found 0.5, expected 0 or 1: adapters are applied as they were trained",
		`[{"id":0,"scale":1},{"id":1,"scale":1}]`: "lora: element 1: found a second adapter with scale 1, expected one",
		`[{"id":2,"scale":1}]`:                    "lora: element 0: id: found 2, expected one of the 2 adapters that GET /lora-adapters lists",
		`[{"id":0,"scale":"secret"}]`:             "lora: element 0: scale: found a string, expected a number",
		`[5]`:                                     "lora: found an array, expected an array of objects",
	} {
		status, got, _ := servetest.Post(t, url+"/lora-adapters", body)
		if status != 400 || got != `{"error":{"code":400,"message":"`+want+`","type":"invalid_request_error"}}`+"\n" {
			t.Errorf("%s: %d %s", body, status, got)
		}
	}
}
