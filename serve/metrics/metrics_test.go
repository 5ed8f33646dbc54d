package metrics_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/metrics"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// start serves engine with metrics and returns their address and them.
func start(t *testing.T, engine wire.Engine) (url string, m *metrics.Metrics) {
	t.Helper()
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "some/model", Engine: engine}}, nil)
	m = metrics.New(metrics.Options{Version: "v1.2.3", Service: models})
	url, _ = servetest.StartModels(t, models, serve.Options{Protocols: append(serve.Protocols(), m.Protocol()), Observe: m.Observe})
	return url, m
}

func TestMetrics(t *testing.T) {
	engine := &servetest.Fake{}
	url, m := start(t, engine)
	for _, body := range []string{`{"prompt":"p"}`, `{"prompt":"p","stream":true}`, `{"prompt":7.5}`} {
		servetest.Post(t, url+"/v1/completions", body)
	}
	for _, err := range []error{&infer.BusyError{Reason: "full", RetryAfter: time.Second}, wire.ErrShutdown, context.Canceled} {
		engine.Do = func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
			return nil, err
		}
		if err == context.Canceled {
			ctx, leave := context.WithCancel(t.Context())
			engine.Do = func(ctx context.Context, _ []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
				leave()
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt":"p"}`))
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
			continue
		}
		servetest.Post(t, url+"/v1/completions", `{"prompt":"p"}`)
	}
	for _, kind := range []string{"view", "view", "select", "anything"} {
		m.Suggestion(kind)
	}
	var got string
	// The last client left before its request was counted.
	for range 500 {
		if got = servetest.Get(t, url+"/metrics"); strings.Contains(got, `autodev_refused_total{reason="cancelled"} 1`) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, want := range []string{
		`autodev_http_requests_total{protocol="openai",route="/v1/completions",status="200"} 2`,
		`autodev_http_requests_total{protocol="openai",route="/v1/completions",status="400"} 1`,
		`autodev_http_requests_total{protocol="openai",route="/v1/completions",status="429"} 1`,
		`autodev_http_requests_total{protocol="openai",route="/v1/completions",status="499"} 1`,
		`autodev_http_requests_total{protocol="openai",route="/v1/completions",status="503"} 1`,
		`autodev_http_request_seconds_count{protocol="openai"} 6`,
		`autodev_time_to_first_text_seconds_count{protocol="openai"} 1`,
		`autodev_queue_wait_seconds_count 2`,
		`autodev_inter_token_seconds_count 2`,
		`autodev_prompt_tokens_total{source="cached"} 2`,
		`autodev_prompt_tokens_total{source="evaluated"} 2`,
		`autodev_generated_tokens_total 6`,
		`autodev_draft_tokens_total{outcome="accepted"} 2`,
		`autodev_draft_tokens_total{outcome="rejected"} 2`,
		`autodev_completions_total{finish="stop"} 2`,
		`autodev_completions_total{finish="length"} 0`,
		`autodev_refused_total{reason="busy"} 1`,
		`autodev_refused_total{reason="shutting_down"} 1`,
		`autodev_refused_total{reason="cancelled"} 1`,
		`autodev_refused_total{reason="unauthorized"} 0`,
		`autodev_suggestion_events_total{type="view"} 2`,
		`autodev_suggestion_events_total{type="select"} 1`,
		`autodev_suggestion_events_total{type="dismiss"} 0`,
		`autodev_model_info{adapter="",device="",model="some/model",weights=""} 1`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	for _, want := range []string{`autodev_build_info{arch="`, "go_goroutines "} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("no line that begins with %s", want)
		}
	}
	if t.Failed() {
		t.Log(regexp.MustCompile(`(?m)^(#|go_|process_|.*_bucket).*\n`).ReplaceAllString(got, ""))
	}
	problems, err := promlint.New(strings.NewReader(got)).Lint()
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "autodev_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// TestBounded: whatever clients send, there are no more series, and nothing of it is in a label.
func TestBounded(t *testing.T) {
	url, m := start(t, &servetest.Fake{})
	send := func(method, path, model string) {
		req, err := http.NewRequest(method, url+path, strings.NewReader(`{"prompt":"secret code","model":"`+model+`","user":"`+model+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+model)
		req.Header.Set("User-Agent", model)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	all := func(i int) {
		name := fmt.Sprintf("secret%d", i)
		for _, path := range []string{"/", "/" + name, "/v1/completions", "/v1/models/" + name, "/metrics", "/healthz?" + name} {
			for _, method := range []string{"GET", "POST", "SECRET" + fmt.Sprint(i)} {
				send(method, path, name)
			}
		}
		m.Suggestion(name)
	}
	all(0)
	before := servetest.Get(t, url+"/metrics")
	for i := range 20 {
		all(i + 1)
	}
	after := servetest.Get(t, url+"/metrics")
	// The page itself is counted after it was sent first.
	series := func(s string) int {
		return len(regexp.MustCompile(`(?m)^autodev_`).FindAllString(s, -1))
	}
	if n, m := series(before), series(after); n != m {
		t.Errorf("%d series have become %d", n, m)
	}
	if strings.Contains(strings.ToLower(after), "secret") {
		t.Error("what a client sent is in a label")
	}
}

func TestSummary(t *testing.T) {
	m := metrics.New(metrics.Options{})
	if s := m.Summary(); s.FirstText != nil || s.Total != nil || s.Requests != 0 {
		t.Errorf("%+v before anything", s)
	}
	m.Observe(wire.Record{Status: 404})
	for i := range 1000 {
		r := wire.Record{Status: 200, Took: time.Duration(i+1) * time.Millisecond, Results: []infer.Result{{PromptIDs: make([]int32, 10), Cached: 4, IDs: make([]int32, 3), Drafted: 2, Accepted: 1}}}
		if i%2 == 0 {
			r.FirstText = time.Duration(i+1) * time.Microsecond
		}
		m.Observe(r)
	}
	s := m.Summary()
	if s.Requests != 1001 || s.Completions != 1000 || s.PromptTokens != 10000 || s.CachedTokens != 4000 || s.GeneratedTokens != 3000 || s.DraftedTokens != 2000 || s.AcceptedTokens != 1000 || s.UptimeSeconds <= 0 {
		t.Errorf("%+v", s)
	}
	// The last 256 took 745 to 1000 ms; the 128th and the 244th are the percentiles.
	if *s.Total != (metrics.Quantiles{P50: 872, P95: 988}) || *s.FirstText != (metrics.Quantiles{P50: 0.871, P95: 0.987}) {
		t.Errorf("total %+v, first text %+v", *s.Total, *s.FirstText)
	}
}

func TestHead(t *testing.T) {
	url, _ := start(t, &servetest.Fake{})
	resp, err := http.Head(url + "/metrics")
	if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%+v, %v", resp, err)
	}
	resp.Body.Close()
}
