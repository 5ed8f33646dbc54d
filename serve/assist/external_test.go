package assist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"autodev/configs"
	"autodev/infer/chat"
)

// service is a stand-in for a service that speaks OpenAI's protocol: each request gets the next of its answers, the last one again and again.
type service struct {
	*httptest.Server
	answers  []http.HandlerFunc
	requests atomic.Int32
	bodies   chan map[string]any
	keys     chan string
}

func newService(t *testing.T, answers ...http.HandlerFunc) *service {
	s := &service{answers: answers, bodies: make(chan map[string]any, 100), keys: make(chan string, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(s.requests.Add(1))
		b, _ := io.ReadAll(r.Body)
		var body map[string]any
		if err := json.Unmarshal(b, &body); err != nil || r.URL.Path != "/v1/chat/completions" || r.Method != http.MethodPost {
			t.Errorf("found %s %s %q (%v)", r.Method, r.URL, b, err)
		}
		s.bodies <- body
		s.keys <- r.Header.Get("Authorization")
		s.answers[min(n, len(s.answers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// streams sends pieces and an end; usage 0 sends none.
func streams(finish string, usage int, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, p := range pieces {
			b, _ := json.Marshal(p)
			fmt.Fprintf(w, `data: {"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}`+"\n\n", b)
			w.(http.Flusher).Flush()
		}
		if finish == "" {
			return
		}
		fmt.Fprintf(w, `data: {"choices":[{"index":0,"delta":{},"finish_reason":%q}]}`+"\n\n", finish)
		if usage > 0 {
			fmt.Fprintf(w, `data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":1,"total_tokens":%d}}`+"\n\n", usage-1, usage)
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}
}

func fails(status int, header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func external(t *testing.T, s *service, change func(*configs.AssistBackend)) *External {
	t.Helper()
	c := configs.AssistBackend{Name: "hosted", BaseURL: s.URL + "/v1", Model: "m-1", TimeoutSeconds: 20}
	if change != nil {
		change(&c)
	}
	e, err := newExternal("hosted", c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var query = Query{Messages: []chat.Message{{Role: "system", Content: "S"}, {Role: "user", Content: "U"}}, MaxTokens: 9, Temperature: .5, Stop: []string{"END"}}

func ask(e *External) (string, Reply, error) {
	var b strings.Builder
	r, err := e.Answer(context.Background(), query, func(s string) error { b.WriteString(s); return nil })
	return b.String(), r, err
}

func TestExternal(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "not-this-one")
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/")
	t.Setenv("AUTODEV_TEST_KEY", " secret\n")
	s := newService(t, streams("stop", 12, "Hel", "lo é"))
	e := external(t, s, func(c *configs.AssistBackend) { c.KeyEnv = "AUTODEV_TEST_KEY" })
	text, reply, err := ask(e)
	if err != nil || text != "Hello é" || reply != (Reply{FinishStop, Usage{11, 1, 12}}) {
		t.Errorf("found %q, %+v (%v)", text, reply, err)
	}
	if key := <-s.keys; key != "Bearer secret" {
		t.Errorf("found the header %q", key)
	}
	got, _ := json.Marshal(<-s.bodies)
	want := `{"max_tokens":9,"messages":[{"content":"S","role":"system"},{"content":"U","role":"user"}],"model":"m-1","stop":["END"],"stream":true,"stream_options":{"include_usage":true},"temperature":0.5}`
	if string(got) != want {
		t.Errorf("found the body %s, expected %s", got, want)
	}
	s = newService(t, streams("length", 0, "cut"))
	e = external(t, s, func(c *configs.AssistBackend) { c.NewMaxTokens = true })
	if text, reply, err := ask(e); err != nil || text != "cut" || reply.Finish != FinishLength || reply.Usage.TotalTokens == 0 {
		t.Errorf("found %q, %+v (%v)", text, reply, err)
	}
	if key := <-s.keys; key != "" {
		t.Errorf("found the header %q, expected none without a key", key)
	}
	if body := <-s.bodies; body["max_completion_tokens"] != 9. || body["max_tokens"] != nil || body["temperature"] != nil {
		t.Errorf("found the body %v", body)
	}
}

func TestExternalFailures(t *testing.T) {
	busy := fails(429, "Retry-After: 1", `{"error":{"message":"slow down","type":"rate_limit"}}`)
	for _, c := range []struct {
		name     string
		answers  []http.HandlerFunc
		retries  int
		want     string // of the error; "" for none
		requests int
		atLeast  time.Duration
	}{
		{"401", []http.HandlerFunc{fails(401, "", `{"error":{"message":"bad key"}}`)}, 2, "backend hosted: 401: the key was refused: bad key", 1, 0},
		{"429 once", []http.HandlerFunc{busy, streams("stop", 3, "ok")}, 2, "", 2, time.Second},
		{"429 for good", []http.HandlerFunc{busy}, 1, "backend hosted: 429: too many requests: slow down", 2, time.Second},
		{"500 once", []http.HandlerFunc{fails(500, "Retry-After-Ms: 1", "oops"), streams("stop", 3, "ok")}, 1, "", 2, 0},
		{"404", []http.HandlerFunc{fails(404, "", "")}, 2, "check base_url and model", 1, 0},
		{"broken stream", []http.HandlerFunc{streams("", 0, "half")}, 2, "the answer broke off", 1, 0},
		{"cut connection", []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			streams("", 0, "half")(w, r)
			panic(http.ErrAbortHandler)
		}}, 2, "the answer broke off", 1, 0},
		{"no JSON", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {oops\n\n")
		}}, 2, "the answer broke off", 1, 0},
		{"error in the stream", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, `data: {"error":{"message":"overloaded"}}`+"\n\n")
		}}, 2, "overloaded", 1, 0},
		{"redirect", []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://other.example/v1", http.StatusTemporaryRedirect)
		}}, 0,
			"redirects to other.example", 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, c.answers...)
			began := time.Now()
			text, reply, err := ask(external(t, s, func(b *configs.AssistBackend) { b.Retries = c.retries }))
			switch {
			case c.want == "" && (err != nil || text != "ok"):
				t.Errorf("found %q (%v)", text, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || reply.Finish != FinishCancel):
				t.Errorf("found %+v, error %v, expected %q", reply, err, c.want)
			}
			if n := int(s.requests.Load()); n != c.requests {
				t.Errorf("found %d requests, expected %d", n, c.requests)
			}
			if d := time.Since(began); d < c.atLeast {
				t.Errorf("answered after %v, expected at least %v", d, c.atLeast)
			}
		})
	}
}

