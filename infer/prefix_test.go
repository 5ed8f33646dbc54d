package infer

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
	"autodev/model"
)

// completed is what the engine gives for one request.
func completed(t interface{ Fatal(...any) }, e *Engine, r Request) Result {
	all, err := e.Complete(context.Background(), []Request{r}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// sameCompletion says whether two results differ in nothing but how they were come by.
func sameCompletion(a, b Result) bool {
	return a.Text == b.Text && slices.Equal(a.IDs, b.IDs) && a.FinishReason == b.FinishReason && slices.Equal(a.PromptIDs, b.PromptIDs) &&
		slices.EqualFunc(a.Tokens, b.Tokens, func(x, y Token) bool { return x.ID == y.ID && x.LogProb == y.LogProb }) &&
		slices.EqualFunc(a.PromptTokens, b.PromptTokens, func(x, y Token) bool { return x.ID == y.ID && x.LogProb == y.LogProb })
}

// TestPrefixBitEqual: whatever was asked before and whatever is kept, a completion has the log-probabilities of a cold run, and
// the memory kept is within its bound.
func TestPrefixBitEqual(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions = 160 }, 2)
	full := m.cacheBytes(m.Context())
	reused := 0
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]int64{-1, 1, full / 2, 2*full + 10000, 100 * full}).Draw(t, "limit")
		e := NewEngine(m, EngineOptions{CacheBytes: limit})
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		prompts := [][]int32{randomIDs(r, m.vocab, 100), randomIDs(r, m.vocab, 60)}
		for range rapid.IntRange(1, 8).Draw(t, "calls") {
			// An edit of an earlier prompt: cut anywhere, and something appended.
			p := prompts[r.IntN(len(prompts))]
			p = slices.Concat(p[:r.IntN(len(p)+1)], randomIDs(r, m.vocab, r.IntN(20)))
			if len(p) == 0 || len(p) > 140 {
				continue
			}
			prompts = append(prompts, p)
			req := Request{
				Prompt: Prompt{IDs: p}, MaxTokens: rapid.IntRange(0, 15).Draw(t, "max tokens"), Logprobs: true,
				PromptLogprobs: rapid.IntRange(0, 4).Draw(t, "score") == 0, Sampling: Sampling{Temperature: 1, Seed: 3},
			}
			want, err := m.Generate(context.Background(), req, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := completed(t, e, req)
			if !sameCompletion(got, want) {
				t.Fatalf("with %d of %d tokens cached: %v, expected %v", got.Cached, len(p), got.IDs, want.IDs)
			}
			if got.Cached >= len(p) || got.Cached < 0 || got.Cached > 0 && (limit < full/2 || req.PromptLogprobs) {
				t.Fatalf("%d of %d tokens cached with a limit of %d", got.Cached, len(p), limit)
			}
			reused += got.Cached
			recount(t, e.cache)
			if s := e.CacheStats(); s.Bytes > max(0, limit) || s.InUse != 0 {
				t.Fatalf("held: %+v", s)
			}
		}
	})
	if reused == 0 {
		t.Error("nothing was ever reused")
	}
}

