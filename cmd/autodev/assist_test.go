package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// answering is a stand-in for a service that speaks OpenAI's protocol: it streams an answer, after it has failed a number of times with a status.
func answering(t *testing.T, answer string, failures int, status int) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(requests.Add(1))
		if r.Header.Get("Authorization") != "Bearer sesame" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":{"message":"who are you"}}`)
			return
		}
		if n <= failures {
			w.Header().Set("Retry-After-Ms", "1")
			w.WriteHeader(status)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range strings.SplitAfter(answer, "\n") {
			b, _ := json.Marshal(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]string{"content": piece}}}})
			fmt.Fprintf(w, "data: %s\n\n", b)
		}
		if strings.HasSuffix(answer, "…") {
			return // the stream breaks off
		}
		fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}`+"\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1", requests
}

const stack = "class Stack:\r\n    def push(self, x):\r\n        self.items.append(x)\r\n\r\n    def pop(self):\r\n        return self.items.pop()\r\n"

func TestAssistExternal(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AUTODEV_TEST_KEY", "sesame")
	configs := 0
	config := func(url, more string) string {
		configs++
		return writeText(t, filepath.Join(dir, fmt.Sprintf("assist-%d.yaml", configs)), "backends:\n  - name: hosted\n    base_url: "+url+"\n    model: m-1\n    key_env: AUTODEV_TEST_KEY\n    timeout_seconds: 20\n"+more+
			"default: hosted\n")
	}
	file := writeText(t, filepath.Join(dir, "stack.py"), stack)
	url, requests := answering(t, "Here:\n```python\ndef pop(self):\n    if not self.items:\n        raise IndexError('empty')\n    return self.items.pop()\n```\nDone.", 1, http.StatusServiceUnavailable)
	c := config(url, "")
	const changed = "    def pop(self):\r\n        if not self.items:\r\n            raise IndexError('empty')\r\n        return self.items.pop()\r\n"
	if out := must(t, "assist", "add-input-checks", "--file", file, "--lines", "5:6", "--assist", c); out != changed {
		t.Errorf("found %q, expected %q", out, changed)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("found %d requests, expected one that failed and one more", n)
	}
	var got assistOutput
	if err := json.Unmarshal([]byte(must(t, "assist", "add-input-checks", "--file", file, "--lines", "5:6", "--assist", c, "--format", "json", "--apply")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Applied != file || got.Edit == nil || got.Edit.NewText != changed || got.Usage.TotalTokens != 17 || got.Finish != "stop" || got.Model != "m-1" || got.Edit.Range.Start.Line != 4 {
		t.Errorf("found %+v", got)
	}
	want := strings.Replace(stack, "    def pop(self):\r\n        return self.items.pop()\r\n", changed, 1)
	if b, err := os.ReadFile(file); err != nil || string(b) != want {
		t.Errorf("found the file %q (%v), expected %q", b, err, want)
	}
	if out := must(t, "assist", "write-tests", "--file", file, "--assist", c, "--apply"); out != filepath.Join(dir, "test_stack.py")+": written\n" {
		t.Errorf("found %q", out)
	}
	html, _ := answering(t, "Uses `List<int>` and <b>.\n", 0, 0)
	if out := must(t, "assist", "explain", "--file", file, "--assist", config(html, ""), "--format", "html"); out != "<p>Uses <code>List&lt;int&gt;</code> and &lt;b&gt;.</p>\n" {
		t.Errorf("found %q", out)
	}

	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	broken, _ := answering(t, "```python\ndef pop(self):\n    …", 0, 0)
	talk, _ := answering(t, "I am sorry, but I cannot help you with that.", 0, 0)
	failing, _ := answering(t, "", 99, http.StatusTooManyRequests)
	for _, f := range []struct {
		name, config, key string
		args              []string
		code              int
		want              string
	}{
		{name: "broken stream", config: config(broken, ""), code: 1, want: "improve: backend hosted: the answer broke off"},
		{name: "no code", config: config(talk, ""), code: 1, want: "improve: the model's answer holds no code: nothing was changed"},
		{name: "429", config: config(failing, "    retries: 1\n"), code: 1, want: "improve: backend hosted: 429: too many requests: Too Many Requests"},
		{name: "401", config: config(url, ""), key: "wrong", code: 1, want: "improve: backend hosted: 401: the key was refused: who are you"},
		{name: "no key", config: config(url, ""), key: " ", code: 1, want: "backends.hosted: key_env: the environment variable AUTODEV_TEST_KEY is not set, expected an API key"},
		{name: "local only", config: config(url, ""), args: []string{"--local-only"}, code: 2, want: "--local-only: backends: found hosted, expected none: only local models may be used"},
		{name: "typo", config: writeText(t, filepath.Join(dir, "typo.yaml"), "defualt: local\n"), code: 2, want: filepath.Join(dir, "typo.yaml") + `:1: found unknown key "defualt", expected one of functions, local_only, default, backends, use`},
	} {
		t.Setenv("AUTODEV_TEST_KEY", cmp.Or(f.key, "sesame"))
		o := autodev(t, "", append([]string{"assist", "improve", "--file", file, "--lines", "5:6", "--apply", "--assist", f.config}, f.args...)...)
		if o.code != f.code || o.out != "" || lastLine(o.err) != "autodev: "+f.want {
			t.Errorf("%s: exit code %d, %q, %q, expected %d, %q", f.name, o.code, o.out, o.err, f.code, f.want)
		}
		if now, err := os.ReadFile(file); err != nil || string(now) != string(before) {
			t.Errorf("%s: the file has changed (%v)", f.name, err)
		}
	}
}

