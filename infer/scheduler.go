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
	work    *workspace
	batch   batch
	spans   []*span
	inPass  []*task
	results []passed
	long    bool // the last pass had a part of a long prompt
	speed   speed
}

// loop runs passes as long as there is anything to do.
func (e *Engine) loop(stopped chan struct{}) {
	defer close(stopped)
	for !e.rest() {
		e.sweep()
		for _, t := range e.schedule() {
			e.start(t)
		}
		if len(e.active) > 0 {
			e.pass()
			// Receivers may be waiting for this processor.
			runtime.Gosched()
		}
	}
}

// rest ends the loop when there is no call.
func (e *Engine) rest() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.calls) > 0 {
		return false
	}
	if e.work != nil {
		e.m.release(e.work)
	}
	e.cache.trim()
	e.scheduler = scheduler{speed: e.speed, batch: batch{looking: e.batch.looking}}
	e.running = false
	return true
}

// sweep ends what belongs to calls that have ended.
func (e *Engine) sweep() {
	for _, t := range slices.Clone(e.held) {
		if err := context.Cause(t.c.ctx); err != nil {
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
		if t.entry, err = e.cache.take(t.known(), e.reserved(t), t.j.with); err != nil {
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

// pass evaluates the next tokens of all that are active.
func (e *Engine) pass() {
	for t, err := range e.plan() {
		e.finish(t, err)
	}
	if len(e.spans) == 0 {
		return
	}
	began := time.Now()
	err := guarded(e.evaluate)
	d := time.Since(began)
	e.results = e.results[:0]
	for _, t := range e.inPass {
		e.results = append(e.results, passed{t: t, prompt: !t.g.prompted, over: true, err: err})
	}
	if err == nil {
		alone := len(e.results) == 1
		e.m.pool.Run(len(e.results), func(i int) {
			r := &e.results[i]
			r.err = guarded(func() (err error) {
				r.over, err = r.t.g.take(d, alone)
				return err
			})
		})
		e.learn(d)
	}
	for _, r := range e.results {
		if r.prompt && r.err == nil {
			e.cache.settle(r.t.entry)
			if r.t.g.prompted {
				e.decideAnew() // others of the call have waited for it
			}
		}
		if r.over || r.err != nil {
			e.finish(r.t, r.err)
		}
	}
	clear(e.results)
}

// passed is what a pass was for one of its tasks.
type passed struct {
	t      *task
	prompt bool // it was a part of its prompt
	over   bool
	err    error
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

// plan fills spans and inPass: the last tokens of all that generate, with guesses, and the next part of the most urgent prompt, with
// other short ones. It returns those for which there is no memory.
func (e *Engine) plan() (failed map[*task]error) {
	e.spans, e.inPass = e.spans[:0], e.inPass[:0]
	add := func(t *task, chunk, rows, others int) int {
		had := t.g.s.kv.capacity()
		sp, err := t.g.plan(t.c.ctx, chunk, rows, others)
		if err != nil {
			if failed == nil {
				failed = map[*task]error{}
			}
			failed[t] = err
			return 0
		}
		if t.g.s.kv.capacity() > had {
			e.cache.grown(t.entry)
			e.decideAnew()
		}
		e.spans, e.inPass = append(e.spans, sp), append(e.inPass, t)
		return len(sp.ids)
	}
	var generating, prompts []*task
	for _, t := range e.active {
		if t.g.left() > 0 {
			e.advance(t)
			prompts = append(prompts, t)
		} else {
			generating = append(generating, t)
		}
	}
	rows := 0 // of prompts
	parts, chunk := e.parts(prompts, generating)
	for _, t := range parts {
		rows += add(t, chunk, 0, 0)
	}
	guesses, others := max(0, e.m.pass-len(generating)), rows+len(generating)-1
	for _, t := range generating {
		more := add(t, 0, 1+guesses, others) - 1
		guesses, others = guesses-more, others+more
	}
	return failed
}

// advance lets a task go on behind what others have evaluated of its prompt since it was started.
func (e *Engine) advance(t *task) {
	if t.j.PromptLogprobs {
		return
	}
	if n := e.cache.advance(t.entry, t.j.prompt.ids); n > 0 {
		t.g.res.Cached += n
		e.count(func(s *Stats) { s.CachedTokens += int64(n) })
	}
}

// evaluate runs the pass that plan has made.
func (e *Engine) evaluate() (err error) {
	if e.m.card != nil {
		for i, t := range e.inPass {
			sp := e.spans[i]
			sp.err = t.g.s.run(sp)
		}
		return nil
	}
	if e.work == nil {
		if e.work, err = e.m.workspace(); err != nil {
			return err
		}
	}
	e.batch.begin(e.m, e.work, e.spans)
	return e.batch.run()
}

// learn notes the time and the tokens of a pass.
func (e *Engine) learn(d time.Duration) {
	prompts, rows := 0, 0
	for i, sp := range e.spans {
		if sp.err != nil {
			return // a part of it was left out
		}
		rows += len(sp.ids)
		if e.results[i].prompt {
			prompts += len(sp.ids)
		}
	}
	e.speed.pass(d, rows-prompts, prompts)
	e.count(func(s *Stats) {
		s.Passes++
		s.Rows += int64(rows)
		s.PromptTokens += int64(prompts)
	})
}