func TestExternalTimeoutAndCancel(t *testing.T) {
	left := make(chan struct{}, 2)
	hangs := func(w http.ResponseWriter, r *http.Request) {
		streams("", 0, "first")(w, r)
		<-r.Context().Done()
		left <- struct{}{}
	}
	s := newService(t, hangs)
	var service *ServiceError
	_, _, err := ask(external(t, s, func(c *configs.AssistBackend) { c.TimeoutSeconds = .2; c.Retries = 3 }))
	if !errors.Is(err, errTimeout) || !errors.As(err, &service) || service.Backend != "hosted" {
		t.Errorf("found error %v, expected that there was no answer in time", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	gone := errors.New("the client went away")
	_, err = external(t, s, nil).Answer(ctx, query, func(string) error { cancel(gone); return nil })
	if !errors.Is(err, gone) {
		t.Errorf("found error %v, expected the context's", err)
	}
	for range 2 {
		select {
		case <-left:
		case <-time.After(5 * time.Second):
			t.Fatal("the service was not left")
		}
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Setenv("AUTODEV_TEST_EMPTY", "")
	for _, c := range []struct {
		config    configs.AssistBackend
		key, want string
	}{
		{config: configs.AssistBackend{}},
		{config: configs.AssistBackend{KeyFile: file("good", "k-1\n", 0o600)}, key: "k-1"},
		{config: configs.AssistBackend{KeyFile: file("open", "k-1\n", 0o644)}, want: "found permissions 0644"},
		{config: configs.AssistBackend{KeyFile: file("empty", "\n", 0o600)}, want: "expected one line"},
		{config: configs.AssistBackend{KeyFile: file("two", "a\nb\n", 0o600)}, want: "expected one line"},
		{config: configs.AssistBackend{KeyFile: filepath.Join(dir, "none")}, want: "key_file"},
		{config: configs.AssistBackend{KeyFile: dir}, want: "key_file"},
		{config: configs.AssistBackend{KeyEnv: "AUTODEV_TEST_EMPTY"}, want: "AUTODEV_TEST_EMPTY is not set"},
	} {
		key, err := readKey(c.config)
		if key != c.key || (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "k-1")) {
			t.Errorf("%+v: found %q (%v), expected %q, %q", c.config, key, err, c.key, c.want)
		}
	}
}

func TestBudget(t *testing.T) {
	at := time.Date(2026, 3, 5, 23, 0, 0, 0, time.UTC)
	file := filepath.Join(t.TempDir(), "budget.json")
	open := func(requests, tokens int) *Budget {
		t.Helper()
		b, err := NewBudget(requests, tokens, file)
		if err != nil {
			t.Fatal(err)
		}
		b.now = func() time.Time { return at }
		return b
	}
	var spent *BudgetError
	b := open(2, 0)
	for range 2 {
		done, err := b.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if err := done(40); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Begin(); !errors.As(err, &spent) || spent.What != "requests" || spent.Limit != 2 || spent.Used != 2 || spent.RetryAfter != time.Hour {
		t.Errorf("found %v", err)
	}
	// Another process goes on counting.
	if _, err := open(0, 80).Begin(); !errors.As(err, &spent) || spent.What != "tokens" || spent.Used != 80 {
		t.Errorf("found %v", err)
	}
	at = at.Add(2 * time.Hour)
	if _, err := open(2, 80).Begin(); err != nil {
		t.Errorf("the next day: %v", err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewBudget(1, 1, file); err == nil {
		t.Error("a broken file: expected an error")
	}
	// A service that is used up is not asked.
	s := newService(t, streams("stop", 50, "ok"))
	e := external(t, s, func(c *configs.AssistBackend) { c.TokensPerDay = 60 })
	for i, want := range []bool{true, true, false} {
		if _, _, err := ask(e); (err == nil) != want {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if n := s.requests.Load(); n != 2 {
		t.Errorf("found %d requests, expected 2", n)
	}
}

// TestLocalOnly: with the switch no backend elsewhere exists, nor a client for one; without it, only such a backend dials.
func TestLocalOnly(t *testing.T) {
	s := newService(t, streams("stop", 5, "ok"))
	c := configs.Assist{Default: LocalBackend, Backends: []configs.AssistBackend{{Name: "hosted", BaseURL: s.URL + "/v1", Model: "m", TimeoutSeconds: 5}},
		Use: []configs.AssistUse{{Function: "review", Backend: "hosted"}}}
	if _, err := Open(c, true); err == nil || !strings.Contains(err.Error(), "only local models may be used") {
		t.Errorf("found error %v", err)
	}
	dialed := 0
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed++
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	local := func() (Backend, error) { return &scripted{pieces: []string{"local"}}, nil }
	run := func(svc *Service, want string) {
		t.Helper()
		for _, i := range svc.List() {
			f := svc.Function(i.Name)
			b, err := svc.Backend(f, "", local)
			if err != nil {
				t.Fatal(err)
			}
			a, err := f.Run(context.Background(), b, Request{Selection: "x"}, Text, 0, nil)
			if i.Name == "review" && (err != nil || a.Text != want) {
				t.Errorf("found %q (%v), expected %q", a.Text, err, want)
			}
		}
	}
	// Whatever goes out by the default transport fails the test.
	transport := http.DefaultTransport
	http.DefaultTransport = &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("something dialled %s", address)
		return nil, errors.New("no connections here")
	}}
	defer func() { http.DefaultTransport = transport }()
	svc, err := open(configs.Assist{LocalOnly: true}, false, dial)
	if err != nil {
		t.Fatal(err)
	}
	run(svc, "local")
	if len(svc.external) != 0 || dialed != 0 {
		t.Errorf("found %d backends elsewhere, %d connections", len(svc.external), dialed)
	}
	var invalid *InvalidError
	if _, err := svc.Backend(svc.Function("review"), "hosted", local); !errors.As(err, &invalid) {
		t.Errorf("a request names a backend: found error %v", err)
	}
	if svc, err = open(c, false, dial); err != nil {
		t.Fatal(err)
	}
	run(svc, "ok")
	if dialed != 1 {
		t.Errorf("found %d connections, expected the one of review", dialed)
	}
}

// TestOneClient: newClient is the only place of the package from which something can go out, and newExternal the only one that calls it. With the
// test above, that nothing is dialled without a backend elsewhere does not rest on what the functions happen to do.
func TestOneClient(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	outward := map[string][]string{
		"net/http": {"Client", "DefaultClient", "Transport", "DefaultTransport", "Get", "Post", "PostForm", "Head"},
		"net":      {"Dial", "DialTimeout", "Dialer", "DialTCP", "DialUDP", "Resolver", "DefaultResolver", "LookupHost", "LookupIP"},
	}
	uses := map[string]int{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		packages := map[string]string{}
		for _, i := range file.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			local := path.Base(p)
			if i.Name != nil {
				local = i.Name.Name
			}
			packages[local] = p
			if strings.HasPrefix(p, "github.com/openai/") && name != "external.go" || p == "syscall" || p == "os/exec" || p == "crypto/tls" || p == "net/rpc" || p == "net/smtp" {
				t.Errorf("%s imports %s", name, p)
			}
		}
		for _, d := range file.Decls {
			f, _ := d.(*ast.FuncDecl)
			where := name
			if f != nil {
				where = f.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && slices.Contains(outward[packages[x.Name]], n.Sel.Name) {
						uses[where]++
					}
				case *ast.Ident:
					if (n.Name == "newClient" || n.Name == "newExternal") && n.Name != where {
						uses[n.Name+" in "+where]++
					}
				}
				return true
			})
		}
	}
	// The signature of newClient and its two literals; each is called once.
	if want := map[string]int{"newClient": 3, "newClient in newExternal": 1, "newExternal in open": 1}; !maps.Equal(uses, want) {
		t.Errorf("found %v, expected %v", uses, want)
	}
}

func TestOpenErrors(t *testing.T) {
	for want, c := range map[string]configs.Assist{
		"function":        {Default: "nowhere"},
		"use: found the":  {Use: []configs.AssistUse{{Function: "nope", Backend: "local"}}},
		"functions: none": {Functions: "none"},
		"backends.x: key": {Backends: []configs.AssistBackend{{Name: "x", KeyFile: "none"}}},
	} {
		if _, err := Open(c, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: found error %v", want, err)
		}
	}
}
