package page_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"autodev/configs"
	"autodev/infer"
	"autodev/serve"
	"autodev/serve/assist"
	"autodev/serve/guard"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// suggesting is an engine that suggests a sum, in three parts, and notes what it was asked.
func suggesting(asked chan<- infer.Request) *servetest.Fake {
	parts := []string{"sum(end - start", " for start, end", " in merge(intervals))"}
	return &servetest.Fake{Do: func(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		select {
		case asked <- reqs[0]:
		default:
		}
		for i, p := range parts {
			c := infer.Chunk{Text: p}
			if i == len(parts)-1 {
				c.FinishReason = infer.FinishStop
			}
			if err := emit(0, c); err != nil {
				return nil, err
			}
		}
		return []infer.Result{{Text: strings.Join(parts, ""), PromptIDs: make([]int32, 96), Cached: 90, IDs: make([]int32, 14), Drafted: 8, Accepted: 5, FinishReason: infer.FinishStop}}, nil
	}}
}

const suggested = "sum(end - start for start, end in merge(intervals))"

func TestCompletionInBrowser(t *testing.T) {
	asked := make(chan infer.Request, 100)
	events := make(chan string, 100)
	url := start(t, suggesting(asked), eventsOf(events), assisting(nil))
	b := open(t, url)
	before := value[string](b, text)
	b.ctrl(" ")
	b.until(ghost + ` === "` + suggested + `"`)
	if r := <-asked; r.Prompt.Prefix != before || r.Prompt.Filename != "intervals.py" || r.Session == "" || r.Shape.Lines != infer.AutoLines {
		t.Errorf("asked %+v", r)
	}
	if got := value[string](b, text); got != before {
		t.Errorf("a suggestion changed the text: %q", got)
	}
	if got := <-events; got != "view" {
		t.Errorf("event %s, expected view", got)
	}
	if os.Getenv("AUTODEV_SCREENSHOTS") != "" { // with something to be seen of what the server does
		for i := range 8 {
			for range i % 4 {
				servetest.Post(t, url+"/v1/completions", `{"prompt":"p","stream":true}`)
			}
			time.Sleep(2 * time.Second)
		}
	}
	b.shot("wide-light", 1280, 860, false)
	b.shot("wide-dark", 1280, 860, true)
	b.shot("narrow-light", 390, 844, false)
	b.shot("narrow-dark", 390, 844, true)
	b.run(chromedp.EmulateReset())
	for len(asked) > 0 {
		<-asked
	}

	// One word, typing along, then the rest; none of it asks again.
	b.ctrl(kb.ArrowRight)
	b.until(text + `.endsWith("return sum") && ` + ghost + ` === "` + strings.TrimPrefix(suggested, "sum") + `"`)
	b.run(chromedp.KeyEvent("("))
	b.until(text + `.endsWith("return sum(") && ` + ghost + ` === "` + strings.TrimPrefix(suggested, "sum(") + `"`)
	b.run(chromedp.KeyEvent(kb.Tab))
	b.until(text + ` === ` + quote(before+suggested))
	if got := <-events; got != "select" {
		t.Errorf("event %s, expected select", got)
	}
	if n := len(asked); n != 0 {
		t.Errorf("%d more requests for what had been suggested", n)
	}
	// What was taken can be undone.
	b.ctrl("z")
	b.until(text + ` !== ` + quote(before+suggested))

	// Another key than the suggested one asks anew; Escape dismisses; typing asks by itself.
	b.run(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent("x"))
	b.until(ghost + ` === "` + suggested + `"`)
	b.run(chromedp.KeyEvent(kb.Escape))
	b.until(ghost + ` === ""`)
	// Without a suggestion Tab indents, and after Escape it leaves.
	length := value[int](b, text+".length")
	b.run(chromedp.KeyEvent(kb.Tab))
	b.until(fmt.Sprintf(`%s.length === %d`, text, length+4))
	b.run(chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent(kb.Tab))
	b.until(`document.activeElement !== document.getElementById("code")`)
	b.well()
}

// TestSuggestionInTheMiddle: the suffix goes to the model, and the suggestion stands where it belongs.
func TestSuggestionInTheMiddle(t *testing.T) {
	asked := make(chan infer.Request, 100)
	b := open(t, start(t, suggesting(asked), assisting(nil)))
	b.run(do(`{ const a = document.getElementById("code"); a.value = "a = (1)\nb = # twelve\nc"; a.setSelectionRange(12, 12); }`))
	b.ctrl(" ")
	b.until(ghost + ` === "` + suggested + `"`)
	if r := <-asked; r.Prompt.Prefix != "a = (1)\nb = " || r.Prompt.Suffix != "# twelve\nc" {
		t.Errorf("asked for the middle of %q and %q", r.Prompt.Prefix, r.Prompt.Suffix)
	}
	if got := value[string](b, `document.getElementById("mirror").textContent`); got != "a = (1)\nb = "+suggested+"# twelve\nc\n" {
		t.Errorf("shown: %q", got)
	}
	b.well()
}

