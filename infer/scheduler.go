package infer

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// scheduler is what belongs to the goroutine that owns an engine's passes.
type scheduler struct {
	held    []*task // that have been started and are not over, in order of their start
	active  []*task // of held: who take part in passes now, the most urgent first
	main    jointPass
	patient jointPass  // which makes way for Interactive completions
	large   *workspace // nil: none was needed yet
	small   *workspace // for passes beside one that has made way
	logits  cardLogits // of passes on a card
	speed   speed
	looking func() // a batch's; nil but in tests
}

// loop runs passes as long as there is anything to do.
func (e *Engine) loop(stopped chan struct{}) {
	defer close(stopped)
	for !e.rest() {
		e.sweep()
		for _, t := range e.schedule() {
			e.start(t)
		}
		e.turn()
		// Receivers may be waiting for this processor.
		runtime.Gosched()
	}
}

// rest ends the loop when there is no call.
func (e *Engine) rest() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.calls) > 0 {
		return false
	}
	for _, w := range []*workspace{e.large, e.small} {
		if w != nil {
			e.m.release(w)
		}
	}
	e.logits.free()
	e.cache.trim()
	e.scheduler = scheduler{speed: e.speed, looking: e.looking}
	e.running = false
	return true
}

// sweep ends what belongs to calls that have ended, but for what is in a pass that has made way: that sees it itself.
func (e *Engine) sweep() {
	for _, t := range slices.Clone(e.held) {
		if err := context.Cause(t.c.ctx); err != nil && !e.patient.has(t) {
			e.finish(t, err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range slices.Clone(e.calls) {
		if c.held == 0 && c.ctx.Err() != nil {
			e.close(c)
		}
	}
}

// starting notes that a task will be started.
func (e *Engine) starting(t *task) {
	c, now := t.c, time.Now()
	if !c.started {
		c.started, c.begun = true, now
		e.stats.Started++
		e.stats.QueueWait += now.Sub(c.arrived)
	}
	c.rest--
	c.held++
	e.starts++
	e.served[turn{c.class, c.client}] = e.starts
	e.held = append(e.held, t)
}

// start lends a task its session.
func (e *Engine) start(t *task) {
	over := false
	err := guarded(func() (err error) {
		if t.entry, err = e.cache.take(t.known(), e.reserved(t), t.j.with, turn{t.c.class, t.c.client}); err != nil {
			return err
		}
		t.j.recent, t.j.prefill = e.cache.texts(), e.o.CacheBytes > 0
		var emit func(Chunk) error
		if t.c.emits {
			emit = t.emit
		}
		t.g = newGeneration(e.m, t.j, t.entry.session, emit)
		e.count(func(s *Stats) { s.CachedTokens += int64(t.g.s.Len()) })
		over, err = t.g.begin()
		return err
	})
	if over || err != nil {
		e.finish(t, err)
	}
}

// finish ends a task, takes its session back and, if it was the last of its call that was under way, ends the call.
func (e *Engine) finish(t *task, err error) {
	res := Result{PromptIDs: t.j.prompt.ids, Shortened: t.j.prompt.shortened, FinishReason: FinishCancel}
	if t.g != nil {
		res = t.g.end(err)
	}
	res.Timings.Queue = t.c.begun.Sub(t.c.arrived)
	if t.entry != nil {
		last := t.index+1 == len(t.c.tasks)
		e.cache.put(t.entry, !last && t.c.tasks[t.index+1].after == t)
		e.cache.remember(t.j.prompt.ids, res.IDs)
		t.entry = nil
	}
	t.over = true
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held = slices.DeleteFunc(e.held, func(x *task) bool { return x == t })
	e.active = slices.DeleteFunc(e.active, func(x *task) bool { return x == t })
	t.end(res, err)
	if err != nil {
		t.c.broken = t.c.ctx.Err() == nil
		t.c.cancel(err)
	}
	e.stats.add(res)
	e.changed = true
	if t.c.held--; t.c.held == 0 && (t.c.rest == 0 || err != nil) {
		e.close(t.c)
	}
}

// close ends a call of which nothing is under way. e.mu is held.
func (e *Engine) close(c *call) {
	if c.started {
		e.pace.finished(time.Now(), len(e.calls) > 1)
	}
	c.started = true
	e.calls = slices.DeleteFunc(e.calls, func(x *call) bool { return x == c })
	key := turn{c.class, c.client}
	if !slices.ContainsFunc(e.calls, func(x *call) bool { return turn{x.class, x.client} == key }) {
		delete(e.served, key)
	}
	e.changed = true
	close(c.over)
}

// decideAnew says that others may be able to run.
func (e *Engine) decideAnew() {
	e.mu.Lock()
	e.changed = true
	e.mu.Unlock()
}

// guarded makes an error of a panic, so that it ends what it happened in, and not all that the process does.
func guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("panic", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", v)
		}
	}()
	return f()
}
