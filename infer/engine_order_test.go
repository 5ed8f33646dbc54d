package infer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// short is a request that takes a few passes.
func short(m *Model, n int) Request {
	return Request{Prompt: Prompt{Prefix: fmt.Sprintf("def f%d", n)}, MaxTokens: 5, Sampling: Sampling{Bias: noEnd(m)}}
}

// whoRuns notes whose calls run, one after the other, in an engine of one place. It may be read when the engine rests.
func whoRuns(e *Engine) *[]*call {
	var ran []*call
	e.looking = func() {
		if c := e.active[0].c; len(ran) == 0 || ran[len(ran)-1] != c {
			ran = append(ran, c)
		}
	}
	return &ran
}

// under returns r as a client's of a class.
func under(r Request, c Class, client string) Request {
	r.Class, r.Client = c, client
	return r
}

// ask completes a request in a goroutine of its own. What ended it comes through the channel.
func ask(ctx context.Context, e *Engine, r Request) chan error {
	done := make(chan error, 1)
	go func() {
		_, err := e.Complete(ctx, []Request{r}, nil)
		done <- err
	}()
	return done
}

// TestEngineClasses: a request of a higher class takes the place of one that runs, which pauses and goes on afterwards; and those that
// wait begin in the order of their classes.
func TestEngineClasses(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 1})
	defer e.Close()
	ran := whoRuns(e)
	chat := under(short(m, 1), Chat, "")
	chat.MaxTokens = 4000
	chatting := ask(t.Context(), e, chat)
	waitFor(t, e, "chat runs", func(s Stats) bool { return s.Running[Chat] == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	typing := ask(ctx, e, endless(m))
	waitFor(t, e, "chat pauses", func(s Stats) bool { return s.Running[Interactive] == 1 && s.Paused[Chat] == 1 })
	var done []chan error
	for i, c := range []Class{Background, Chat, Background, Interactive, Chat, Interactive} {
		done = append(done, ask(t.Context(), e, under(short(m, 2+i), c, "")))
		waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[c] > 0 && s.Queued[0]+s.Queued[1]+s.Queued[2] == i+1 })
	}
	if s := e.Stats(); s.Paused[Chat] != 1 {
		t.Errorf("chat does not pause any more: %+v", s)
	}
	cancel()
	<-typing
	for _, d := range append(done, chatting) {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
	waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
	var order []Class
	for _, c := range *ran {
		order = append(order, c.class)
	}
	// The chat that was first goes on before others of its class.
	if want := []Class{Chat, Interactive, Interactive, Interactive, Chat, Chat, Chat, Background, Background}; !slices.Equal(order, want) || (*ran)[4] != (*ran)[0] {
		t.Errorf("calls of the classes %v have run, expected %v", order, want)
	}
}

// TestEngineLeavesAPlace: completions without end of people who type do not stop a chat for ever.
func TestEngineLeavesAPlace(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: reservedFrom})
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range reservedFrom + 1 {
		ask(ctx, e, under(endless(m), Interactive, fmt.Sprint(i)))
	}
	waitFor(t, e, "all places are taken", func(s Stats) bool { return s.Running[Interactive] == reservedFrom })
	if err := <-ask(t.Context(), e, under(short(m, 1), Chat, "")); err != nil {
		t.Error(err)
	}
}

// TestEngineFairness: whatever one client has running and waiting, another's only request is next.
func TestEngineFairness(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 2})
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var floods []chan error
	for range 12 {
		floods = append(floods, ask(ctx, e, under(endless(m), Chat, "flood")))
	}
	waitFor(t, e, "the flood has come", func(s Stats) bool { return s.Running[Chat] == 2 && s.Queued[Chat] == 10 })
	for i := range 3 {
		if err := <-ask(t.Context(), e, under(short(m, i), Chat, "other")); err != nil {
			t.Fatal(err)
		}
	}
	if s := e.Stats(); s.Completed != 3 || s.Started != 5 {
		t.Errorf("%+v", s)
	}
	cancel()
	for _, f := range floods {
		if err := <-f; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
	if len(e.served) != 0 {
		t.Errorf("clients that have gone are remembered: %v", e.served)
	}

	// Two that always have something waiting take turns.
	e = NewEngine(m, EngineOptions{Concurrency: 1})
	defer e.Close()
	blocked, release := context.WithCancel(t.Context())
	ran := whoRuns(e)
	block := ask(blocked, e, under(endless(m), Interactive, "first"))
	waitFor(t, e, "it runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	var done []chan error
	for i := range 8 {
		done = append(done, ask(t.Context(), e, under(short(m, i), Chat, string("aaaabbbb"[i]))))
		waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[Chat] == i+1 })
	}
	release()
	<-block
	for _, d := range done {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
	waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
	order := ""
	for _, c := range *ran {
		order += c.client
	}
	if order != "firstabababab" {
		t.Errorf("served in the order %s", order)
	}
}

