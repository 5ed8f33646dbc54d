package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// EngineOptions bound an Engine. Zero values take the defaults.
type EngineOptions struct {
	// Concurrency is how many completions share passes: 8, where there is memory for them.
	Concurrency int
	Queue       int           // calls that may wait: 64
	MaxWait     time.Duration // longest wait: a minute
	// CacheBytes bounds the memory that keeps the keys and values of recent prompts and completions, for prompts that begin like
	// them: what 15 % of the weights leave beside the rest, but one context at least and eight, or 1 GiB, at most. Negative: none
	// is kept.
	CacheBytes int64
	Reuse      Reuse // of suggestions, for requests that allow it; "" is ReuseExact
}

// Engine completes the requests of any number of callers with one model. One goroutine owns all passes: each evaluates the next
// tokens of all completions under way, and of prompts as many as the others can wait for. What a completion is does not depend on
// what else is in its passes: it is Model.Generate's, bit for bit. A bounded number of calls waits; the rest is turned away at once.
//
// Interactive requests go before Chat and those before Background: a slot is taken from a request of a lower class, which pauses
// and keeps what was evaluated, and a pass with prompts of lower classes makes way between two kernels. Within a class the clients take turns. The latest call of a client's session ends those before it.
// A prompt that begins like a recent one is evaluated only from where they part; what Interactive requests have used in the last ten minutes
// is not forgotten for what others ask.
//
// It is safe for use by any number of goroutines, has none of its own while there is nothing to do, and must not be used after its
// model was closed.
type Engine struct {
	m     *Model
	o     EngineOptions
	cache *prefixes
	shown *suggestions
	room  int64 // bytes of keys and values that completions under way may take

	mu      sync.Mutex
	calls   []*call // that are not over, in order of arrival
	served  map[turn]uint64
	starts  uint64
	latest  turn // of the latest call, which arrived at
	at      time.Time
	others  time.Time // when calls of two turns arrived shortly one after the other
	changed bool      // who runs must be decided anew
	running bool      // the loop
	stopped chan struct{}
	closed  bool
	stats   Stats
	pace    pace

	scheduler // the loop's own
}

// BusyError says that the engine has no room now. RetryAfter is a good moment to try again.
type BusyError struct {
	Reason     string
	RetryAfter time.Duration
}

func (e *BusyError) Error() string { return "busy: " + e.Reason }

// SupersededError ends a call when a later one of the same client's session has arrived: nobody waits for its answer.
type SupersededError struct{ Session string }

func (e *SupersededError) Error() string {
	return fmt.Sprintf("session %q: a later request has arrived", e.Session)
}

var (
	errEmit         = errors.New("the receiver of the completion failed")
	errEngineClosed = errors.New("the engine is closed")
)

// NewEngine returns an Engine over m.
func NewEngine(m *Model, o EngineOptions) *Engine {
	if o.Concurrency <= 0 {
		o.Concurrency = 8
	}
	if o.Queue <= 0 {
		o.Queue = 64
	}
	if o.MaxWait <= 0 {
		o.MaxWait = time.Minute
	}
	usual := defaultCacheBytes(m)
	switch {
	case o.CacheBytes == 0:
		o.CacheBytes = usual
	case o.CacheBytes < 0:
		o.CacheBytes = 0
	}
	room := max(o.CacheBytes, usual)
	if m.card != nil {
		o.CacheBytes = m.card.keep(o.CacheBytes, o.Concurrency)
		room = m.card.pageBytes*int64(m.card.pages) - o.CacheBytes
	}
	return &Engine{m: m, o: o, cache: newPrefixes(m, o.CacheBytes), shown: newSuggestions(suggestionBytes), room: room, served: map[turn]uint64{}}
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

// Complete generates a completion for every request: all are checked before any of them waits, and they wait together. Requests of
// a call with equal prompts have it evaluated once. One for no tokens puts its prompt into the cache. The first request's Class,
// Client and Session are the call's.
//
// emit, which may be nil, gets the chunks of request i, on the caller's goroutine: all of one request before those of the next. A
// receiver that is slow delays nobody else. The first error ends the call; the results so far come with it, of which the last may be
// cut off: FinishCancel then. Errors of a request are *OptionError and the like; beside them there are *BusyError, *SupersededError, what ended
// ctx, and what emit returned.
func (e *Engine) Complete(ctx context.Context, reqs []Request, emit func(i int, c Chunk) error) ([]Result, error) {
	if len(reqs) == 0 {
		return nil, nil
	}
	jobs := make([]*job, len(reqs))
	for i, r := range reqs {
		j, err := e.m.prepare(r)
		if err != nil {
			return nil, err
		}
		jobs[i] = j
	}
	c := newCall(ctx, jobs, emit != nil)
	defer c.cancel(nil)
	if results, ok, err := e.reuse(c, emit); ok {
		return results, err
	}
	if err := e.submit(c); err != nil {
		return nil, err
	}
	results, err := e.attend(c, emit)
	if err == nil && len(jobs) == 1 && jobs[0].suggests() && e.o.Reuse != ReuseOff {
		e.shown.add(jobs[0], results[0])
	}
	e.count(func(s *Stats) { s.ended(err, c.broken) })
	return results, err
}

// submit puts a call into the queue, and ends those of its session before it.
func (e *Engine) submit(c *call) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errEngineClosed
	}
	if c.session != "" {
		e.supersede(c)
	}
	if err := e.admit(c); err != nil {
		e.stats.Rejected++
		return err
	}
	c.arrived = time.Now()
	if key := (turn{c.class, c.client}); key != e.latest {
		if c.arrived.Sub(e.at) < lately {
			e.others = c.arrived
		}
		e.latest = key
	}
	e.at = c.arrived
	e.calls, e.changed = append(e.calls, c), true
	if !e.running {
		e.running, e.stopped = true, make(chan struct{})
		go e.loop(e.stopped)
	}
	return nil
}

