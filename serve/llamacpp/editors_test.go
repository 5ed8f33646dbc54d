package llamacpp_test

import (
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"autodev/infer"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// send posts a body of testdata as the editors' HTTP client does, with a bearer token that is empty.
func send(t *testing.T, url, file string) (status int, answer string) {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", file+".json"))
	if err != nil {
		t.Fatal(err)
	}
	resp, answer := servetest.Send(t, http.MethodPost, url, string(body), "Content-Type", "application/json", "Authorization", "Bearer ")
	return resp.StatusCode, answer
}

const (
	prefixSent = "import os\nimport sys\n\n\nclass Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n        self.items.append(item)\n\n    def pop(self):\n        return self.items.pop()\n\n    def is_empty(self):\n"
	suffixSent = "\n\n\ndef main():\n    s = Stack()\n    s.push(1)\n    print(s.pop())\n\n\nif __name__ == \"__main__\":\n    main()\n"
)

// TestEditorsReachEngine: what editors send is understood field by field.
func TestEditorsReachEngine(t *testing.T) {
	var got []infer.Request
	url := start(t, servetest.Asked(&got), func(m *wire.Model) {
		m.Shape, m.Heal = infer.Shape{Lines: infer.AutoLines, NoOverlap: true, NoLoops: true}, true
	})
	const ms = time.Millisecond
	fill := infer.Request{
		Prompt:    infer.Prompt{Prefix: prefixSent + "        retu", Suffix: suffixSent, FIM: infer.FIMAlways, Heal: true},
		MaxTokens: 128, Sampling: infer.Sampling{TopK: 40, TopP: 0.9}, Reuse: true,
		Shape:      infer.Shape{Lines: infer.AutoLines, NoOverlap: true, NoLoops: true, MinIndent: 8},
		PromptTime: 500 * ms, DecodeTime: 250 * ms,
	}
	warm := infer.Request{
		Prompt:   infer.Prompt{FIM: infer.FIMAlways, Heal: true},
		Sampling: infer.Sampling{}, Reuse: true, Class: infer.Background, DecodeTime: ms,
		Shape: infer.Shape{Lines: infer.AutoLines, NoOverlap: true, NoLoops: true},
	}
	for file, change := range map[string]func(r *infer.Request){
		"llama.vim-infill": func(*infer.Request) {},
		"llama.vim-speculative": func(r *infer.Request) {
			r.Prompt.Prefix, r.Shape.MinIndent, r.DecodeTime = prefixSent+"        return self.pop()", 0, 1000*ms
		},
		"llama.vim-extra": func(r *infer.Request) { r.Prompt.Files = make([]infer.File, 2) },
		"llama.vim-warm-up": func(r *infer.Request) {
			*r = warm
			r.Prompt.Files = make([]infer.File, 1)
		},
		"llama.vscode-warm-up": func(r *infer.Request) {
			*r = warm
			r.Prompt.Files, r.Sampling.Temperature = make([]infer.File, 1), 1
		},
		"llama.vscode-infill": func(r *infer.Request) {
			r.Prompt.Files, r.Sampling.TopP, r.DecodeTime = make([]infer.File, 1), 0.99, 500*ms
		},
	} {
		want := fill
		change(&want)
		got = nil
		status, answer := send(t, url+"/infill", file)
		if status != 200 || len(got) == 0 {
			t.Errorf("%s: %d %s", file, status, answer)
			continue
		}
		r := got[0]
		if n := len(want.Prompt.Files); n > 0 && len(r.Prompt.Files) == n {
			// The newest comes last, and is the most relevant.
			newest, oldest := r.Prompt.Files[0], r.Prompt.Files[n-1]
			if n == 2 && (newest.Name != "calc.py" || !strings.HasPrefix(newest.Text, "import os") || oldest.Name != "shapes.py") {
				t.Errorf("%s: files %+v", file, r.Prompt.Files)
			}
			want.Prompt.Files = r.Prompt.Files
		}
		if r.Sampling.Seed = 0; len(r.Stop) == 0 {
			r.Stop = nil
		}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("%s: engine got %+v\nexpected %+v", file, r, want)
		}
		if choices := map[bool]int{true: 3, false: 1}[file == "llama.vscode-infill"]; len(got) != choices {
			t.Errorf("%s: %d choices", file, len(got))
		}
	}
}

// TestEditorsAreAnswered: with a real model, in the form that each looks for.
func TestEditorsAreAnswered(t *testing.T) {
	url := start(t, servetest.RealEngine(t, nil, infer.EngineOptions{}), func(m *wire.Model) { m.Chat = servetest.Chat{} })
	// llama.vim looks for the key and its text without a space between them, on one line.
	vim := regexp.MustCompile(`^\{.*"content":".*\}\n$`)
	for _, file := range []string{"llama.vim-infill", "llama.vim-speculative", "llama.vim-extra"} {
		status, got := send(t, url+"/infill", file)
		fields := servetest.Decode[map[string]any](t, got)
		if status != 200 || !vim.MatchString(got) || len(fields) != 11 {
			t.Errorf("%s: %d %s", file, status, got)
		}
		for _, name := range []string{"timings/prompt_n", "timings/prompt_ms", "timings/prompt_per_second", "timings/predicted_n", "timings/predicted_ms", "timings/predicted_per_second", "tokens_cached"} {
			if _, ok := fields[name].(float64); !ok {
				t.Errorf("%s: %s is %v", file, name, fields[name])
			}
		}
	}
	if status, got := send(t, url+"/infill", "llama.vim-warm-up"); status != 200 || got != "{}\n" {
		t.Errorf("%d %s", status, got)
	}
	type completion struct {
		Content      *string
		Truncated    *bool
		TokensCached *int `json:"tokens_cached"`
		Timings      map[string]float64
		Settings     struct {
			Context int `json:"n_ctx"`
		} `json:"generation_settings"`
	}
	status, got := send(t, url+"/infill", "llama.vscode-infill")
	all := servetest.Decode[[]completion](t, got)
	if status != 200 || len(all) != 3 {
		t.Fatalf("%d %s", status, got)
	}
	for _, c := range all {
		if c.Content == nil || c.Truncated == nil || c.TokensCached == nil || c.Settings.Context == 0 || c.Timings["prompt_per_second"] <= 0 {
			t.Errorf("%s", got)
		}
	}
	if status, got := send(t, url+"/infill", "llama.vscode-warm-up"); status != 200 || servetest.Decode[completion](t, got).Content == nil {
		t.Errorf("%d %s", status, got)
	}
	if status, got := send(t, url+"/tokenize", "llama.vscode-tokenize"); status != 200 || !strings.HasPrefix(got, `{"tokens":[`) {
		t.Errorf("%d %s", status, got)
	}
	if status, got := send(t, url+"/v1/chat/completions", "llama.vim-instruct-warm-up"); status != 200 {
		t.Errorf("%d %s", status, got)
	}
	status, got = send(t, url+"/v1/chat/completions", "llama.vim-instruct")
	if status != 200 || !strings.Contains(got, `"delta":{`) || !strings.HasSuffix(got, "data: [DONE]\n\n") {
		t.Errorf("%d %s", status, got)
	}
}