// TestPrefixChoice: the longest beginning is continued, in whichever call it was evaluated; an exact repeat evaluates one token; a
// prompt for no tokens warms the cache; the choices of one prompt evaluate it once even when nothing is kept.
func TestPrefixChoice(t *testing.T) {
	m := randomModel(t, nil, 1)
	r := rand.New(rand.NewPCG(2, 2))
	a, b := randomIDs(r, m.vocab, 200), randomIDs(r, m.vocab, 400)
	e := NewEngine(m, EngineOptions{})
	ask := func(e *Engine, ids []int32, n int) int {
		t.Helper()
		return completed(t, e, Request{Prompt: Prompt{IDs: ids}, MaxTokens: n}).Cached
	}
	for i, c := range []struct {
		ids          []int32
		n            int
		cached, held int
	}{
		{a, 0, 0, 1},   // warms
		{a, 4, 199, 1}, // continues
		{b, 4, 0, 3},
		{a, 4, 199, 3},
		{slices.Concat(a[:150], b[:10]), 4, 150, 4}, // copies
		{slices.Concat(a[:40], b[:100]), 4, 40, 5},
		{slices.Concat(a[:150], b[:9]), 4, 158, 6},
		{b, 4, 399, 6},
		{slices.Concat(b[:300], a[:100]), 4, 300, 7}, // shares a block, copies of the next
		{slices.Concat(b[:255], a, a[:9]), 4, 255, 9},
		{slices.Concat(b[:256], a[:9]), 4, 256, 10},
		{a, 4, 199, 10},
	} {
		n := ask(e, c.ids, c.n)
		if s := e.CacheStats(); n != c.cached || s.Blocks != c.held {
			t.Errorf("call %d: %d tokens cached, %d blocks held; expected %d and %d", i, n, s.Blocks, c.cached, c.held)
		}
	}
	none := NewEngine(m, EngineOptions{CacheBytes: -1})
	reqs := make([]Request, 5)
	for i := range reqs {
		reqs[i] = Request{Prompt: Prompt{IDs: a}, MaxTokens: 6, Sampling: Sampling{Temperature: 1, Choice: uint64(i)}}
	}
	results, err := none.Complete(t.Context(), reqs, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, res := range results {
		want, err := m.Generate(t.Context(), reqs[i], nil)
		if err != nil || !sameCompletion(res, want) {
			t.Errorf("choice %d: %v, expected %v (%v)", i, res.IDs, want.IDs, err)
		}
		if i > 0 && res.Cached != len(a)-1 {
			t.Errorf("choice %d: %d tokens cached, expected all but one", i, res.Cached)
		}
	}
	if s := none.CacheStats(); s.Blocks != 0 || len(m.spare.idle) != 0 {
		t.Errorf("%d blocks held and %d kept, expected none", s.Blocks, len(m.spare.idle))
	}
}

// TestPrefixCancelled: a call that ends early leaves what it evaluated, and no wrong key or value.
func TestPrefixCancelled(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions = 2*leastChunk + 100 }, 2)
	ids := randomIDs(rand.New(rand.NewPCG(9, 9)), m.vocab, leastChunk+200)
	chunk := firstChunk(len(ids), leastChunk)
	req := Request{Prompt: Prompt{IDs: ids}, MaxTokens: 20, Logprobs: true, Class: Chat}
	want, err := m.Generate(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, looks := range []int{0, 5, len(m.program.steps) + 2, 2*len(m.program.steps) + 5, 5 * len(m.program.steps)} {
		e := NewEngine(m, EngineOptions{})
		c, cancel := context.WithCancel(t.Context())
		left := looks
		e.looking = func() {
			if left--; left < 0 {
				cancel()
			}
		}
		if _, err := e.Complete(c, []Request{req}, nil); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at look %d: %v", looks, err)
		}
		waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
		e.looking = nil
		got := completed(t, e, req)
		if !sameCompletion(got, want) || got.Cached%chunk != 0 && got.Cached != len(ids)-1 {
			t.Errorf("after a call cancelled at look %d: %d tokens cached, %v, expected %v", looks, got.Cached, got.IDs, want.IDs)
		}
		if looks > len(m.program.steps) && got.Cached == 0 {
			t.Errorf("after a call cancelled at look %d: nothing cached", looks)
		}
	}
}

// TestPrefixTogether: calls that run at the same time, share beginnings, leave early and push each other's sessions out get what
// they get alone.
func TestPrefixTogether(t *testing.T) {
	m := textModel(t, nil, 2)
	for _, limit := range []int64{0, m.cacheBytes(2 * m.Context()), m.blockBytes, -1} {
		e := NewEngine(m, EngineOptions{Concurrency: 6, Queue: 1000, CacheBytes: limit})
		file := strings.Repeat("def add(a, b):\n    return a + b\n", 25)
		var wg sync.WaitGroup
		for i := range 48 {
			r := Request{
				Prompt:    Prompt{Prefix: file[:len(file)-5*(i%8)] + strings.Repeat("y", i%5), Suffix: []string{"", "\nend\n"}[i%2]},
				MaxTokens: 12, Logprobs: true, Sampling: Sampling{Temperature: float64(i % 3), Seed: uint64(i % 4)},
			}
			want, err := m.Generate(t.Context(), r, nil)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if i%7 == 3 {
					c, cancel := context.WithCancel(context.Background())
					_, _ = e.Complete(c, []Request{r}, func(int, Chunk) error { cancel(); return nil })
				}
				if got := completed(failing{t}, e, r); !sameCompletion(got, want) {
					t.Errorf("request %d with %d tokens cached: %q, expected %q", i, got.Cached, got.Text, want.Text)
				}
			})
		}
		wg.Wait()
		recount(t, e.cache)
		if s := e.CacheStats(); s.InUse != 0 || s.Bytes > s.Limit {
			t.Errorf("afterwards: %+v", s)
		}
	}
}

// TestRemember: what is remembered is bounded, the latest last.
func TestRemember(t *testing.T) {
	var p prefixes
	p.remember([]int32{1}, nil)
	if len(p.texts()) != 0 {
		t.Error("an empty completion was remembered")
	}
	prompt := make([]int32, 100)
	for i := range int32(50) {
		p.remember(prompt, []int32{i, i})
	}
	got := p.texts()
	if len(got) != recentTexts || len(got[0]) != contextTokens+2 || got[recentTexts-1][contextTokens] != 49 {
		t.Errorf("%d texts, %v", len(got), got[len(got)-1])
	}
	p.remember(nil, make([]int32, recentTokens-30))
	if got := p.texts(); len(got) != 2 {
		t.Errorf("%d texts, expected the one that still fits beside the long one", len(got))
	}
	p.remember(nil, make([]int32, recentTokens+1))
	if got := p.texts(); len(got) != 0 {
		t.Errorf("%d texts of more tokens than are remembered", len(got))
	}
}

