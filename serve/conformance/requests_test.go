package conformance

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/models"
	"autodev/serve/servetest"
)

// sent returns the body that an editor sends.
func sent(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "llamacpp", "testdata", file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ask sends a request as llama.vim does, whose bearer token is empty, and returns the answer, which must be a good one.
func (s *suite) ask(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer ")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %s", path, resp.StatusCode, err, answer)
	}
	return string(answer)
}

// filled returns the engine's own answer to a captured request, without its bounds in time.
func (s *suite) filled(t *testing.T, body string) string {
	t.Helper()
	r := servetest.Decode[struct {
		Prefix string                            `json:"input_prefix"`
		Suffix string                            `json:"input_suffix"`
		Prompt string                            `json:"prompt"`
		Tokens int                               `json:"n_predict"`
		Indent int                               `json:"n_indent"`
		Extra  []struct{ Filename, Text string } `json:"input_extra"`
	}](t, body)
	p := infer.Prompt{Prefix: r.Prefix + r.Prompt, Suffix: r.Suffix, FIM: infer.FIMAlways}
	for _, e := range r.Extra {
		p.Files = append(p.Files, infer.File{Name: e.Filename, Text: e.Text})
	}
	e, _ := embedded(t)
	results, err := e.Complete(t.Context(), []infer.Request{{Prompt: p, MaxTokens: r.Tokens, Shape: infer.Shape{MinIndent: r.Indent}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return results[0].Text
}

// begins says whether a completion that may have been bounded in time is what the engine says.
func begins(text, whole string) bool {
	return text == whole || strings.TrimSpace(text) != "" && strings.HasPrefix(whole, text)
}

// TestLlamaVim replays what llama.vim sends while somebody works, and reads the answers as it does.
func TestLlamaVim(t *testing.T) {
	s := start(t, models.Tiny)
	if got := s.ask(t, http.MethodPost, "/infill", sent(t, "llama.vim-warm-up")); got != "{}\n" {
		t.Errorf("warm-up: %q", got)
	}
	content := regexp.MustCompile(`"content"\s*:`)
	for _, file := range []string{"llama.vim-infill", "llama.vim-speculative", "llama.vim-extra"} {
		body := sent(t, file)
		got := s.ask(t, http.MethodPost, "/infill", body)
		// Vim gets an answer line by line, and takes a line with this for one.
		if strings.Count(got, "\n") != 1 || !content.MatchString(got) {
			t.Errorf("%s: %q is no line with a content", file, got)
		}
		answer := servetest.Decode[map[string]any](t, got)
		text, _ := answer["content"].(string)
		if want := s.filled(t, body); !begins(text, want) {
			t.Errorf("%s: %q, the engine says %q", file, text, want)
		}
		for _, key := range []string{"timings/prompt_n", "timings/prompt_ms", "timings/prompt_per_second", "timings/predicted_n", "timings/predicted_ms", "timings/predicted_per_second", "tokens_cached"} {
			if _, ok := answer[key].(float64); !ok {
				t.Errorf("%s: %s is %v", file, key, answer[key])
			}
		}
	}
	// An instruction.
	s.ask(t, http.MethodPost, "/v1/chat/completions", sent(t, "llama.vim-instruct-warm-up"))
	body := sent(t, "llama.vim-instruct")
	body = strings.Replace(body, "{", `{"max_tokens":30,`, 1)
	var said string
	for _, line := range strings.Split(s.ask(t, http.MethodPost, "/v1/chat/completions", body), "\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		for _, c := range servetest.Decode[struct {
			Choices []struct{ Delta struct{ Content string } }
		}](t, data).Choices {
			said += c.Delta.Content
		}
	}
	if said == "" {
		t.Error("no answer to an instruction")
	}
}

// TestLlamaVSCode replays what llama.vscode sends, and reads the answers as it does.
func TestLlamaVSCode(t *testing.T) {
	s := start(t, models.Tiny)
	if h := servetest.Decode[struct{ Status string }](t, s.ask(t, http.MethodGet, "/health", "")); h.Status != "ok" {
		t.Errorf("health: %+v", h)
	}
	props := servetest.Decode[struct {
		Settings struct {
			Context int `json:"n_ctx"`
		} `json:"default_generation_settings"`
	}](t, s.ask(t, http.MethodGet, "/props?model="+models.Tiny, ""))
	if props.Settings.Context <= 0 {
		t.Errorf("props: %+v", props)
	}
	s.ask(t, http.MethodPost, "/infill", sent(t, "llama.vscode-warm-up"))
	body := sent(t, "llama.vscode-infill")
	all := servetest.Decode[[]struct {
		Content   *string
		Cached    *int `json:"tokens_cached"`
		Truncated *bool
		Timings   map[string]float64
		Settings  struct {
			Context int `json:"n_ctx"`
		} `json:"generation_settings"`
	}](t, s.ask(t, http.MethodPost, "/infill", body))
	if len(all) != 3 {
		t.Fatalf("%d of 3 completions", len(all))
	}
	want := s.filled(t, body)
	for i, a := range all {
		// The first is the one that is most probable; the others are drawn, so as to be others.
		if a.Content == nil || i == 0 && !begins(*a.Content, want) || a.Cached == nil || a.Truncated == nil || a.Settings.Context != props.Settings.Context {
			t.Errorf("completion %d: %+v, the engine says %q", i, a, want)
		}
		for _, key := range []string{"prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms", "predicted_per_second"} {
			if _, ok := a.Timings[key]; !ok {
				t.Errorf("completion %d: no timing %s", i, key)
			}
		}
	}
	tokens := servetest.Decode[struct{ Tokens []int32 }](t, s.ask(t, http.MethodPost, "/tokenize", sent(t, "llama.vscode-tokenize")))
	ids, err := json.Marshal(map[string]any{"tokens": tokens.Tokens})
	if err != nil {
		t.Fatal(err)
	}
	back := servetest.Decode[struct{ Content string }](t, s.ask(t, http.MethodPost, "/detokenize", string(ids)))
	if asked := servetest.Decode[struct{ Content string }](t, sent(t, "llama.vscode-tokenize")); len(tokens.Tokens) == 0 || back.Content != asked.Content {
		t.Errorf("tokens %v are %q, expected %q", tokens.Tokens, back.Content, asked.Content)
	}
	prompt := servetest.Decode[struct{ Prompt string }](t, s.ask(t, http.MethodPost, "/apply-template", `{"messages":[{"role":"user","content":"hello"}]}`))
	if !strings.Contains(prompt.Prompt, "hello") {
		t.Errorf("template: %q", prompt.Prompt)
	}
}