// supersede ends the calls of c's session.
func (e *Engine) supersede(c *call) {
	for _, x := range slices.Clone(e.calls) {
		if x.client == c.client && x.session == c.session {
			x.cancel(&SupersededError{c.session})
			if !x.started {
				e.close(x)
			}
		}
	}
}

// admit makes sure that there is room for another call to wait. Chat and Background requests leave a quarter of the queue to
// Interactive ones, and Background ones half of it to others. Where a client has filled it, its latest call makes room for others'
// of the class.
func (e *Engine) admit(c *call) error {
	share := e.o.Queue
	switch c.class {
	case Chat:
		share = max(1, share*3/4)
	case Background:
		share = max(1, share/2)
	}
	waiting, before := 0, 0      // calls, and of those the classes that share a bound with c
	clients := map[string]int{}  // calls of c's class
	latest := map[string]*call{} // of these
	for _, x := range e.calls {
		if x.started {
			continue
		}
		waiting++
		if x.class >= c.class {
			before++
		}
		if x.class == c.class {
			clients[x.client]++
			latest[x.client] = x
		}
	}
	if waiting < e.o.Queue && (c.class == Interactive || before < share) {
		return nil
	}
	busy := &BusyError{fmt.Sprintf("%d requests are waiting", waiting), e.pace.after(waiting)}
	most := c.client
	for _, x := range e.calls { // in order, so that equals are told apart
		if clients[x.client] > clients[most] {
			most = x.client
		}
	}
	if clients[most] < clients[c.client]+2 {
		return busy
	}
	latest[most].cancel(busy)
	e.close(latest[most])
	return nil
}

// leave ends a call that has not been started with an error, which it returns.
func (e *Engine) leave(c *call, err func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.started {
		return nil
	}
	c.cancel(err())
	e.close(c)
	return context.Cause(c.ctx)
}

// attend gives the chunks of a call to its receiver until it is over.
func (e *Engine) attend(c *call, emit func(i int, ch Chunk) error) ([]Result, error) {
	timeout := time.NewTimer(e.o.MaxWait)
	defer timeout.Stop()
	ended := c.ctx.Done()
	for over := false; !over; {
		select {
		case <-c.wake:
		case <-c.over:
			over = true
		case <-ended:
			if err := e.leave(c, c.ctx.Err); err != nil {
				return nil, err
			}
			ended = nil
		case <-timeout.C:
			err := e.leave(c, func() error {
				return &BusyError{fmt.Sprintf("waited %v for a turn", e.o.MaxWait), e.pace.after(len(e.calls))}
			})
			if err != nil {
				return nil, err
			}
		}
		c.deliver(emit)
	}
	return c.results()
}

// Close ends all calls with an error, waits until they are over and gives the memory of keys and values back. Later calls fail.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	for _, c := range e.calls {
		c.cancel(errEngineClosed)
	}
	stopped := e.stopped
	e.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	e.cache.clear()
}

// turn is whose turn it may be.
type turn struct {
	class  Class
	client string
}

// pace is how fast calls are finished.
type pace struct {
	interval float64 // seconds between two, lately
	last     time.Time
}

// finished notes the end of a call; busy says that others were there all the time since the last.
func (p *pace) finished(now time.Time, busy bool) {
	if busy && !p.last.IsZero() {
		d := now.Sub(p.last).Seconds()
		if p.interval == 0 {
			p.interval = d
		}
		p.interval += (d - p.interval) / 8
	}
	p.last = now
}

// after estimates when there will be room for one more than n calls: whole seconds, one at least and a minute at most.
func (p *pace) after(n int) time.Duration {
	seconds := math.Ceil(p.interval * float64(n+1))
	return time.Duration(min(max(seconds, 1), 60)) * time.Second
}
