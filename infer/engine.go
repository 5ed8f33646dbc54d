package infer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// EngineOptions bound an Engine. Zero values take the defaults.
type EngineOptions struct {
	Concurrency int           // calls that generate at the same time: 1
	Queue       int           // calls that may wait: 64
	MaxWait     time.Duration // longest wait: a minute
	// CacheBytes bounds the memory that keeps the keys and values of recent prompts and completions, for prompts that begin like
	// them: what 15 % of the weights leave beside the rest, but one context at least and eight, or 1 GiB, at most. Negative: none
	// is kept.
	CacheBytes int64
}

// Engine admits calls to a model: a bounded number generates, a bounded number waits in order of arrival, the rest is turned
// away at once. A prompt that begins like a recent one is evaluated only from where they part; completions are the same bit for
// bit. It is safe for use by any number of goroutines.
type Engine struct {
	m       *Model
	o       EngineOptions
	cache   *prefixes
	slots   chan struct{}
	mu      sync.Mutex
	waiting int
}

// BusyError says that the engine has no room now. RetryAfter is a good moment to try again.
type BusyError struct {
	Reason     string
	RetryAfter time.Duration
}

func (e *BusyError) Error() string { return "busy: " + e.Reason }

var errEmit = errors.New("the receiver of the completion failed")

// NewEngine returns an Engine over m.
func NewEngine(m *Model, o EngineOptions) *Engine {
	if o.Concurrency <= 0 {
		o.Concurrency = 1
	}
	if o.Queue <= 0 {
		o.Queue = 64
	}
	if o.MaxWait <= 0 {
		o.MaxWait = time.Minute
	}
	switch {
	case o.CacheBytes == 0:
		o.CacheBytes = defaultCacheBytes(m)
	case o.CacheBytes < 0:
		o.CacheBytes = 0
	}
	if m.card != nil {
		o.CacheBytes = m.card.keep(o.CacheBytes, o.Concurrency)
	}
	return &Engine{m: m, o: o, cache: newPrefixes(m, o.CacheBytes), slots: make(chan struct{}, o.Concurrency)}
}

// Info returns what a client may want to know about the model.
func (e *Engine) Info() Info { return e.m.Info() }

// Decode returns the text of token ids, "" without a tokenizer.
func (e *Engine) Decode(ids []int32) string {
	if e.m.tok == nil {
		return ""
	}
	return e.m.tok.Decode(ids)
}

// TokenText returns the bytes of a token, nil without a tokenizer.
func (e *Engine) TokenText(id int32) []byte {
	if e.m.tok == nil {
		return nil
	}
	return e.m.tok.TokenBytes(id)
}

// Complete generates a completion for every request, under one admission: all are checked before any of them waits. Requests
// with equal prompts that follow each other have it evaluated once. One for no tokens puts its prompt into the cache. emit, which
// may be nil, gets the chunks of request i. The first error ends the call; the results so far come with it.
func (e *Engine) Complete(ctx context.Context, reqs []Request, emit func(i int, c Chunk) error) ([]Result, error) {
	jobs := make([]*job, len(reqs))
	for i, r := range reqs {
		j, err := e.m.prepare(r)
		if err != nil {
			return nil, err
		}
		jobs[i] = j
	}
	arrived := time.Now()
	if err := e.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-e.slots }()
	queued := time.Since(arrived)
	results := make([]Result, 0, len(jobs))
	for i, j := range jobs {
		res, err := e.complete(ctx, j, i+1 < len(jobs), func(c Chunk) error {
			if emit == nil {
				return nil
			}
			if err := emit(i, c); err != nil {
				return fmt.Errorf("%w: %w", errEmit, err)
			}
			return nil
		})
		res.Timings.Queue = queued
		results = append(results, res)
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// complete runs one admitted job; more says that another of the same call follows, which may share its prompt.
func (e *Engine) complete(ctx context.Context, j *job, more bool, emit func(Chunk) error) (Result, error) {
	prompt := j.prompt.ids
	if j.PromptLogprobs {
		prompt = nil // all of it is evaluated, to be scored
	}
	entry, err := e.cache.take(prompt, min(len(j.prompt.ids)+j.prompt.maxNew, e.m.Context()))
	if err != nil {
		return Result{PromptIDs: j.prompt.ids, FinishReason: FinishCancel}, err
	}
	defer func() { e.cache.put(entry, more) }()
	j.recent = e.cache.texts()
	j.prefill = e.o.CacheBytes > 0
	res, err := e.m.run(ctx, j, entry.session, emit)
	e.cache.remember(j.prompt.ids, res.IDs)
	return res, err
}

func (e *Engine) acquire(ctx context.Context) error {
	select {
	case e.slots <- struct{}{}:
		return nil
	default:
	}
	e.mu.Lock()
	if e.waiting >= e.o.Queue {
		e.mu.Unlock()
		return &BusyError{fmt.Sprintf("%d requests are waiting", e.o.Queue), time.Second}
	}
	e.waiting++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.waiting--
		e.mu.Unlock()
	}()
	timeout := time.NewTimer(e.o.MaxWait)
	defer timeout.Stop()
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timeout.C:
		return &BusyError{fmt.Sprintf("waited %v for a turn", e.o.MaxWait), time.Second}
	}
}
