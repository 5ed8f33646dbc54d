package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/metrics"
	"autodev/serve/page"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// start serves engine with the page and returns its address. more are further protocols.
func start(t *testing.T, engine wire.Engine, more ...*wire.Protocol) string {
	t.Helper()
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "autodev-tiny", Engine: engine}}, nil)
	m := metrics.New(metrics.Options{Version: "v1.2.3", Service: models})
	p, err := page.New(page.Options{Version: "v1.2.3", Summary: m.Summary})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := servetest.StartModels(t, models, serve.Options{Protocols: append(append(serve.Protocols(), p, m.Protocol()), more...), Observe: m.Observe})
	return url
}

func get(t *testing.T, url string, header ...string) (status int, body string, h http.Header) {
	t.Helper()
	resp, body := servetest.Send(t, http.MethodGet, url, "", header...)
	return resp.StatusCode, body, resp.Header
}

const browserAccepts = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

func TestPage(t *testing.T) {
	ollama := &wire.Protocol{Name: "ollama", Routes: []wire.Route{{Method: "GET", Path: "/{$}", Handle: func(c *wire.Call) error { return c.Text("text/plain", "Ollama is running") }}}}
	url := start(t, &servetest.Fake{}, ollama)
	status, html, h := get(t, url+"/", "Accept", browserAccepts)
	if status != 200 || h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(html, "<!doctype html>") {
		t.Fatalf("%d %v", status, h)
	}
	for _, accept := range []string{"*/*", "application/json", "text/plain", "nonsense;;", ""} {
		if _, body, _ := get(t, url+"/", "Accept", accept); body != "Ollama is running" {
			t.Errorf("Accept %q: %.40q, expected what Ollama's clients look for", accept, body)
		}
	}
	// The policy allows the page's own script and style, and nothing that is not there.
	policy := h.Get("Content-Security-Policy")
	for tag, directive := range map[string]string{"script": "script-src", "style": "style-src"} {
		all := regexp.MustCompile(`(?s)<`+tag+`[^>]*>(.*?)</`+tag+`>`).FindAllStringSubmatch(html, -1)
		if len(all) != 1 {
			t.Fatalf("%d elements <%s>, expected 1", len(all), tag)
		}
		sum := sha256.Sum256([]byte(all[0][1]))
		if want := directive + " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"; !strings.Contains(policy, want) {
			t.Errorf("policy %s\nhas no %s", policy, want)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("policy %s", policy)
	}
	if urls := regexp.MustCompile(`(?:https?:)?//[a-z0-9-]+\.[a-z]+[^\s"']*`).FindAllString(html, -1); len(urls) > 0 {
		for _, u := range urls {
			if u != "http://www.w3.org/2000/svg" { // a name, not an address
				t.Errorf("the page names %s", u)
			}
		}
	}
	if regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|style="|\son[a-z]+="`).MatchString(html) {
		t.Error("the page makes markup of text, or needs what its policy forbids")
	}
	if status, body, _ := get(t, url+"/", "Accept", browserAccepts, "If-None-Match", h.Get("ETag")); status != 304 || body != "" {
		t.Errorf("%d %q to who has the page", status, body)
	}
}

func TestStatus(t *testing.T) {
	url := start(t, &servetest.Fake{})
	servetest.Post(t, url+"/v1/completions", `{"prompt":"p"}`)
	status, body, _ := get(t, url+"/v1/status")
	s := servetest.Decode[page.Status](t, body)
	if status != 200 || s.Version != "v1.2.3" || s.Engine != nil || len(s.Models) != 1 || s.Models[0] != (page.Model{ID: "autodev-tiny", Context: 64, Parameters: 12345, FIM: true}) ||
		s.Now.Completions != 1 || s.Now.GeneratedTokens != 3 || s.Now.Total == nil || s.Now.FirstText != nil {
		t.Errorf("%d %s", status, body)
	}
	url = start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}))
	servetest.Post(t, url+"/v1/completions", `{"prompt":"p","max_tokens":3}`)
	_, body, _ = get(t, url+"/v1/status")
	if s := servetest.Decode[page.Status](t, body); s.Engine == nil || s.Engine.Queued+s.Engine.Running+s.Engine.Paused != 0 || s.Engine.KVLimit <= 0 || s.Models[0].Weights != "float32" {
		t.Errorf("%s", body)
	}
	_, body, _ = get(t, url+"/metrics")
	for _, want := range []string{
		`autodev_engine_requests{class="chat",model="autodev-tiny",state="queued"} 0`, `autodev_engine_calls_completed_total{model="autodev-tiny"} 1`,
		`autodev_model_info{adapter="",device="cpu",model="autodev-tiny",weights="float32"} 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("no line %s in\n%s", want, body)
		}
	}
}
