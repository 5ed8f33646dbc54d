package metrics

import (
	"errors"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"autodev/infer"
	"autodev/serve/wire"
)

// Options of Metrics.
type Options struct {
	Version string       // of the program
	Service wire.Service // whose engines are asked; nil: none
}

// Metrics are what a server has done. They are safe for use by any number of goroutines.
type Metrics struct {
	registry *prometheus.Registry
	recent   *recent

	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	queue       prometheus.Observer
	firstText   *prometheus.HistogramVec
	interToken  prometheus.Observer
	prompt      *prometheus.CounterVec
	generated   prometheus.Counter
	drafted     *prometheus.CounterVec
	completions *prometheus.CounterVec
	refused     *prometheus.CounterVec
	suggestions *prometheus.CounterVec
}

// Buckets, in seconds. People notice a tenth of a second, and leave after ten.
var (
	waits  = []float64{.001, .0025, .005, .01, .025, .05, .1, .15, .25, .5, .75, 1, 2.5, 5, 10, 30, 60}
	tokens = []float64{.0005, .001, .0025, .005, .01, .02, .03, .05, .075, .1, .15, .25, .5, 1}
)

// New returns metrics in which nothing has happened yet.
func New(o Options) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), recent: newRecent(time.Now)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "autodev_" + name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "autodev_" + name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.requests = counter("http_requests_total", "HTTP requests answered; status 499: the client went away before.", "protocol", "route", "status")
	m.seconds = histogram("http_request_seconds", "From a request's beginning to the end of its answer.", waits, "protocol")
	m.queue = histogram("queue_wait_seconds", "How long completions waited for their turn.", waits).WithLabelValues()
	m.firstText = histogram("time_to_first_text_seconds", "From a request's beginning to the first text of its answer, of streams.", waits, "protocol")
	m.interToken = histogram("inter_token_seconds", "Mean time from one token of a completion to the next.", tokens).WithLabelValues()
	m.prompt = counter("prompt_tokens_total", "Tokens of prompts, by whether they were evaluated or had been before.", "source")
	m.generated = counter("generated_tokens_total", "Tokens generated.").WithLabelValues()
	m.drafted = counter("draft_tokens_total", "Guessed tokens that were evaluated, by outcome.", "outcome")
	m.completions = counter("completions_total", "Completions, by why they ended.", "finish")
	m.refused = counter("refused_total", "Requests that were turned away or given up, by reason.", "reason")
	m.suggestions = counter("suggestion_events_total", "What editors say became of suggestions.", "type")
	// Series that exist from the beginning, so that rates see the first event.
	for v, values := range map[*prometheus.CounterVec][]string{
		m.prompt: {"evaluated", "cached"}, m.drafted: {"accepted", "rejected"}, m.refused: refusals, m.suggestions: suggestionTypes,
		m.completions: {string(infer.FinishStop), string(infer.FinishLength), string(infer.FinishCancel)},
	} {
		for _, value := range values {
			v.WithLabelValues(value)
		}
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "autodev_build_info", Help: "1; the program's version."}, []string{"version", "goversion", "os", "arch"})
	build.WithLabelValues(o.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH).Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if o.Service != nil {
		m.registry.MustRegister(&engines{o.Service})
	}
	return m
}

var (
	refusals        = []string{"busy", "rate_limit", "unauthorized", "forbidden", "shutting_down", "cancelled"}
	suggestionTypes = []string{"view", "select", "dismiss"}
)

// Protocol returns the route GET /metrics.
func (m *Metrics) Protocol() *wire.Protocol {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return &wire.Protocol{Name: "metrics", Fault: wire.OpenAIFault, Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/metrics", Handle: func(c *wire.Call) error {
			h.ServeHTTP(c.W, c.R)
			return nil
		}},
	}}
}

// Observe counts a call that has ended.
func (m *Metrics) Observe(r wire.Record) {
	protocol := r.Protocol
	if protocol == "" {
		protocol = "none"
	}
	m.requests.WithLabelValues(protocol, r.Route, strconv.Itoa(r.Status)).Inc()
	m.seconds.WithLabelValues(protocol).Observe(r.Took.Seconds())
	if reason := refusal(r); reason != "" {
		m.refused.WithLabelValues(reason).Inc()
	}
	if r.FirstText > 0 {
		m.firstText.WithLabelValues(protocol).Observe(r.FirstText.Seconds())
	}
	for _, c := range r.Results {
		m.completion(c)
	}
	m.recent.add(r)
}

func (m *Metrics) completion(c infer.Result) {
	m.queue.Observe(c.Timings.Queue.Seconds())
	m.prompt.WithLabelValues("cached").Add(float64(c.Cached))
	m.prompt.WithLabelValues("evaluated").Add(float64(max(0, len(c.PromptIDs)-c.Cached)))
	m.generated.Add(float64(len(c.IDs)))
	m.drafted.WithLabelValues("accepted").Add(float64(c.Accepted))
	m.drafted.WithLabelValues("rejected").Add(float64(max(0, c.Drafted-c.Accepted)))
	if n := len(c.IDs); n > 1 {
		m.interToken.Observe(c.Timings.Decode.Seconds() / float64(n-1))
	}
	if c.FinishReason != "" {
		m.completions.WithLabelValues(string(c.FinishReason)).Inc()
	}
}

// refusal says why a call got no answer, in one of refusals; "" where it got one or was at fault itself.
func refusal(r wire.Record) string {
	var e *wire.Error
	switch errors.As(r.Err, &e); r.Status {
	case http.StatusTooManyRequests:
		if e != nil && e.Code == "rate_limit_exceeded" {
			return "rate_limit"
		}
		return "busy"
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case wire.StatusClientLeft:
		return "cancelled"
	case http.StatusServiceUnavailable:
		if errors.Is(r.Err, wire.ErrShutdown) || e != nil && e.Code == "shutting_down" {
			return "shutting_down"
		}
		return "busy"
	}
	return ""
}

// Suggestion counts what became of a suggestion: "view", "select" or "dismiss"; others are not counted.
func (m *Metrics) Suggestion(kind string) {
	for _, k := range suggestionTypes {
		if k == kind {
			m.suggestions.WithLabelValues(k).Inc()
		}
	}
}