// TestCancelInBrowser: a key ends the request under way.
func TestCancelInBrowser(t *testing.T) {
	began, ended := make(chan struct{}, 10), make(chan error, 10)
	b := open(t, start(t, &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if err := emit(0, infer.Chunk{Text: "never ends"}); err != nil {
			return nil, err
		}
		began <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}}, assisting(nil)))
	b.ctrl(" ")
	b.until(ghost + ` === "never ends"`)
	<-began
	b.run(chromedp.KeyEvent(kb.Escape))
	b.until(ghost + ` === ""`)
	select {
	case err := <-ended:
		if err != context.Canceled {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the server was not told")
	}
	b.well()
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// eventsOf is a protocol that takes events.
func eventsOf(all chan<- string) *wire.Protocol {
	return &wire.Protocol{Name: "events", Routes: []wire.Route{{Method: http.MethodPost, Path: "/v1/events", Claims: func(*wire.Call) bool { return true }, Handle: func(c *wire.Call) error {
		f, err := c.Fields()
		if err != nil {
			return err
		}
		all <- f.Text("type", "")
		c.W.WriteHeader(http.StatusOK)
		return nil
	}}}}
}

// assisting is a protocol with two functions: one explains, one changes code.
func assisting(release <-chan struct{}) *wire.Protocol {
	stream := func(c *wire.Call, parts ...any) error {
		s := c.Stream(wire.SSE, "")
		for i, p := range parts {
			if i == 1 && release != nil {
				<-release
			}
			if err := s.Send(p); err != nil {
				return err
			}
		}
		return nil
	}
	delta := func(s string) any { return map[string]string{"delta": s} }
	return &wire.Protocol{Name: "assist", Routes: []wire.Route{
		{Method: http.MethodGet, Path: "/v1/assist", Handle: func(c *wire.Call) error {
			return c.JSON(map[string]any{"functions": []map[string]string{
				{"name": "explain", "title": "Explain", "output": "prose"}, {"name": "document", "title": "Document", "output": "code", "place": "replace"},
				{"name": "review", "title": "Review", "output": "prose"}, {"name": "find-problems", "title": "Find problems", "output": "prose"},
				{"name": "improve", "title": "Improve", "output": "code"}, {"name": "add-input-checks", "title": "Add input checks", "output": "code"},
				{"name": "write-tests", "title": "Write tests", "output": "code", "place": "new"},
			}})
		}},
		{Method: http.MethodPost, Path: "/v1/assist/{name}", Handle: func(c *wire.Call) error {
			f, err := c.Fields()
			if err != nil {
				return err
			}
			selection := f.Text("selection", "")
			switch c.R.PathValue("name") {
			case "explain":
				return stream(c, delta("## What it does\n\nIt **merges** intervals that `overlap`:\n\n1. sorts them\n2. joins each with the one before\n\n```py"),
					delta("thon\nmerge([[1, 3], [2, 5]])  # [[1, 5]]\n```\n\n<img src=x onerror=alert(1)> stays text."), map[string]any{"finish_reason": "stop"})
			case "document":
				changed := strings.Replace(selection, `"""Merge overlapping intervals."""`, "\"\"\"Merge overlapping intervals.\n\n    intervals: pairs of start and end, in any order.\n    \"\"\"", 1)
				return stream(c, delta(changed[:10]), delta(changed[10:]), map[string]any{"edit": map[string]any{"newText": changed}, "finish_reason": "stop"})
			}
			return stream(c, delta("so far"), map[string]any{"error": map[string]string{"message": "the backend failed"}})
		}},
	}}
}

func TestAssistanceInBrowser(t *testing.T) {
	release := make(chan struct{}, 10)
	b := open(t, start(t, &servetest.Fake{}, assisting(release)))
	b.run(chromedp.Click(`[data-name="explain"]`))
	// The first part is there before the second is sent.
	b.until(`document.querySelector("#answer-body h4")?.textContent === "What it does"`)
	if value[bool](b, `document.querySelector("#answer-body").textContent.includes("stays text")`) {
		t.Error("the answer was whole before it was sent")
	}
	release <- struct{}{}
	b.until(`document.querySelector("#answer-body").textContent.includes("<img src=x onerror=alert(1)> stays text.") && document.querySelector("#answer-body").getAttribute("aria-busy") === "false"`)
	if n := value[int](b, `document.querySelectorAll("#answer-body img").length`); n != 0 {
		t.Error("text of a model became markup")
	}
	if n := value[int](b, `document.querySelectorAll("#answer-body ol li").length`); n != 2 {
		t.Errorf("%d items of the list, expected 2", n)
	}
	b.shot("explain-wide-light", 1280, 860, false)
	b.shot("explain-narrow-dark", 390, 844, true)
	b.run(chromedp.EmulateReset())

	// A change of the first function alone, which is selected.
	before := value[string](b, text)
	b.run(do(`{ const a = document.getElementById("code"); a.focus(); a.setSelectionRange(0, a.value.indexOf("\n\n\n") + 1); }`), chromedp.Click(`[data-name="document"]`))
	release <- struct{}{}
	b.until(`document.querySelectorAll("#answer-body .add").length === 4 && document.querySelectorAll("#answer-body .del").length === 1`)
	if value[string](b, text) != before {
		t.Error("the text changed before anybody said so")
	}
	b.shot("document-wide-light", 1280, 860, false)
	b.shot("document-wide-dark", 1280, 860, true)
	b.run(chromedp.EmulateReset(), chromedp.Click(`#replace`))
	want := strings.Replace(before, "intervals.\"\"\"", "intervals.\n\n    intervals: pairs of start and end, in any order.\n    \"\"\"", 1)
	b.until(text + ` === ` + quote(want))
	b.ctrl("z")
	b.until(text + ` === ` + quote(before))

	// A failure leaves the code as it is, and can be read.
	b.run(chromedp.Click(`[data-name="improve"]`))
	release <- struct{}{}
	b.until(`document.querySelector("#answer-body .problem")?.textContent.includes("the backend failed")`)
	if value[string](b, text) != before || value[bool](b, `!document.getElementById("replace").hidden`) {
		t.Error("a failed change can be applied")
	}
	b.run(chromedp.Focus(`#answer-body`), chromedp.KeyEvent(kb.Escape))
	b.until(`document.getElementById("answer").hidden`)
	b.well()
}

// TestKeyInBrowser: a server that asks for a key is asked no more until there is one.
func TestKeyInBrowser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	secret, err := guard.AddKey(path, guard.Key{Name: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := guard.OpenKeys(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "autodev-tiny", Engine: &servetest.Fake{}}}, nil)
	s, err := serve.Operate(models, serve.Options{Protocols: append(serve.Protocols(), assisting(nil))}, serve.Operations{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	b := openExpecting(t, srv.URL, "401 (Unauthorized)")
	b.until(`document.activeElement === document.getElementById("key-input") && document.getElementById("state").textContent === "This server asks for an API key"`)
	b.shot("key-light", 1280, 860, false)
	b.run(chromedp.EmulateReset())
	b.mu.Lock()
	before := b.requests
	b.mu.Unlock()
	time.Sleep(2500 * time.Millisecond)
	b.mu.Lock()
	if b.requests != before {
		t.Errorf("%d requests without a key while nobody did anything", b.requests-before)
	}
	b.mu.Unlock()
	b.run(chromedp.KeyEvent("autodev_wrong"), chromedp.KeyEvent(kb.Enter))
	b.until(`document.getElementById("state").textContent === "The API key is not accepted"`)
	b.run(do(`document.getElementById("key-input").value = ""; document.getElementById("key-input").focus()`), chromedp.KeyEvent(secret), chromedp.KeyEvent(kb.Enter))
	b.until(serving + ` && !document.getElementById("key").open && document.querySelectorAll("#functions button").length === 7`)
	b.run(do(`document.getElementById("code").focus()`))
	b.ctrl(" ")
	b.until(ghost + ` === "one two<&>"`)
	if got := value[string](b, "document.cookie + JSON.stringify(localStorage)"); got != "{}" {
		t.Errorf("kept for longer than the tab: %s", got)
	}
	b.well()
}

// TestBelowInBrowser: new code below a selection stands on lines of its own, and nothing else moves.
func TestBelowInBrowser(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "more.md"), []byte("---\nname: more\noutput: code\nplace: below\n---\nMore of this:\n{{.Code}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	functions, err := assist.Open(configs.Assist{Default: assist.LocalBackend, Functions: dir}, true)
	if err != nil {
		t.Fatal(err)
	}
	engine := &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		const answer = "```python\nb = 2\n```\n"
		return []infer.Result{{Text: answer, FinishReason: infer.FinishStop}}, emit(0, infer.Chunk{Text: answer, FinishReason: infer.FinishStop})
	}}
	b := openAssisted(t, engine, functions)
	b.until(`document.querySelector('[data-name="more"]') !== null`)
	for _, c := range []struct {
		code       string
		start, end int
		want       string
	}{
		{"a = 1", 0, 0, "a = 1\nb = 2\n"}, // the whole file, which has no line end
		{"a = 1\n", 0, 0, "a = 1\nb = 2\n"},
		{"a = 1\nc = 3\n", 0, 6, "a = 1\nb = 2\nc = 3\n"},
		{"a = 1\nc = 3\n", 0, 5, "a = 1\nb = 2\nc = 3\n"},
		{"a = 1\nc = 3", 6, 11, "a = 1\nc = 3\nb = 2\n"},
	} {
		b.run(do(fmt.Sprintf(`{ const a = document.getElementById("code"); a.value = %s; a.focus(); a.setSelectionRange(%d, %d); }`, quote(c.code), c.start, c.end)), chromedp.Click(`[data-name="more"]`))
		b.until(`document.getElementById("replace").textContent === "Insert below" && !document.getElementById("replace").hidden`)
		if got := value[string](b, `document.querySelector("#answer-body .diff").textContent`); got != "b = 2" {
			t.Errorf("%q: shown %q", c.code, got)
		}
		b.run(chromedp.Click("#replace"))
		b.until(`document.getElementById("answer").hidden`)
		if got := value[string](b, text); got != c.want {
			t.Errorf("below %q of %q: %q, expected %q", c.code[c.start:c.end], c.code, got, c.want)
		}
	}
	b.well()
}

