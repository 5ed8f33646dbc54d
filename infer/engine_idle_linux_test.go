package infer

import (
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"autodev/infer/infertest"
)

// processorTime is what this process has used of all processors.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestIdleAfterDisconnect: when the only client leaves in the middle of a long prompt, the processors are idle within 50 ms.
func TestIdleAfterDisconnect(t *testing.T) {
	c := infertest.Config(1024)
	c.Positions, c.Embed, c.Layers, c.Heads, c.Inner, c.InitStd = 4096, 640, 3, 5, 2560, 0.02
	m := newModel(t, infertest.Checkpoint(c), nil, 2)
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	for _, later := range []time.Duration{5, 30, 70} {
		// Another prompt each time: none is in the cache.
		ids := randomIDs(rand.New(rand.NewPCG(1, uint64(later))), m.vocab, 4000)
		idleAfter(t, e, ids, later*time.Millisecond)
	}
}

// idleAfter leaves some time after the first part of a prompt has been evaluated.
func idleAfter(t *testing.T, e *Engine, ids []int32, later time.Duration) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	done := make(chan error, 1)
	had := e.Stats().PromptTokens
	go func() {
		_, err := e.Complete(ctx, []Request{{Prompt: Prompt{IDs: ids}, MaxTokens: 10}}, nil)
		done <- err
	}()
	waitFor(t, e, "the prompt is under way", func(s Stats) bool { return s.PromptTokens > had })
	time.Sleep(later)
	before, left := processorTime(t), time.Now()
	leave()
	err := <-done
	took := time.Since(left)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v: the prompt was evaluated before the client left", err)
	}
	// Were it not idle, this would be time enough for hundreds of milliseconds.
	time.Sleep(150 * time.Millisecond)
	used := processorTime(t) - before
	t.Logf("left %v after the first part: over after %v, in which %v of processors were used; %d tokens of %d evaluated", later, took, used, e.Stats().PromptTokens-had, len(ids))
	if used > 100*time.Millisecond {
		t.Errorf("%v of two processors used after the client had left, expected at most 50 ms of each", used)
	}
}
