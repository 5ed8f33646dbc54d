package infer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/model"
)

// waitFor waits until the engine's numbers are as expected.
func waitFor(t *testing.T, e *Engine, what string, ok func(s Stats) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(e.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not so after ten seconds: %+v", what, e.Stats())
		}
	}
}

// busy reports whether the engine's goroutine is running.
func (e *Engine) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running
}

// endless is a request that goes on until it is ended, or nearly.
func endless(m *Model) Request {
	return Request{Prompt: Prompt{Prefix: "x"}, MaxTokens: 1 << 20, Sampling: Sampling{Bias: noEnd(m), Temperature: 1}}
}

func longModel(t testing.TB) *Model {
	return textModel(t, func(c *model.Config) { c.Positions = 50000 }, 1)
}

// TestEngineAdmission: as many calls run as may, a bounded number waits, the next is turned away, and whoever leaves or waits too
// long gives up the place.
func TestEngineAdmission(t *testing.T) {
	m := longModel(t)
	e := NewEngine(m, EngineOptions{Concurrency: 1, Queue: 1, MaxWait: time.Hour})
	req := []Request{{Prompt: Prompt{Prefix: "x"}, MaxTokens: 5, Sampling: Sampling{Bias: noEnd(m)}}}
	running, stop := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := e.Complete(running, []Request{endless(m)}, nil)
		first <- err
	}()
	waitFor(t, e, "one runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := e.Complete(ctx, req, nil)
		second <- err
	}()
	waitFor(t, e, "one waits", func(s Stats) bool { return s.Queued[Interactive] == 1 })
	var busy *BusyError
	if _, err := e.Complete(t.Context(), req, nil); !errors.As(err, &busy) || busy.RetryAfter < time.Second || err.Error() != "busy: 1 requests are waiting" {
		t.Errorf("third call: %v, expected to be turned away", err)
	}
	// A bad request does not wait to be told so.
	var bad *OptionError
	if _, err := e.Complete(t.Context(), []Request{{MaxTokens: -1}}, nil); !errors.As(err, &bad) {
		t.Errorf("bad request while busy: %v", err)
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("call that left the queue: %v", err)
	}
	stop()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first call: %v", err)
	}
	impatient := NewEngine(m, EngineOptions{Concurrency: 1, Queue: 1, MaxWait: 100 * time.Millisecond})
	running, stop = context.WithCancel(t.Context())
	go func() {
		_, err := impatient.Complete(running, []Request{endless(m)}, nil)
		first <- err
	}()
	waitFor(t, impatient, "one runs", func(s Stats) bool { return s.Running[Interactive] == 1 })
	if _, err := impatient.Complete(t.Context(), req, nil); !errors.As(err, &busy) || !strings.Contains(err.Error(), "waited 100ms") {
		t.Errorf("call that waited too long: %v", err)
	}
	stop()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the call that it waited for: %v", err)
	}
	if _, err := e.Complete(t.Context(), req, nil); err != nil {
		t.Errorf("call to the idle engine: %v", err)
	}
	if s := e.Stats(); s.Completed != 1 || s.Cancelled != 2 || s.Rejected != 1 || s.Failed != 0 || s.Started != 2 {
		t.Errorf("%+v", s)
	}
	if s := impatient.Stats(); s.Cancelled != 1 || s.Rejected != 1 {
		t.Errorf("%+v", s)
	}
}

func TestEngineComplete(t *testing.T) {
	m := textModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{})
	reqs := []Request{
		{Prompt: Prompt{Prefix: "def f"}, MaxTokens: 6},
		{Prompt: Prompt{Prefix: "class A"}, MaxTokens: 7, Sampling: Sampling{Temperature: 1, Seed: 4}},
	}
	streamed := make([]string, len(reqs))
	results, err := e.Complete(t.Context(), reqs, func(i int, c Chunk) error {
		streamed[i] += c.Text
		return nil
	})
	if err != nil || len(results) != 2 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, r := range reqs {
		want, err := m.Generate(t.Context(), r, nil)
		if err != nil || results[i].Text != want.Text || streamed[i] != want.Text || !slices.Equal(results[i].IDs, want.IDs) {
			t.Errorf("request %d: %q, streamed %q, expected %q (%v)", i, results[i].Text, streamed[i], want.Text, err)
		}
	}
	gone := errors.New("gone")
	results, err = e.Complete(t.Context(), reqs, func(i int, c Chunk) error { return gone })
	if !errors.Is(err, gone) || len(results) != 1 || results[0].FinishReason != FinishCancel {
		t.Errorf("receiver failed: %d results, %v", len(results), err)
	}
}
