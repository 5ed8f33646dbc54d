package infer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEngineAdmission: one call runs, a bounded number waits, the next is turned away, and whoever leaves or waits too long
// gives up the place.
func TestEngineAdmission(t *testing.T) {
	m := textModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{Queue: 1, MaxWait: time.Hour})
	req := []Request{{Prompt: Prompt{Prefix: "x"}, MaxTokens: 5, Sampling: Sampling{Bias: noEnd(m)}}}
	started, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		n := 0
		_, err := e.Complete(context.Background(), req, func(int, Chunk) error {
			if n++; n == 1 {
				close(started)
				<-release
			}
			return nil
		})
		first <- err
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := e.Complete(ctx, req, nil)
		second <- err
	}()
	for {
		e.mu.Lock()
		waiting := e.waiting
		e.mu.Unlock()
		if waiting == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	var busy *BusyError
	if _, err := e.Complete(t.Context(), req, nil); !errors.As(err, &busy) || busy.RetryAfter <= 0 || err.Error() != "busy: 1 requests are waiting" {
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
	e.o.MaxWait = time.Millisecond
	if _, err := e.Complete(t.Context(), req, nil); !errors.As(err, &busy) || !strings.Contains(err.Error(), "waited 1ms") {
		t.Errorf("call that waited too long: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("first call: %v", err)
	}
	if _, err := e.Complete(t.Context(), req, nil); err != nil {
		t.Errorf("call to the idle engine: %v", err)
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