// TestRealFunctionsInBrowser: the page and the functions that are built in understand each other.
func TestRealFunctionsInBrowser(t *testing.T) {
	functions, err := assist.Open(configs.Assist{Default: assist.LocalBackend}, true)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 10)
	engine := &servetest.Fake{Do: func(_ context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		asked <- reqs[0].Prompt.Prefix
		const answer = "Here it is:\n\n```python\ndef merge(intervals):\n    return []\n```\n"
		for i, c := range answer {
			chunk := infer.Chunk{Text: string(c)}
			if i == len(answer)-1 {
				chunk.FinishReason = infer.FinishStop
			}
			if err := emit(0, chunk); err != nil {
				return nil, err
			}
		}
		return []infer.Result{{Text: answer, PromptIDs: make([]int32, 9), IDs: make([]int32, 9), FinishReason: infer.FinishStop}}, nil
	}}
	b := openAssisted(t, engine, functions)
	b.until(`document.querySelectorAll("#functions button").length === ` + fmt.Sprint(len(functions.List())))
	before := value[string](b, text)
	b.run(do(`{ const a = document.getElementById("code"); a.focus(); a.setSelectionRange(0, a.value.indexOf("\n\n\n") + 1); }`), chromedp.Click(`[data-name="improve"]`))
	b.until(`document.querySelectorAll("#answer-body .add").length === 1 && !document.getElementById("replace").hidden`)
	if prompt := <-asked; !strings.Contains(prompt, "intervals.py") || !strings.Contains(prompt, "def merge(intervals):") {
		t.Errorf("asked %q", prompt)
	}
	b.shot("improve-light", 1280, 860, false)
	b.run(chromedp.EmulateReset(), chromedp.Click("#replace"))
	b.until(text + " === " + quote("def merge(intervals):\n    return []\n"+before[strings.Index(before, "\n\n\n")+1:]))
	// Prose that a model wraps is shown as it is written.
	b.run(chromedp.Click(`[data-name="explain"]`))
	b.until(`document.querySelector("#answer-body pre code")?.textContent.startsWith("def merge")`)
	// What is to be edited has to be said.
	b.run(chromedp.Click(`[data-name="edit"]`))
	b.until(`document.activeElement === document.getElementById("instruction")`)
	b.run(chromedp.KeyEvent("return nothing"), chromedp.KeyEvent(kb.Enter))
	b.until(`document.getElementById("answer-title").textContent.startsWith("Edit") && !document.getElementById("replace").hidden`)
	<-asked // to explain
	if prompt := <-asked; !strings.Contains(prompt, "return nothing") {
		t.Errorf("asked %q", prompt)
	}
	// A new file has a name, and nothing is replaced.
	b.run(chromedp.Click(`[data-name="write-tests"]`))
	b.until(`document.getElementById("answer-title").textContent.includes(".py") && !document.getElementById("copy").hidden && document.getElementById("replace").hidden`)
	b.well()
}

// long is an engine with a context that prompts of functions fit into.
type long struct{ *servetest.Fake }

func (l long) Info() infer.Info {
	i := l.Fake.Info()
	i.Context = 1 << 16
	return i
}

// openAssisted opens the page of a server whose functions engine answers.
func openAssisted(t *testing.T, engine *servetest.Fake, functions *assist.Service) *tab {
	t.Helper()
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "autodev-tiny", Engine: long{engine}, Chat: servetest.Chat{}}}, nil)
	s, err := serve.Operate(models, serve.Options{Protocols: append(serve.Protocols(), functions.Protocol())}, serve.Operations{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return open(t, srv.URL)
}
