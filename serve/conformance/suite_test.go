package conformance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"autodev/infer"
	"autodev/model"
	"autodev/models"
	"autodev/serve"
	"autodev/serve/guard"
	"autodev/serve/registry"
	"autodev/serve/servetest"
	"autodev/serve/wire"
)

// suite is what a client's test gets to know.
type suite struct {
	URL   string `json:"url"`
	Cases []ask  `json:"cases"`
	// Long is a model whose completions go on until the client leaves; Mute cannot converse; Busy turns every request away with 429 and a
	// Retry-After of 2 seconds; Broken fails, in a stream after "begun".
	Long   string `json:"long"`
	Mute   string `json:"mute"`
	Busy   string `json:"busy"`
	Broken string `json:"broken"`
	// Active is the address that says how many completions are under way, how many have begun, and what the latest was asked to go on from:
	// {"active":0,"begun":2,"prefix":"…","suffix":"…"}.
	Active string `json:"active"`
	// Guarded is the same server, for who has the key.
	Guarded string `json:"guarded"`
	Key     string `json:"key"`
	// Default is the model of requests that name none.
	Default string `json:"default"`
}

// ask is a question to a model, and the engine's own greedy answers.
type ask struct {
	Model     string         `json:"model"`
	Prefix    string         `json:"prefix"`
	Suffix    string         `json:"suffix"`
	Messages  []wire.Message `json:"-"`
	MaxTokens int            `json:"maxTokens"`
	Chat      []message      `json:"messages"`

	Fill  answer `json:"fill"`  // between prefix and suffix
	Tabby answer `json:"tabby"` // as Tabby asks: for 64 tokens, and without a suffix for what comes before a line's end
	Plain answer `json:"plain"` // after the prefix
	Talk  answer `json:"talk"`  // to the conversation
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type answer struct {
	Text             string `json:"text"`
	Finish           string `json:"finish"`
	PromptTokens     int    `json:"promptTokens"`
	CompletionTokens int    `json:"completionTokens"`
}

// counts are what the server has been asked.
type counts struct {
	mu     sync.Mutex
	Active int    `json:"active"`
	Begun  int    `json:"begun"`
	Prefix string `json:"prefix"`
	Suffix string `json:"suffix"`
}

func (c *counts) begin(p infer.Prompt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Active++
	c.Begun++
	c.Prefix, c.Suffix = p.Prefix, p.Suffix
}

func (c *counts) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Active--
}

// answer tells them.
func (c *counts) answer(call *wire.Call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return call.JSON(c)
}

// watched is an engine whose calls are counted. endless keeps its completions from ending by themselves, and from going round in circles, as those
// of random weights do.
type watched struct {
	wire.Engine
	counts  *counts
	endless bool
}

// Complete implements wire.Engine.
func (w watched) Complete(ctx context.Context, reqs []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
	w.counts.begin(reqs[0].Prompt)
	defer w.counts.end()
	if w.endless {
		for i := range reqs {
			p := &reqs[i].Sampling
			p.FrequencyPenalty, p.PresencePenalty, p.RepetitionPenalty = 2, 2, 50
			p.Bias = maps.Clone(p.Bias)
			if p.Bias == nil {
				p.Bias = map[int32]float64{}
			}
			for id := range int32(5) {
				p.Bias[id] = -100
			}
		}
	}
	return w.Engine.Complete(ctx, reqs, emit)
}

// embedded returns the model that the binary carries.
func embedded(t *testing.T) (*infer.Engine, wire.Chat) {
	t.Helper()
	m, prompter := servetest.Tiny(t, infer.Options{Threads: 2})
	e := infer.NewEngine(m, infer.EngineOptions{})
	t.Cleanup(e.Close)
	return e, prompter
}

