package ollama_test

import (
	"net/http"
	"regexp"
	"testing"
	"time"

	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// models serves a model and an adapter of it.
func models(t *testing.T) string {
	t.Helper()
	r := registry.New(true)
	e := &servetest.Fake{}
	created := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	r.Put([]wire.Model{{ID: "m", Engine: e, Created: created}, {ID: "m+a:v1", Engine: e, Adapter: "a", Created: created}}, nil)
	url, _ := servetest.StartModels(t, r, options())
	return url
}

func TestModels(t *testing.T) {
	url := models(t)
	digests := regexp.MustCompile(`"digest":"[0-9a-f]{64}"`)
	get := func(path string) string {
		t.Helper()
		status, got, _ := request(t, http.MethodGet, url+path, "")
		if status != 200 {
			t.Errorf("%s: %d %s", path, status, got)
		}
		if all := digests.FindAllString(got, -1); len(all) == 2 && all[0] == all[1] {
			t.Error("two models have one digest")
		}
		return digests.ReplaceAllString(got, "DIGEST")
	}
	const details = `"details":{"parent_model":"","format":"safetensors","family":"autodev","families":["autodev"],"parameter_size":"12.3K","quantization_level":"","context_length":64}`
	entry := func(name string) string {
		return `{"name":"` + name + `","model":"` + name + `","modified_at":"2026-01-02T03:04:05.0000006Z","size":0,DIGEST,` + details + `}`
	}
	if got, want := get("/api/tags"), `{"models":[`+entry("m:latest")+`,`+entry("m+a:v1")+`]}`+"\n"; got != want {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
	loaded := func(name string) string {
		return `{"name":"` + name + `","model":"` + name + `","size":0,DIGEST,` + details + `,"expires_at":"2318-04-14T02:51:21Z","size_vram":0,"context_length":64}`
	}
	if got, want := get("/api/ps"), `{"models":[`+loaded("m:latest")+`,`+loaded("m+a:v1")+`]}`+"\n"; got != want {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
	if got := get("/api/version"); got != `{"version":"0.17.4"}`+"\n" {
		t.Error(got)
	}
	want := `{"modelfile":"FROM m:latest\n","parameters":"","template":"{{ .Prompt }}{{ if .Suffix }}{{ .Suffix }}{{ end }}",` + details + `,` +
		`"model_info":{"autodev.context_length":64,"autodev.vocab_size":100,"general.architecture":"autodev","general.basename":"m","general.parameter_count":12345},` +
		`"capabilities":["completion","insert"],"modified_at":"2026-01-02T03:04:05.0000006Z"}` + "\n"
	for _, body := range []string{`{"model":"m"}`, `{"name":"m:latest","verbose":true}`} {
		if status, got, _ := servetest.Post(t, url+"/api/show", body); status != 200 || got != want {
			t.Errorf("%d %s\nexpected\n%s", status, got, want)
		}
	}
	const missing = `{"error":"model \"x\": not served here, expected one of those that /v1/models lists"}` + "\n"
	for _, path := range []string{"/api/show", "/api/generate", "/api/chat"} {
		if status, got, _ := servetest.Post(t, url+path, `{"model":"x"}`); status != 404 || got != missing {
			t.Errorf("%s: %d %s", path, status, got)
		}
	}
	for body, want := range map[string]string{`{"model":"m"}`: "application/x-ndjson", `{"name":"m+a:v1","stream":false}`: "application/json"} {
		if status, got, header := servetest.Post(t, url+"/api/pull", body); status != 200 || got != `{"status":"success"}`+"\n" || header.Get("Content-Type") != want {
			t.Errorf("%d %s", status, got)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		status, got, header := request(t, method, url+"/", "")
		if want := map[string]string{http.MethodGet: "Ollama is running"}[method]; status != 200 || got != want || header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s /: %d %q", method, status, got)
		}
	}
}