// TestAssistLocal: the embedded model was not tuned to follow instructions and says little, but it answers.
func TestAssistLocal(t *testing.T) {
	dir := t.TempDir()
	file := writeText(t, filepath.Join(dir, "stack.py"), stack)
	if out := must(t, "assist", "explain", "--file", file, "--local-only", "--threads", "1"); !strings.HasPrefix(out, "This code") {
		t.Errorf("found %q", out)
	}
	functions := filepath.Join(dir, "functions")
	writeText(t, filepath.Join(functions, "shout.md"), "---\nname: shout\noutput: prose\nmax_tokens: 4\n---\nShout.\n{{define \"base\"}}{{.Selection}}\ndef {{end}}")
	c := writeText(t, filepath.Join(dir, "assist.yaml"), "functions: "+functions+"\nlocal_only: true\n")
	var got, again assistOutput
	for _, o := range []*assistOutput{&got, &again} {
		if err := json.Unmarshal([]byte(must(t, "assist", "shout", "--assist", c, "--file", file, "--lines", "1", "--format", "json", "--threads", "1")), o); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(got.Text, "def") || got.Model != "autodev-tiny" || got.Usage.CompletionTokens == 0 || got.Usage.CompletionTokens > 4 || got.Text != again.Text {
		t.Errorf("found %+v, then %+v", got, again)
	}
	list := must(t, "assist", "--list", "--assist", c)
	for _, name := range []string{"shout", "explain", "review", "find-problems", "add-input-checks", "improve", "document", "write-tests"} {
		if !strings.Contains(list, "\n"+name+" ") {
			t.Errorf("%s is not in the list %s", name, list)
		}
	}
	if text := must(t, "assist", "--show", "explain"); !strings.HasPrefix(text, "---\nname: explain\n") {
		t.Errorf("found %q", text)
	}
}

func TestAssistMisuse(t *testing.T) {
	file := writeText(t, filepath.Join(t.TempDir(), "f.py"), "x = 1\n")
	for want, args := range map[string][]string{
		"assist: the name of a function is missing; --list shows them":        {"assist", "--file", file},
		`assist: there is no function "nope"; --list shows them`:              {"assist", "nope", "--file", file},
		`assist: found argument "more", expected one name and flags`:          {"assist", "explain", "more", "--file", file},
		"--file is missing, expected a file with code":                        {"assist", "explain"},
		"--format pdf: expected text, html or json":                           {"assist", "explain", "--file", file, "--format", "pdf"},
		"--apply: explain writes prose, expected a function that writes code": {"assist", "explain", "--file", file, "--apply"},
		"--lines 2:1: expected FIRST:LAST, two line numbers from 1":           {"assist", "explain", "--file", file, "--lines", "2:1"},
		"--lines x: expected FIRST:LAST, two line numbers from 1":             {"assist", "explain", "--file", file, "--lines", "x"},
		"--lines: found 1:9, expected lines of " + file + ", which has 1":     {"assist", "explain", "--file", file, "--lines", "1:9"},
		`--backend: found "cloud", expected one of local`:                     {"assist", "explain", "--file", file, "--backend", "cloud"},
		"--show nope: expected the name of a built-in function":               {"assist", "--show", "nope"},
	} {
		refused(t, autodev(t, "", args...), exitMisuse, want)
	}
	refused(t, autodev(t, "", "assist", "explain", "--file", file+".none"), exitFailure, "--file: stat "+file+".none: no such file or directory")
}