// TestEngineSupersedes: the latest call of a client's session ends those before it, whether they run or wait, and nobody else's.
func TestEngineSupersedes(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 2, Queue: 3})
	defer e.Close()
	session := func(r Request, client, session string) Request {
		r.Client, r.Session = client, session
		return r
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	other := ask(ctx, e, session(endless(m), "b", "1"))
	nobody := ask(ctx, e, session(endless(m), "a", ""))
	waitFor(t, e, "both run", func(s Stats) bool { return s.Running[Interactive] == 2 })
	ended := func(what string, done chan error) {
		t.Helper()
		var late *SupersededError
		select {
		case err := <-done:
			if !errors.As(err, &late) || late.Session != "1" {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: has not ended", what)
		}
	}
	// A client's second call pauses nobody: a and b have one each.
	waiting := ask(ctx, e, session(short(m, 0), "a", "1"))
	waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[Interactive] == 1 })
	for range 5 { // more than the queue has room for
		next := ask(ctx, e, session(short(m, 0), "a", "1"))
		ended("one that waits", waiting)
		waiting = next
	}
	cancel()
	<-other
	<-nobody
	if err := <-waiting; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the latest: %v", err)
	}
	running := ask(t.Context(), e, session(endless(m), "a", "1"))
	waitFor(t, e, "it runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	if err := <-ask(t.Context(), e, session(short(m, 1), "a", "1")); err != nil {
		t.Errorf("the latest: %v", err)
	}
	ended("one that runs", running)
	if s := e.Stats(); s.Superseded != 6 || s.Rejected != 0 {
		t.Errorf("%+v", s)
	}
}

// TestEngineQueueShares: chats that wait leave room for completions, and work in the background for both.
func TestEngineQueueShares(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 1, Queue: 8})
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask(ctx, e, endless(m))
	waitFor(t, e, "it runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	for _, c := range []struct {
		class Class
		room  int
	}{{Background, 4}, {Chat, 2}, {Interactive, 2}} {
		for i := range c.room + 1 {
			done := ask(ctx, e, under(short(m, i), c.class, fmt.Sprint(i)))
			if i < c.room {
				waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[c.class] == i+1 })
				continue
			}
			var busy *BusyError
			if err := <-done; !errors.As(err, &busy) || busy.RetryAfter < time.Second || busy.RetryAfter > time.Minute {
				t.Errorf("class %d after %d: %v", c.class, i, err)
			}
		}
	}
}

