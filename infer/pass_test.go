package infer

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// longPrompt is a background request whose prompt of 600 tokens takes one part.
func longPrompt(m *Model) Request {
	m.chunk = 600
	ids := randomIDs(rand.New(rand.NewPCG(1, 2)), m.vocab-10, m.chunk)
	return under(Request{Prompt: Prompt{IDs: ids}, MaxTokens: 1, Sampling: Sampling{Bias: noEnd(m)}}, Background, "b")
}

// kernels notes whose kernels run, one after the other: i of passes with Interactive completions, b of others, and calls then, if it is not nil.
// They may be read when the engine rests.
func kernels(e *Engine, then func(n int)) *strings.Builder {
	var ran strings.Builder
	e.looking = func() {
		if len(e.main.tasks) > 0 {
			ran.WriteByte('i')
		} else {
			ran.WriteByte('b')
		}
		if then != nil {
			then(ran.Len())
		}
	}
	return &ran
}

// TestEngineMakesWay: an Interactive request waits for one kernel of a prompt of a lower class, at whichever it comes; no kernel is run twice for
// that, and both completions are what they are alone.
func TestEngineMakesWay(t *testing.T) {
	m := longModel(t)
	long, typed := longPrompt(m), short(m, 1)
	e := NewEngine(m, EngineOptions{CacheBytes: -1})
	ran := kernels(e, nil)
	want := completed(t, e, long)
	wantTyped, err := m.Generate(t.Context(), typed, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	alone := strings.Count(ran.String(), "b")
	for at := 1; at < len(m.program.steps)-1; at++ {
		e := NewEngine(m, EngineOptions{CacheBytes: -1})
		got := make(chan []Result, 1)
		ran := kernels(e, func(n int) {
			if n != at {
				return
			}
			go func() {
				res, err := e.Complete(t.Context(), []Request{typed}, nil)
				if err != nil {
					t.Error(err)
				}
				got <- res
			}()
			waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[Interactive] == 1 })
		})
		if res := completed(t, e, long); !sameCompletion(res, want) {
			t.Errorf("after kernel %d: %v, alone %v", at, res.IDs, want.IDs)
		}
		if res := <-got; !sameCompletion(res[0], wantTyped) {
			t.Errorf("after kernel %d: %v, alone %v", at, res[0].IDs, wantTyped.IDs)
		}
		e.Close()
		if order := ran.String(); order[at] != 'i' || strings.Count(order, "b") != alone {
			t.Errorf("a request comes in kernel %d: the kernels are %s, expected its own from the next on, and %d others in all", at, order, alone)
		}
	}
}

// TestEngineMadeWayGoesOn: a prompt that has made way is evaluated although there is always somebody who types: one kernel for each pass of theirs, at
// least.
func TestEngineMadeWayGoesOn(t *testing.T) {
	m := longModel(t)
	long := longPrompt(m)
	long.MaxTokens = 0
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	typing := ask(ctx, e, endless(m))
	waitFor(t, e, "somebody types", func(s Stats) bool { return s.GeneratedTokens > 0 || s.Passes > 1 })
	before := e.Stats().Passes
	if err := <-ask(t.Context(), e, long); err != nil {
		t.Error(err)
	}
	// The parts are as long as is good beside others, the first of them short.
	passes, most := e.Stats().Passes-before, int64(1+len(m.program.steps))*int64(len(long.Prompt.IDs))/leastPart
	if passes > most {
		t.Errorf("%d passes until the prompt was evaluated, expected at most %d", passes, most)
	}
	cancel()
	<-typing
}

// TestEngineMadeWayEnds: who leaves while the pass has made way gives everything back, and those who type have it their own way.
func TestEngineMadeWayEnds(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{CacheBytes: -1})
	defer e.Close()
	long, left := context.WithCancel(t.Context())
	typing, cancel := context.WithCancel(t.Context())
	var typist chan error
	came := make(chan struct{})
	kernels(e, func(n int) {
		switch {
		case n == 2:
			typist = ask(typing, e, endless(m))
			waitFor(t, e, "it waits", func(s Stats) bool { return s.Queued[Interactive] == 1 })
		case n == 3:
			left()
			close(came)
		}
	})
	if err := <-ask(long, e, longPrompt(m)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-came
	waitFor(t, e, "its memory is given back", func(s Stats) bool {
		return s.Running[Interactive] == 1 && s.Running[Background]+s.Paused[Background] == 0 && s.CacheInUse <= int64(m.blocksFor(m.Context()))*m.blockBytes
	})
	cancel()
	<-typist
	if n := e.CacheStats().InUse; n != 0 {
		t.Errorf("%d bytes in use", n)
	}
}

// TestEngineGuessesBehindPrompt: what was suggested just now is guessed in the pass that evaluates the end of the prompt.
func TestEngineGuessesBehindPrompt(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	r := Request{Prompt: Prompt{Prefix: "def add(a, b):\n    return a"}, MaxTokens: 12, Speculate: SpeculateAlways, Sampling: Sampling{Bias: noEnd(m)}}
	first := completed(t, e, r)
	before := e.Stats()
	again := completed(t, e, r)
	after := e.Stats()
	if !sameCompletion(first, again) || again.Accepted != 11 || after.Passes-before.Passes != 1 || after.PromptTokens-before.PromptTokens != 1 || after.Rows-before.Rows != 12 {
		t.Errorf("%d guesses right of %d, %d passes with %d rows, %d of them of the prompt: expected one pass of a token and 11 right guesses\n%v\n%v",
			again.Accepted, again.Drafted, after.Passes-before.Passes, after.Rows-before.Rows, after.PromptTokens-before.PromptTokens, first.IDs, again.IDs)
	}
}