// TestRecentIsDrafted: a completion asked for again is drafted from the first time.
func TestRecentIsDrafted(t *testing.T) {
	m := textModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{})
	r := Request{Prompt: Prompt{Prefix: "def add(a, b):\n"}, MaxTokens: 40, Sampling: Sampling{Temperature: 1, Seed: 5, Bias: noEnd(m)}, Speculate: SpeculateAlways}
	first := completed(t, e, r)
	again := completed(t, e, r)
	if !sameCompletion(first, again) || again.Accepted < 30 {
		t.Errorf("%d of %d tokens were drafted rightly the second time, %d the first", again.Accepted, len(again.IDs), first.Accepted)
	}
}

// TestFormats: in every format of weights, keys and values, guesses and what is cached change no bit of a completion.
func TestFormats(t *testing.T) {
	tok := infertest.Tokenizer(t)
	c := infertest.Config(tok.VocabSize())
	c.Embed, c.Inner = 64, 128
	text := strings.Repeat("for i in range(10):\n    print(i)\n", 12)
	for _, weights := range []Weights{Float32, Int8, Int4} {
		for _, cache := range []Cache{CacheFloat32, CacheBFloat16, CacheInt8} {
			m, err := New(infertest.Checkpoint(c), tok, Options{Threads: 2, Weights: weights, Cache: cache})
			if err != nil {
				t.Fatal(err)
			}
			e := NewEngine(m, EngineOptions{})
			cached, accepted := 0, 0
			for i, n := range []int{300, 305, 340, 200, 340} {
				r := Request{
					Prompt: Prompt{Prefix: text[:n], Suffix: "\nend\n"}, MaxTokens: 60, Logprobs: true, Speculate: SpeculateOff,
					Sampling: Sampling{Temperature: []float64{0, 1}[i%2], Seed: 2, Bias: noEnd(m)},
				}
				if i == 1 {
					r.Replay = tok.Encode(text[:60] + "x" + text[:60])
				}
				want, err := m.Generate(t.Context(), r, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Speculate = SpeculateAlways
				got := completed(t, e, r)
				if !sameCompletion(got, want) {
					t.Errorf("%v weights, %v keys and values, request %d with %d tokens cached and %d accepted: %v, expected %v", weights, cache, i, got.Cached, got.Accepted, got.IDs, want.IDs)
				}
				cached, accepted = cached+got.Cached, accepted+got.Accepted
			}
			if cached < 300 || accepted < 20 {
				t.Errorf("%v weights, %v keys and values: %d tokens cached, %d accepted", weights, cache, cached, accepted)
			}
			m.Close()
		}
	}
}

// TestPrefixTyping: whatever is asked in the background, and however much somebody else types, who types goes on where he was, as long as there is
// room for both; what nobody has typed at for a while gives way.
func TestPrefixTyping(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions, c.Layers, c.Embed, c.Inner = 2048, 1, 16, 16 }, 1)
	r := rand.New(rand.NewPCG(3, 1))
	file := randomIDs(r, m.vocab, 1500)
	long := func(class Class, client string) Request {
		return Request{Prompt: Prompt{IDs: randomIDs(r, m.vocab, 1700)}, MaxTokens: 20, Class: class, Client: client}
	}
	// There is room for one of them beside what the typist has.
	for name, others := range map[string]func(e *Engine){
		"one after the other": func(e *Engine) {
			for range 4 {
				completed(t, e, long(Background, ""))
			}
		},
		"together": func(e *Engine) {
			var wg sync.WaitGroup
			for range 3 {
				ask := long(Background, "")
				ask.Prompt.IDs = ask.Prompt.IDs[:1200]
				wg.Go(func() { completed(failing{t}, e, ask) })
			}
			wg.Wait()
		},
		"the typist's file, otherwise at its end": func(e *Engine) {
			for _, class := range []Class{Background, Chat} {
				ask := long(class, "")
				copy(ask.Prompt.IDs, file)
				completed(t, e, ask)
				completed(t, e, long(class, ""))
			}
		},
		"typing of another client": func(e *Engine) {
			for range 4 {
				completed(t, e, long(Interactive, "flood"))
			}
		},
	} {
		e := NewEngine(m, EngineOptions{CacheBytes: 15 * m.blockBytes})
		e.room = e.o.CacheBytes // as it is where a context is large beside the weights
		now := time.Now()
		e.cache.now = func() time.Time { return now }
		key := func(n int) Result {
			return completed(t, e, Request{Prompt: Prompt{IDs: file[:n]}, MaxTokens: 2, Client: "typist", Session: "file"})
		}
		key(1400)
		others(e)
		if got := key(1401); got.Cached < 1400 {
			t.Errorf("%s: %d of the 1400 tokens before a keystroke are known afterwards", name, got.Cached)
		}
		if s := e.CacheStats(); s.Evictions == 0 {
			t.Errorf("%s: nothing was forgotten: %+v", name, s)
		}
		recount(t, e.cache)
		now = now.Add(keptFor)
		for range 3 {
			completed(t, e, long(Background, ""))
		}
		if got := key(1402); got.Cached > 0 {
			t.Errorf("%s: %d tokens that nobody has typed at for %v are known yet", name, got.Cached, keptFor)
		}
		e.Close()
	}
}