// TestEngineQueueFlood: a client that fills the queue makes room for others, and not for itself.
func TestEngineQueueFlood(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 1, Queue: 4})
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask(ctx, e, endless(m))
	waitFor(t, e, "it runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	var flood []chan error
	for i := range 4 {
		flood = append(flood, ask(ctx, e, under(short(m, i), Interactive, "flood")))
		waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[Interactive] == i+1 })
	}
	var busy *BusyError
	if err := <-ask(ctx, e, under(short(m, 5), Interactive, "flood")); !errors.As(err, &busy) {
		t.Errorf("one more of the same client: %v", err)
	}
	others := []chan error{ask(ctx, e, under(short(m, 6), Interactive, "other"))}
	if err := <-flood[3]; !errors.As(err, &busy) {
		t.Errorf("the latest of the client that fills the queue: %v", err)
	}
	others = append(others, ask(ctx, e, under(short(m, 7), Interactive, "other")))
	// Now they have two each.
	if err := <-flood[2]; !errors.As(err, &busy) {
		t.Errorf("the latest but one: %v", err)
	}
	if err := <-ask(ctx, e, under(short(m, 8), Interactive, "other")); !errors.As(err, &busy) {
		t.Errorf("as many as the other has: %v", err)
	}
	// Chats give no place up to work in the background, nor do those who type to either.
	if err := <-ask(ctx, e, under(short(m, 9), Background, "third")); !errors.As(err, &busy) {
		t.Errorf("a less urgent one: %v", err)
	}
	if s := e.Stats(); s.Rejected != 5 || s.Queued[Interactive] != 4 {
		t.Errorf("%+v", s)
	}
	cancel()
	for _, d := range append(others, flood[:2]...) {
		if err := <-d; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// TestEngineTimes: the prompt's time ends a completion with nothing, the completion's after a whole line, and neither is an error.
func TestEngineTimes(t *testing.T) {
	m := longModel(t)
	m.chunk = 50
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	r := Request{Prompt: Prompt{Prefix: strings.Repeat("x = y\n", 200)}, MaxTokens: 5, PromptTime: 1}
	res := completed(t, e, r)
	if res.FinishReason != FinishLength || len(res.IDs) != 0 || res.Text != "" {
		t.Errorf("no time for the prompt: %q of %d tokens, %s", res.Text, len(res.IDs), res.FinishReason)
	}
	r.PromptTime = time.Hour
	if res := completed(t, e, r); len(res.IDs) != 5 || res.Cached < leastPart {
		t.Errorf("time for the prompt: %d tokens, %d cached", len(res.IDs), res.Cached)
	}
	line := m.tok.Encode("x = 1\ny = 2\n")
	r = Request{Prompt: Prompt{Prefix: "x"}, MaxTokens: 1000, Replay: slices.Repeat(line, 20), DecodeTime: 1}
	if res := completed(t, e, r); res.Text != "x = 1\n" || res.FinishReason != FinishLength {
		t.Errorf("no time to generate: %q, %s", res.Text, res.FinishReason)
	}
	r.DecodeTime = time.Hour
	if res := completed(t, e, r); len(res.IDs) != len(r.Replay) {
		t.Errorf("time to generate: %d tokens, expected %d", len(res.IDs), len(r.Replay))
	}
}

// TestEngineSlowReceiver: a receiver that does not return holds up nobody, and gets everything when it does.
func TestEngineSlowReceiver(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 2})
	defer e.Close()
	r := short(m, 0)
	r.MaxTokens = 200
	got, release, slow := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	go func() {
		var text strings.Builder
		_, err := e.Complete(t.Context(), []Request{r}, func(_ int, ch Chunk) error {
			if text.Len() == 0 {
				close(got)
				<-release
			}
			text.WriteString(ch.Text)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		slow <- text.String()
	}()
	<-got
	for i := range 3 {
		completed(t, e, short(m, i))
	}
	waitFor(t, e, "what nobody takes is generated", func(s Stats) bool { return s.GeneratedTokens == 200+3*5 && !e.busy() })
	close(release)
	want, err := m.Generate(t.Context(), r, nil)
	if text := <-slow; err != nil || text != want.Text {
		t.Errorf("%q, expected %q (%v)", text, want.Text, err)
	}
}

// TestEngineChoices: the alternatives for one prompt evaluate it once, side by side, and are what each is alone; their chunks come one
// after another.
func TestEngineChoices(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 3, CacheBytes: -1})
	defer e.Close()
	prompt := strings.Repeat("def add(a, b):\n    return a + b\n", 10)
	var reqs []Request
	for i := range 5 {
		reqs = append(reqs, Request{Prompt: Prompt{Prefix: prompt}, MaxTokens: 30, Sampling: Sampling{Temperature: 1, Seed: 9, Choice: uint64(i), Bias: noEnd(m)}, Speculate: SpeculateOff})
	}
	last := 0
	results, err := e.Complete(t.Context(), reqs, func(i int, _ Chunk) error {
		if i < last || i > last+1 {
			t.Errorf("a chunk of request %d after one of %d", i, last)
		}
		last = i
		return nil
	})
	if err != nil || last != 4 {
		t.Fatal(err, last)
	}
	for i, res := range results {
		want, err := m.Generate(t.Context(), reqs[i], nil)
		if err != nil || !sameCompletion(res, want) {
			t.Errorf("choice %d: %q, expected %q (%v)", i, res.Text, want.Text, err)
		}
	}
	s := e.Stats()
	if n := len(results[0].PromptIDs); s.PromptTokens != int64(n+4) || s.GeneratedTokens != 150 || s.Rows-s.PromptTokens < 145 || s.Passes > 110 {
		t.Errorf("%d tokens of a prompt of %d evaluated, %d generated in %d passes: %+v", s.PromptTokens, n, s.GeneratedTokens, s.Passes, s)
	}
	if s.CacheBytes != 0 {
		t.Errorf("%d bytes are kept", s.CacheBytes)
	}
}

