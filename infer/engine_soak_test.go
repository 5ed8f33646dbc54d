package infer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"autodev/model"
)

// known is a request and what it gives alone.
type known struct {
	r    Request
	want Result
}

// mixture returns requests of every kind: texts that begin alike, samples, stops, log-probabilities, replays, prompts alone.
func mixture(t *testing.T, m *Model) (all []known) {
	file := strings.Repeat("def add(a, b):\n    return a + b\n", 12)
	for i := range 36 {
		r := Request{
			Prompt:    Prompt{Prefix: file[:len(file)-7*(i%9)] + strings.Repeat("z", i%4), Suffix: []string{"", "\nend\n"}[i%2]},
			MaxTokens: []int{0, 1, 12, 40}[i%4], Logprobs: i%3 == 0, Top: i % 3,
			Sampling:  Sampling{Temperature: float64(i % 3), TopP: 0.9, Seed: uint64(i % 5), Bias: noEnd(m)},
			Speculate: []Speculate{SpeculateAuto, SpeculateAlways, SpeculateOff}[i%3],
		}
		switch i % 6 {
		case 1:
			r.Stop = []string{"a", "tur", "\n\n"}
			r.MinTokens = min(r.MaxTokens, i%4+5*(i%12))
		case 2:
			r.Replay = m.tok.Encode(file[:100])
		case 4:
			r.PromptLogprobs = i%12 == 4
		case 5:
			r.Prompt = Prompt{IDs: randomIDs(rand.New(rand.NewPCG(uint64(i), 1)), m.vocab, 1+3*i)}
		}
		want, err := m.Generate(t.Context(), r, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, known{r, want})
	}
	return all
}

// TestEngineSoak: whatever many callers ask for at the same time, with whatever leaves, in whatever classes and sessions, and however
// little memory there is: every answer is that of its request alone, and nothing is left afterwards.
func TestEngineSoak(t *testing.T) {
	for _, c := range []struct {
		o       EngineOptions
		chunk   int
		threads int
	}{
		{EngineOptions{}, 512, 2},
		{EngineOptions{Concurrency: 3, Queue: 10, CacheBytes: 1}, 40, 1},
		{EngineOptions{Concurrency: 16, CacheBytes: -1}, 100, 3},
	} {
		t.Run(fmt.Sprint(c.o.Concurrency), func(t *testing.T) {
			m := textModel(t, func(c *model.Config) { c.Positions = 500 }, c.threads)
			m.chunk = c.chunk
			all := mixture(t, m)
			goroutines := runtime.NumGoroutine()
			e := NewEngine(m, c.o)
			if c.o.CacheBytes == 1 {
				e.room = 3 * m.blockBytes
			}
			var wg sync.WaitGroup
			var answered, left, late, busy atomic.Int64
			end := time.Now().Add(800 * time.Millisecond)
			for i := range 24 {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(uint64(i), 7))
					for n := 0; time.Now().Before(end) || n < 3; n++ {
						switch err := soakCall(t, e, all, r, i); {
						case err == nil:
							answered.Add(1)
						case errors.Is(err, context.Canceled):
							left.Add(1)
						case errors.As(err, new(*SupersededError)):
							late.Add(1)
						case errors.As(err, new(*BusyError)):
							busy.Add(1)
							time.Sleep(time.Millisecond)
						default:
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			waitFor(t, e, "the engine rests", func(s Stats) bool { return !e.busy() })
			s, cache := e.Stats(), e.CacheStats()
			t.Logf("%d answered, %d left, %d superseded, %d turned away; %.1f rows a pass; %+v", answered.Load(), left.Load(), late.Load(), busy.Load(), float64(s.Rows)/float64(s.Passes), s)
			if s.Completed != answered.Load() || s.Cancelled != left.Load() || s.Superseded != late.Load() || s.Rejected != busy.Load() || s.Failed != 0 {
				t.Error("the engine has counted otherwise")
			}
			if answered.Load() < 24 || left.Load() == 0 || late.Load() == 0 {
				t.Error("too little has happened")
			}
			if cache.InUse != 0 || cache.Bytes > max(0, e.o.CacheBytes) || m.users != 0 || len(e.served) != 0 {
				t.Errorf("not given back: %+v, %d uses of the model, turns %v", cache, m.users, e.served)
			}
			e.Close()
			if n := e.Stats().CacheBytes; n != 0 {
				t.Errorf("%d bytes of keys and values are left", n)
			}
			for i := 0; runtime.NumGoroutine() > goroutines; i++ {
				if i == 1000 {
					t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// soakCall makes one call of one to three requests and compares what it gets.
func soakCall(t *testing.T, e *Engine, all []known, r *rand.Rand, client int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	picked := []known{all[r.IntN(len(all))]}
	for r.IntN(4) == 0 && len(picked) < 3 {
		picked = append(picked, picked[0])
		if r.IntN(2) == 0 {
			picked[len(picked)-1] = all[r.IntN(len(all))]
		}
	}
	reqs := make([]Request, len(picked))
	for i, k := range picked {
		reqs[i] = k.r
		reqs[i].Class, reqs[i].Client = Class(r.IntN(3)), fmt.Sprint(client/3)
		reqs[i].Session = []string{"", "", "s"}[r.IntN(3)]
	}
	chunks, leaveAt := 0, -1
	switch r.IntN(6) {
	case 0:
		leaveAt = r.IntN(4)
	case 1:
		time.AfterFunc(time.Duration(r.IntN(20))*time.Millisecond, cancel)
	}
	var emit func(int, Chunk) error
	streamed := make([]strings.Builder, len(reqs))
	if leaveAt >= 0 || r.IntN(2) == 0 {
		emit = func(i int, ch Chunk) error {
			if leaveAt >= 0 && chunks > leaveAt {
				t.Error("a chunk for somebody who has left")
			}
			if chunks++; leaveAt >= 0 && chunks > leaveAt {
				cancel()
			}
			streamed[i].WriteString(ch.Text)
			return nil
		}
	}
	results, err := e.Complete(ctx, reqs, emit)
	for i, res := range results {
		switch {
		case err != nil && i+1 == len(results) && res.FinishReason == FinishCancel:
			if len(res.IDs) > len(picked[i].want.IDs) || !slices.Equal(res.IDs, picked[i].want.IDs[:len(res.IDs)]) {
				t.Errorf("cut off by %v: %v, expected a beginning of %v", err, res.IDs, picked[i].want.IDs)
			}
		case !sameCompletion(res, picked[i].want) || emit != nil && streamed[i].String() != res.Text:
			t.Errorf("%q, streamed %q, expected %q", res.Text, streamed[i].String(), picked[i].want.Text)
		}
	}
	if err == nil && len(results) != len(reqs) {
		t.Errorf("%d results of %d", len(results), len(reqs))
	}
	return err
}