// start serves, as autodev serve does, a random model that never ends ("random", and "long" with room for a completion of minutes), the
// embedded one, and such as fail. The model called first is the one of requests that name none.
func start(t *testing.T, first string) *suite {
	t.Helper()
	var asked counts
	random := servetest.RealEngine(t, nil, infer.EngineOptions{})
	t.Cleanup(random.Close)
	long := servetest.RealEngine(t, func(c *model.Config) { c.Positions = 100000 }, infer.EngineOptions{})
	t.Cleanup(long.Close)
	tiny, prompter := embedded(t)
	busy := &servetest.Fake{Do: func(context.Context, []infer.Request, func(int, infer.Chunk) error) ([]infer.Result, error) {
		return nil, &infer.BusyError{Reason: "64 requests are waiting", RetryAfter: 2 * time.Second}
	}}
	broken := &servetest.Fake{Do: func(_ context.Context, _ []infer.Request, emit func(int, infer.Chunk) error) ([]infer.Result, error) {
		if emit != nil {
			if err := emit(0, infer.Chunk{Text: "begun"}); err != nil {
				return nil, err
			}
		}
		return nil, errors.New("the model broke")
	}}
	stuck := &servetest.Fake{Do: func(ctx context.Context, _ []infer.Request, _ func(int, infer.Chunk) error) ([]infer.Result, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}}
	all := []wire.Model{
		{ID: "random", Engine: watched{random, &asked, true}, Chat: servetest.Chat{}},
		{ID: models.Tiny, Engine: watched{tiny, &asked, false}, Chat: prompter},
		{ID: "long", Engine: watched{long, &asked, true}, Chat: servetest.Chat{}},
		{ID: "mute", Engine: watched{random, &asked, true}},
		{ID: "busy", Engine: busy, Chat: servetest.Chat{}},
		{ID: "broken", Engine: broken, Chat: servetest.Chat{}},
		{ID: "stuck", Engine: watched{stuck, &asked, false}},
	}
	for i := range all {
		all[i].Created = time.Unix(1700000000, 0)
	}
	i := slices.IndexFunc(all, func(m wire.Model) bool { return m.ID == first })
	all[0], all[i] = all[i], all[0]
	service := registry.New(false)
	service.Put(all, nil)
	protocols := append(serve.Protocols(), &wire.Protocol{Name: "conformance", Routes: []wire.Route{{Method: http.MethodGet, Path: "/conformance/active", Handle: asked.answer}}})
	url, _ := servetest.StartModels(t, service, serve.Options{Protocols: protocols})
	keys := filepath.Join(t.TempDir(), "keys")
	secret, err := guard.AddKey(keys, guard.Key{Name: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	known, err := guard.OpenKeys(keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(guard.Options{Keys: known})
	if err != nil {
		t.Fatal(err)
	}
	guarded, _ := servetest.StartModels(t, service, serve.Options{Protocols: protocols, Guard: g.Call, Wrap: g.Wrap})
	s := &suite{
		URL: url, Active: url + "/conformance/active", Guarded: guarded, Key: secret,
		Long: "long", Mute: "mute", Busy: "busy", Broken: "broken", Default: first,
	}
	for _, c := range []ask{
		{Model: "random", Prefix: "def add(a, b):\n    größe = ", Suffix: "\n    return c  # naïve\n", MaxTokens: 24},
		{Model: "random", Prefix: "x", Suffix: "\n", MaxTokens: 1},
		{Model: models.Tiny, Prefix: "def area(width, height):\n    return ", Suffix: "\n\n\nprint(area(2, 3))\n", MaxTokens: 24},
		{Model: models.Tiny, Prefix: "for name in names:\n    ", Suffix: "", MaxTokens: 40},
	} {
		c.Messages = []wire.Message{{Role: "system", Content: "You write code."}, {Role: "user", Content: "Write \"hello\", größer."}}
		for _, m := range c.Messages {
			c.Chat = append(c.Chat, message(m))
		}
		m, release, err := service.Use(c.Model)
		if err != nil {
			t.Fatal(err)
		}
		c.Fill = direct(t, m, infer.Request{Prompt: infer.Prompt{Prefix: c.Prefix, Suffix: c.Suffix}, MaxTokens: c.MaxTokens})
		c.Tabby = direct(t, m, infer.Request{Prompt: infer.Prompt{Prefix: c.Prefix, Suffix: cmp.Or(c.Suffix, "\n")}, MaxTokens: 64})
		c.Plain = direct(t, m, infer.Request{Prompt: infer.Prompt{Prefix: c.Prefix}, MaxTokens: c.MaxTokens})
		talk, err := m.Converse(c.Messages)
		if err != nil {
			t.Fatal(err)
		}
		talk.MaxTokens = c.MaxTokens
		c.Talk = direct(t, m, talk)
		release()
		s.Cases = append(s.Cases, c)
	}
	return s
}

// direct asks an engine itself.
func direct(t *testing.T, m wire.Model, r infer.Request) answer {
	t.Helper()
	results, err := m.Engine.Complete(t.Context(), []infer.Request{r}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := results[0]
	return answer{a.Text, string(a.FinishReason), len(a.PromptIDs), len(a.IDs)}
}

// idle waits for the completions under way to end, as they must when their clients have left.
func (s *suite) idle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(s.Active)
		if err != nil {
			t.Fatal(err)
		}
		var under counts
		err = json.NewDecoder(resp.Body).Decode(&under)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if under.Active == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d completions go on though their clients have left", under.Active)
		}
	}
}