// TestEngineClose: closing ends what runs and what waits, and gives everything back.
func TestEngineClose(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 1})
	completed(t, e, short(m, 1))
	running := ask(t.Context(), e, endless(m))
	waitFor(t, e, "it runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	waiting := ask(t.Context(), e, short(m, 2))
	waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[Interactive] == 1 })
	e.Close()
	for _, done := range []chan error{running, waiting, ask(t.Context(), e, short(m, 3))} {
		if err := <-done; !errors.Is(err, errEngineClosed) {
			t.Errorf("error %v", err)
		}
	}
	if s := e.Stats(); s.CacheBytes != 0 || e.busy() || m.users != 0 {
		t.Errorf("%d uses of the model, busy %v, %+v", m.users, e.busy(), s)
	}
	e.Close()
}

// TestEnginePanic: a fault in a pass ends those who are in it, and neither the engine nor the process.
func TestEnginePanic(t *testing.T) {
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler))
	m := longModel(t)
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	var broken atomic.Bool
	e.looking = func() {
		if broken.Load() {
			panic("kernel")
		}
	}
	first := ask(t.Context(), e, endless(m))
	waitFor(t, e, "it runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	broken.Store(true)
	if err := <-first; err == nil || err.Error() != "internal error: kernel" {
		t.Error(err)
	}
	broken.Store(false)
	completed(t, e, short(m, 1))
	if s := e.Stats(); s.Failed != 1 || s.Completed != 1 || e.CacheStats().InUse != 0 {
		t.Errorf("%+v", s)
	}
}

// TestEngineMemory: completions that outgrow the memory there is for them pause, all but the most urgent one; and all are finished.
func TestEngineMemory(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{CacheBytes: 1})
	defer e.Close()
	e.room = 12 * m.blockBytes
	var done []chan error
	for i := range 4 {
		r := under(short(m, i), Chat, "")
		r.MaxTokens, r.Speculate = 1200, SpeculateOff
		done = append(done, ask(t.Context(), e, r))
	}
	waitFor(t, e, "one pauses", func(s Stats) bool { return s.Running[Chat] > 0 && s.Paused[Chat] > 0 && s.Paused[Chat] < 3 })
	// There is room for somebody who types, in spite of them.
	if err := <-ask(t.Context(), e, short(m, 9)); err != nil {
		t.Error(err)
	}
	if s := e.Stats(); s.Completed != 1 {
		t.Errorf("%+v", s)
	}
	for _, d := range done {
		if err := <-d; err != nil {
			t.Error(err)
		}
	}
}

