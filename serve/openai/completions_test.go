package openai_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"autodev/infer"
	"autodev/serve"
	"autodev/serve/servetest"
)

// choice is what clients read of a choice.
type choice struct {
	Text     string
	Logprobs *logprobs
}

type logprobs struct {
	Tokens        []string
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

// TestConcurrent: clients at the same time get what each gets alone, whole and streamed.
func TestConcurrent(t *testing.T) {
	engine := servetest.RealEngine(t, nil, infer.EngineOptions{Concurrency: 3})
	url, _ := servetest.Start(t, engine, serve.Options{}, nil)
	var bodies []string
	for i := range 12 {
		prompt, err := json.Marshal(strings.Repeat("größe = 1\n", i))
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, fmt.Sprintf(`{"prompt":%s,"suffix":"%s","max_tokens":25,"seed":%d,"temperature":%d,%s`, prompt, strings.Repeat("s", i%3), i, i%2, servetest.Endless))
	}
	type answer struct{ Choices []choice }
	text := func(a answer) string { return a.Choices[0].Text }
	alone := make([]string, len(bodies))
	for i, b := range bodies {
		status, got, _ := servetest.Post(t, url+"/v1/completions", b+"}")
		if status != 200 {
			t.Fatal(got)
		}
		alone[i] = text(servetest.Decode[answer](t, got))
	}
	if slices.Equal(alone[:6], alone[6:]) {
		t.Fatal("all completions are the same; the test would see nothing")
	}
	var wg sync.WaitGroup
	for i, b := range bodies {
		wg.Go(func() {
			_, got, _ := servetest.Post(t, url+"/v1/completions", b+"}")
			if s := text(servetest.Decode[answer](t, got)); s != alone[i] {
				t.Errorf("request %d: %q, alone %q", i, s, alone[i])
			}
		})
		wg.Go(func() {
			_, got, _ := servetest.Post(t, url+"/v1/completions", b+`,"stream":true}`)
			all := servetest.Events(t, strings.NewReader(got))
			var s string
			for _, e := range all[:len(all)-1] {
				s += text(servetest.Decode[answer](t, e))
			}
			if s != alone[i] || all[len(all)-1] != "[DONE]" {
				t.Errorf("stream %d: %q, alone %q", i, s, alone[i])
			}
		})
	}
	wg.Wait()
}

// TestLogprobs: echoed prompt and completion with one entry per token in every list, offsets in characters.
func TestLogprobs(t *testing.T) {
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	type answer struct{ Choices []choice }
	body := `{"prompt":"größe = ","max_tokens":12,"temperature":1,"seed":3,"echo":true,"logprobs":2,` + servetest.Endless
	_, got, _ := servetest.Post(t, url+"/v1/completions", body+"}")
	c := servetest.Decode[answer](t, got).Choices[0]
	l := c.Logprobs
	if l == nil || len(l.Tokens) == 0 || len(l.Tokens) != len(l.TokenLogprobs) || len(l.Tokens) != len(l.TopLogprobs) || len(l.Tokens) != len(l.TextOffset) {
		t.Fatalf("lists of different lengths: %+v", l)
	}
	if l.TokenLogprobs[0] != nil || l.TopLogprobs[0] != nil {
		t.Error("the first token of a prompt has a probability")
	}
	if !strings.HasPrefix(c.Text, "größe = ") {
		t.Errorf("text %q does not begin with the prompt", c.Text)
	}
	runes := []rune(c.Text)
	for i, tok := range l.Tokens {
		if i > 0 && (l.TokenLogprobs[i] == nil || *l.TokenLogprobs[i] > 0 || len(l.TopLogprobs[i]) < 2 || l.TopLogprobs[i][tok] != *l.TokenLogprobs[i]) {
			t.Errorf("token %d: %v in %v", i, l.TokenLogprobs[i], l.TopLogprobs[i])
		}
		// Broken characters become certain, as U+FFFD, with the token after them.
		broken := strings.HasPrefix(tok, `bytes:\x`) || i > 0 && strings.HasPrefix(l.Tokens[i-1], `bytes:\x`)
		if !broken && !strings.HasPrefix(string(runes[l.TextOffset[i]:]), tok) {
			t.Errorf("token %d %q is not at character %d of %q", i, tok, l.TextOffset[i], c.Text)
		}
	}
	_, got, _ = servetest.Post(t, url+"/v1/completions", body+`,"stream":true}`)
	var streamed logprobs
	for _, e := range servetest.Events(t, strings.NewReader(got)) {
		if e == "[DONE]" {
			break
		}
		p := servetest.Decode[answer](t, e).Choices[0].Logprobs
		streamed.Tokens = append(streamed.Tokens, p.Tokens...)
		streamed.TextOffset = append(streamed.TextOffset, p.TextOffset...)
	}
	n := len(l.Tokens) - len(streamed.Tokens)
	if n < 0 || len(streamed.Tokens) != 12 || !slices.Equal(streamed.Tokens, l.Tokens[n:]) || !slices.Equal(streamed.TextOffset, l.TextOffset[n:]) {
		t.Errorf("streamed tokens %q at %v, whole %q at %v", streamed.Tokens, streamed.TextOffset, l.Tokens, l.TextOffset)
	}
}

// TestCachedTokens: a prompt that goes on from the one before is evaluated only where it does, and the answer says so.
func TestCachedTokens(t *testing.T) {
	url, log := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	type answer struct {
		Choices []struct{ Text string }
		Usage   struct {
			PromptTokens        int `json:"prompt_tokens"`
			PromptTokensDetails struct {
				CachedTokens int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
		Timings struct {
			CacheN   int     `json:"cache_n"`
			PromptN  int     `json:"prompt_n"`
			PromptMS float64 `json:"prompt_ms"`
			Rate     float64 `json:"predicted_per_second"`
		}
	}
	ask := func(prefix string) answer {
		_, got, _ := servetest.Post(t, url+"/v1/completions", fmt.Sprintf(`{"prompt":%q,"suffix":"\n    return a\n","max_tokens":4,%s}`, prefix, servetest.Endless))
		return servetest.Decode[answer](t, got)
	}
	if a := ask("def add(a, b):\n"); a.Usage.PromptTokensDetails.CachedTokens != 0 || a.Timings.PromptN != a.Usage.PromptTokens || !(a.Timings.PromptMS > 0 && a.Timings.Rate > 0) {
		t.Errorf("first request: %+v", a)
	}
	a := ask("def add(a, b):\n    if a")
	if n := a.Usage.PromptTokensDetails.CachedTokens; n < a.Usage.PromptTokens-5 || n != a.Timings.CacheN || a.Timings.PromptN != a.Usage.PromptTokens-n {
		t.Errorf("after typing: %+v", a)
	}
	if !strings.Contains(log.String(), "completion0.cached=") {
		t.Errorf("log %s", log)
	}
}

// TestOpenAIClient drives the server with OpenAI's own Python package. AUTODEV_PYTHON names an interpreter that has it.
func TestOpenAIClient(t *testing.T) {
	python := os.Getenv("AUTODEV_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_PYTHON is not set: no interpreter with the openai package")
	}
	url, _ := servetest.Start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), serve.Options{}, nil)
	out, err := exec.CommandContext(t.Context(), python, "testdata/openai_client.py", url+"/v1").CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all checks passed\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
