package typing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// stub is a server that answers every request with the text after its prefix's last character, after some time.
type stub struct {
	mu        sync.Mutex
	asked     []infill
	cancelled []string // prefixes whose clients left
	delay     func(prefix string) time.Duration
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var q infill
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil || r.URL.Path != "/infill" {
		http.Error(w, "wrong", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.asked = append(s.asked, q)
	s.mu.Unlock()
	select {
	case <-r.Context().Done():
		s.mu.Lock()
		s.cancelled = append(s.cancelled, q.Prefix)
		s.mu.Unlock()
	case <-time.After(s.delay(q.Prefix)):
		fmt.Fprintf(w, "data: {\"content\":\"of \",\"stop\":false}\n\ndata: {\"content\":%q,\"stop\":false}\n\n", q.Prefix)
		if q.Prefix != "broken" {
			fmt.Fprintf(w, "data: {\"content\":\"\",\"stop\":true,\"timings\":{\"cache_n\":3,\"prompt_n\":2,\"predicted_n\":%d}}\n\n", q.Tokens)
		}
	}
}

func TestReplay(t *testing.T) {
	s := &stub{delay: func(prefix string) time.Duration {
		if strings.HasSuffix(prefix, "slow") {
			return 10 * time.Second
		}
		return time.Millisecond
	}}
	server := httptest.NewServer(s)
	defer server.Close()
	const ms = time.Millisecond
	trace := Trace{Name: "t", Text: "()", Cursor: 1, Steps: []Step{
		{Delay: 50 * ms, Jump: -1, Insert: "slow", Answer: "x"},          // cancelled
		{Delay: 300 * ms, Jump: -1, Erase: 4, Answer: "x"},               // the next comes before the request
		{Delay: 2 * ms, Jump: -1, Insert: "a", Answer: "bc", Wait: true}, // waited for
		{Delay: 20 * ms, Jump: -1, Insert: "b", Answer: "c"},             // answered before the next
		{Delay: 300 * ms, Jump: -1, Insert: "c", Answer: "x"},            // nobody is there any more
	}}
	expected := map[string]int{}
	counts := []Count{{Prompt: 10, Generated: 20, Reused: 1}, {Prompt: 15, Generated: 40, Reused: 3}}
	done := 0
	runs, err := Replay(t.Context(), []Trace{trace}, []Server{{
		Name: "stub", URL: server.URL, Expect: func(prefix string, ids []int32) { expected[prefix] = len(ids) },
		Count: func(context.Context) (Count, error) {
			c := counts[0]
			counts = counts[1:]
			return c, nil
		},
	}}, Options{Debounce: 30 * ms, Speed: 1, MaxTokens: 2, Scripted: true, Tokens: func(s string) []int32 { return make([]int32, len(s)) }, Progress: func(n, total int) {
		if done = n; total != 5 {
			t.Errorf("%d of %d", n, total)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	run := runs[0]
	var got []string
	for _, s := range run.Samples {
		if s.Answered && (s.Latency < s.Service || s.Step >= 0 && s.Latency < 30*ms || s.Cached != 3 || s.Prompt != 2) {
			t.Errorf("%+v", s)
		}
		got = append(got, fmt.Sprintf("%d wait=%v sent=%v answered=%v %q %d", s.Step, s.Wait, s.Sent, s.Answered, s.Text, s.Useful))
	}
	want := []string{
		`-1 wait=true sent=true answered=true "\n" 0`,
		`0 wait=false sent=true answered=false "" 0`,
		`1 wait=false sent=false answered=false "" 0`,
		`2 wait=true sent=true answered=true "bc" 2`,
		`3 wait=false sent=true answered=true "c" 0`,
		`4 wait=false sent=false answered=false "" 0`,
	}
	if !slices.Equal(got, want) || done != 5 {
		t.Errorf("samples\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if run.Count == nil || *run.Count != (Count{Prompt: 5, Generated: 20, Reused: 2}) {
		t.Errorf("count %+v", run.Count)
	}
	if expected["(a"] != 2 || expected["(ab"] != 1 {
		t.Errorf("tokens told to the server: %v", expected)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var asked []string
	for _, q := range s.asked {
		asked = append(asked, fmt.Sprintf("%s|%s %d %v %v", q.Prefix, q.Suffix, q.Tokens, q.Keep, q.IgnoreEOS))
	}
	if want := []string{"(|) 1 true true", "(slow|) 1 true true", "(a|) 2 true true", "(ab|) 1 true true"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, expected %q", asked, want)
	}
	if !slices.Equal(s.cancelled, []string{"(slow"}) {
		t.Errorf("cancelled %q", s.cancelled)
	}
}

// TestTurns: of two servers each is the first in every other file.
func TestTurns(t *testing.T) {
	var order []string
	var servers []Server
	for _, name := range []string{"a", "b"} {
		server := httptest.NewServer(&stub{delay: func(string) time.Duration {
			order = append(order, name)
			return 0
		}})
		defer server.Close()
		n := int64(0)
		servers = append(servers, Server{Name: name, URL: server.URL, Count: func(context.Context) (Count, error) {
			n++
			return Count{Prompt: n * n}, nil
		}})
	}
	runs, err := Replay(t.Context(), make([]Trace, 3), servers, Options{Speed: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Counts are 1, 4, 9, 16, 25, 36 before and after the three files.
	if got := strings.Join(order, ""); got != "abbaab" || len(runs) != 2 || len(runs[1].Samples) != 3 || runs[1].Samples[2].Trace != 2 || runs[0].Count.Prompt != 3+7+11 {
		t.Errorf("%s, %+v, counted %+v", got, runs[1], runs[0].Count)
	}
}

func TestReplayFails(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too long", http.StatusBadRequest) }))
	defer server.Close()
	o := Options{Speed: 1, MaxTokens: 2}
	_, err := Replay(t.Context(), []Trace{{Name: "t"}}, []Server{{Name: "stub", URL: server.URL}}, o)
	if want := "stub: t: " + server.URL + "/infill: status 400: too long\n"; err == nil || err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Replay(ctx, []Trace{{Name: "t"}}, []Server{{Name: "stub", URL: server.URL}}, o); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestStreamWithoutEnd(t *testing.T) {
	server := httptest.NewServer(&stub{delay: func(string) time.Duration { return 0 }})
	defer server.Close()
	if a, err := newClient(server.URL).ask(t.Context(), infill{Prefix: "whole"}); err != nil || a.Content != "of whole" || a.Timings.Cached != 3 {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := newClient(server.URL).ask(t.Context(), infill{Prefix: "broken"}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%+v %v", a, err)
	}
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "data: {\"error\":{\"code\":500}}\n\n")
	}))
	defer failing.Close()
	if _, err := newClient(failing.URL).ask(t.Context(), infill{}); err == nil || !strings.HasSuffix(err.Error(), `/infill: {"code":500}`) {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	server := httptest.NewServer(&stub{delay: func(string) time.Duration { return 0 }})
	defer server.Close()
	run := &Run{Samples: []Sample{
		{Answered: true, Text: "of a", Generated: 1, prefix: "a"},
		{Answered: false, Text: "of b", prefix: "b"},
		{Answered: true, Text: "another", Generated: 1, prefix: "c"},
		{Answered: true, Text: "another", prefix: "d"}, // reused
		{Answered: true, Text: "of e", prefix: "e"},    // reused
		{Answered: true, Text: "", prefix: "empty"},
	}}
	reference := func(_ context.Context, prefix, _ string, _ int) (string, error) {
		if prefix == "empty" {
			return "", nil
		}
		return "of " + prefix, nil
	}
	c, err := Check(t.Context(), run, Server{URL: server.URL}, reference, 100, Options{MaxTokens: 3})
	if err != nil || *c != (Checked{Computed: 3, ComputedEqual: 2, Reused: 2, ReusedEqual: 1}) {
		t.Errorf("%+v %v", c, err)
	}
	if want := "1 of 3 answers differ from those of an engine without cache and speculation"; c.Err() == nil || c.Err().Error() != want {
		t.Errorf("%v, expected %s", c.Err(), want)
	}
	c, err = Check(t.Context(), run, Server{URL: server.URL}, reference, 100, Options{MaxTokens: 3, Exact: true})
	if want := "2 of 5 answers differ from those of an engine without cache and speculation"; err != nil || c.Err() == nil || c.Err().Error() != want {
		t.Errorf("%v, expected %s (%v)", c.Err(), want, err)
	}
	// A scripted run's server is asked again.
	told := map[string]bool{}
	c, err = Check(t.Context(), run, Server{URL: server.URL, Expect: func(prefix string, ids []int32) { told[prefix] = ids == nil }}, func(_ context.Context, prefix, _ string, _ int) (string, error) {
		return "of " + prefix, nil
	}, 2, Options{MaxTokens: 3, Scripted: true})
	if err != nil || *c != (Checked{Computed: 2, ComputedEqual: 2}) || c.Err() != nil || !told["a"] || !told["d"] {
		t.Errorf("%+v %v, told %v", c, err, told)
	}
}

func TestReport(t *testing.T) {
	const ms = time.Millisecond
	traces := []Trace{{Steps: []Step{{Insert: strings.Repeat("x", 20)}}}}
	run := &Run{Server: "a", Count: &Count{Prompt: 40, Generated: 30, Reused: 1}, Samples: []Sample{
		{Step: -1, Wait: true, Sent: true, Answered: true, Latency: 900 * ms, Prompt: 60, Generated: 4},
		{Step: 0, Wait: true, Sent: true, Answered: true, Latency: 100 * ms, Service: 50 * ms, Cached: 30, Prompt: 2, Generated: 4, Useful: 5},
		{Step: 1, Wait: true, Sent: true, Answered: true, Latency: 200 * ms, Service: 100 * ms, Cached: 8, Generated: 4},
		{Step: 2, Sent: true, Answered: true, Latency: 10 * ms},
		{Step: 3, Sent: true},
		{Step: 4},
	}}
	f := FiguresOf(run, traces)
	other := f
	other.Server, other.P50, other.PromptPerKey, other.Reused = "b", 450, nil, nil
	r := Report{Model: "m", Speed: 1, Debounce: 75 * ms, Tokens: 8, Scripted: true, Figures: []Figures{f, other}, Checked: &Checked{Computed: 5, ComputedEqual: 5, Reused: 3, ReusedEqual: 2}, Traces: traces}
	var b bytes.Buffer
	if err := r.Write(&b, "table"); err != nil {
		t.Fatal(err)
	}
	want := `                                                        a        b  ratio
  time to suggestion, p50                          150 ms   450 ms   3.00
  time to suggestion, p95                          195 ms   195 ms   1.00
  time to suggestion, mean                         150 ms   150 ms   1.00
  from the request, p50                           75.0 ms  75.0 ms   1.00
  from the request, p95                           97.5 ms  97.5 ms   1.00
  first suggestion in a file, mean                 900 ms   900 ms   1.00
  others answered before the next keystroke          50 %     50 %       
  prompt tokens evaluated a keystroke                8.00        –       
  tokens generated a keystroke                       6.00     6.00   1.00
  tokens generated for nobody                          18       18       
  prompt tokens from the cache, in answers         38.0 %   38.0 %       
  suggestions not computed                              1        –       
  characters saved                                   25 %     25 %       
m: 5 keystrokes in 1 files, 2 of them waited for; 75ms after a keystroke the request; typed 1 times as fast as people; suggestions of at most 8 tokens, scripted.
5 of 5 answers are those of an engine without cache and speculation; of 3 that an earlier suggestion gave, 2 are.
`
	if b.String() != want {
		t.Errorf("%s\nexpected\n%s", b.String(), want)
	}
	b.Reset()
	if err := r.Write(&b, "json"); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.Figures[0].P50 != 150 || *back.Figures[0].Wasted != 18 || back.Figures[1].Reused != nil {
		t.Errorf("%v %s", err, b.String())
	}
	if err := r.Write(&b, "yaml"); err == nil || err.Error() != `format "yaml": expected one of table, json` {
		t.Error(err)
	}
	if quantile(nil, 0.5) != 0 || quantile([]float64{3}, 0.95) != 3 {
		t.Error("quantiles")
	}
}

func TestLlama(t *testing.T) {
	const text = "# HELP x\nllamacpp:prompt_tokens_total 12\nllamacpp:tokens_predicted_total 3.4e+01\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	defer server.Close()
	if c, err := CountLlama(server.URL)(t.Context()); err != nil || c != (Count{Prompt: 12, Generated: 34}) {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := metric(text, "llamacpp:other"); err == nil || err.Error() != "metric llamacpp:other: missing" {
		t.Error(err)
	}
	for program, want := range map[string]string{"false": "llama.cpp's server ended (exit status 1): ", "a-program-that-is-not-there": "llama.cpp's server: "} {
		if _, err := StartLlama(t.Context(), LlamaOptions{Program: program}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", program, err)
		}
	}
}