// TestEngineLongPrompt: somebody's long prompt holds up nobody's short one, nor is it held up by short ones for ever; and what others
// have to wait for is bounded once there are others.
func TestEngineLongPrompt(t *testing.T) {
	m := longModel(t)
	m.chunk = 100
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	longest := 0                             // tokens of a pass
	passes := map[*call]map[int64]struct{}{} // while calls of the second client were under way
	e.looking = func() {
		longest = max(longest, e.main.batch.n, e.patient.batch.n)
		for _, t := range e.held {
			if t.c.client == "b" {
				if passes[t.c] == nil {
					passes[t.c] = map[int64]struct{}{}
				}
				passes[t.c][e.stats.Passes] = struct{}{}
			}
		}
	}
	ids := randomIDs(rand.New(rand.NewPCG(1, 2)), m.vocab-10, 20000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	long := ask(ctx, e, Request{Prompt: Prompt{IDs: ids}, MaxTokens: 1, Client: "a"})
	waitFor(t, e, "the long prompt is under way", func(s Stats) bool { return s.PromptTokens > 0 })
	evaluated := e.Stats().PromptTokens
	for i := range 20 {
		r := short(m, 5+i)
		r.Client = "b"
		completed(t, e, r)
		if i == 0 && !e.company() {
			t.Error("there were others")
		}
	}
	if n := e.Stats().PromptTokens - evaluated; n < 20*leastPart {
		t.Errorf("%d tokens of the long prompt beside short ones", n)
	}
	cancel()
	<-long
	waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
	for _, p := range passes {
		if len(p) > 8 { // two with the prompt, five with what follows, one that it came in
			t.Errorf("a short request took %d passes", len(p))
		}
	}
	if len(passes) != 20 {
		t.Errorf("%d calls were seen", len(passes))
	}
	if longest > 100+e.o.Concurrency*headTokens {
		t.Errorf("a pass of %d tokens", longest)
	}
	// A prompt alone is evaluated in parts as long as can be, unless others have been there lately, or who types may leave it.
	for _, wants := range []struct {
		class  Class
		others time.Time
		token  float64
		n      int
	}{{Chat, time.Now(), patientStall.Seconds() / 50, 50}, {Chat, time.Time{}, patientStall.Seconds() / 50, 100}, {Interactive, time.Time{}, loss.Seconds() / 25, 25}} {
		e.others, e.latest = wants.others, turn{wants.class, "b"}
		e.speed.token, longest = wants.token, 0
		completed(t, e, Request{Prompt: Prompt{IDs: randomIDs(rand.New(rand.NewPCG(3, uint64(wants.n))), m.vocab-10, 100)}, MaxTokens: 1, Client: "b", Class: wants.class})
		waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
		if longest != wants.n {
			t.Errorf("a part of %d tokens, expected %d", longest, wants.n)
		}
	}
}

// TestSpeed: parts of prompts are as long as their time allows, from the first on, whatever passes take beside them.
func TestSpeed(t *testing.T) {
	var s speed
	if n := s.part(stall, 512); n != firstPart {
		t.Errorf("before anything was timed: %d", n)
	}
	pass := func(generating, prompts int) {
		s.pass(time.Duration(generating)*5*time.Millisecond+40*time.Millisecond+time.Duration(prompts)*time.Millisecond, generating, prompts)
	}
	pass(0, 512)
	if n := s.part(stall, 512); n < 85 || n > 100 {
		t.Errorf("after a prompt alone: %d", n)
	}
	for range 50 {
		pass(2, 0)
		pass(2, s.part(stall, 512))
	}
	if n := s.part(stall, 512); n < 95 || n > 100 {
		t.Errorf("%d, expected those of 100 ms", n)
	}
	if n := s.part(time.Hour, 512); n != 512 {
		t.Errorf("%d of at most 512", n)
	}
	if n := s.part(1, 512); n != leastPart {
		t.Errorf("%d, expected the least", n)
	}
}

// TestPace: a call turned away is told when those before it will be over, as far as that can be known.
func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	if d := p.after(3); d != time.Second {
		t.Errorf("nothing known: %v", d)
	}
	for range 40 {
		now = now.Add(1500 * time.Millisecond)
		p.finished(now, true)
	}
	if d := p.after(3); d != 6*time.Second {
		t.Errorf("every 1.5 s one ends, three are before: %v", d)
	}
	p.finished(now.Add(time.Hour), false) // there was nothing to do
	if d := p.after(3); d != 6*time.Second {
		t.Errorf("after a rest: %v", d)
	}
	if d := p.after(1000); d != time.Minute {
		t.Errorf("a long queue: %v", d)
	}
}
