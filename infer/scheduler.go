package infer

import (
	"cmp"
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

const (
	// pausable is how many completions, for each that is running, may hold keys and values.
	pausable = 2
	// reservedFrom is the concurrency from which one place is left to Chat and Background requests, so that they never stand still.
	reservedFrom = 4
	// stall is how long a part of a prompt may make those wait that generate, and patientStall if all of these are of lower classes.
	stall, patientStall = 100 * time.Millisecond, 400 * time.Millisecond
	// leastPart is the shortest part of a prompt, but for its end, and firstPart the length beside others before one was timed.
	leastPart, firstPart = 16, 32
	// togetherRows is up to how many tokens the rest of a prompt is short.
	togetherRows = 64
	// lately is how long ago calls of others make long parts of prompts unlikely to be left alone.
	lately = 10 * time.Second
)

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

// contender is a task that could run, as it is ranked: by class; then a client's first task goes before any client's second; then who
// runs goes on, and who has waited longest since its last turn begins.
type contender struct {
	t      *task
	nth    int // of its client's tasks in its class
	served uint64
}

func (a contender) compare(b contender) int {
	waits := func(x contender) int {
		if x.t.g == nil {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.t.c.class, b.t.c.class),
		cmp.Compare(a.nth, b.nth),
		cmp.Compare(waits(a), waits(b)),
		cmp.Compare(a.served, b.served),
	)
}

// contenders returns the tasks that could run, in order.
func (e *Engine) contenders() []contender {
	var all []contender
	nth := map[turn]int{}
	add := func(t *task) {
		key := turn{t.c.class, t.c.client}
		all = append(all, contender{t, nth[key], e.served[key]})
		nth[key]++
	}
	for _, t := range e.held {
		add(t)
	}
	for _, c := range e.calls {
		if c.ctx.Err() != nil {
			continue
		}
		for _, t := range c.tasks {
			// A prompt that is being evaluated for another is waited for.
			if t.g == nil && !t.over && (t.after == nil || t.after.over || t.after.g != nil && t.after.g.prompted) {
				add(t)
			}
		}
	}
	slices.SortStableFunc(all, contender.compare)
	return all
}

// schedule decides who is active and returns those of them that have to be started.
func (e *Engine) schedule() (begin []*task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.changed {
		return nil
	}
	e.changed = false
	all := e.contenders()
	if n := e.o.Concurrency; n >= reservedFrom && len(all) > n && all[n-1].t.c.class == Interactive {
		// The last place is for the first of those that would have none.
		if i := slices.IndexFunc(all, func(x contender) bool { return x.t.c.class != Interactive }); i >= 0 {
			x := all[i]
			all = slices.Insert(slices.Delete(all, i, i+1), n-1, x)
		}
	}
	e.active = e.active[:0]
	held, full := len(e.held), false
	taken, active := e.cache.tally(), e.cache.tally() // by those who are held, and who are active
	for _, t := range e.held {
		taken.add(e.cache.claim(t.entry))
	}
	for _, x := range all {
		if len(e.active) == e.o.Concurrency {
			break
		}
		t, room := x.t, e.room
		if t.c.class != Interactive {
			room -= room / 4
		}
		if t.g == nil {
			// Who does not fit is not overtaken by who would; and nobody waits for the memory of less urgent ones alone, where it is not
			// all there is.
			if full = full || held >= pausable*e.o.Concurrency; full {
				continue
			}
			first := held == 0 || e.m.card == nil && !slices.ContainsFunc(e.held, func(x *task) bool { return x.c.class <= t.c.class })
			need := e.cache.claimNew(t.known(), e.reserved(t), t.j.with)
			if full = !first && taken.with(need) > room; full {
				continue
			}
			held++
			taken.add(need)
			active.add(need)
			begin = append(begin, t)
			e.starting(t)
		} else {
			has := e.cache.claim(t.entry)
			if len(e.active) > 0 && active.with(has) > room {
				continue // it has grown since, and must not any more
			}
			active.add(has)
		}
		e.active = append(e.active, t)
	}
	return begin
}

// reserved returns how long the sequence of a task may become before room must be made again. A card has no more than it has: there
// it is as long as it can become at all.
func (e *Engine) reserved(t *task) int {
	n := t.j.room(len(t.j.prompt.ids), e.m.Context())
	if e.m.card != nil {
		n = min(len(t.j.prompt.ids)+t.j.prompt.maxNew, e.m.Context())
	}
	return n
}

// known returns the prompt as far as it need not be evaluated if others have done so.
func (t *task) known() []int32 {
	if t.j.PromptLogprobs {
		return nil // all of it is evaluated, to be scored
	}
	return t.j.prompt.ids
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

// parts returns which prompts take part in the next pass, and how many tokens of a prompt at most.
func (e *Engine) parts(prompts, generating []*task) (parts []*task, chunk int) {
	if len(prompts) == 0 {
		return nil, 0
	}
	first := prompts[0]
	chunk = e.m.chunk
	switch {
	case len(generating) > 0 && mostUrgent(generating) <= first.c.class:
		chunk = e.speed.part(stall, chunk)
	case len(generating) > 0 || e.company():
		chunk = e.speed.part(patientStall, chunk)
	}
	// Short ones need not wait for a long one that is as urgent, every other time.
	short := func(t *task) bool { return t.g.left() <= togetherRows }
	e.long = !short(first) && (!e.long || !slices.ContainsFunc(prompts, func(t *task) bool { return short(t) && t.c.class == first.c.class }))
	left := chunk
	for _, t := range prompts {
		n := t.g.left()
		switch {
		case t == first && (e.long || short(first)):
			parts, left = append(parts, t), left-min(n, chunk)
		case short(t) && (n <= left || len(parts) == 0):
			parts, left = append(parts, t), left-n
		}
	}
	return parts, chunk
}

// company reports whether others than the caller of the latest call have been there lately.
func (e *Engine) company() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Since(e.others) < lately
}

// mostUrgent returns the class of the most urgent of tasks.
func mostUrgent(tasks []*task) Class {
	c := Background
	for _, t := range tasks {
		c = min(c, t.c.class)
	}
	return c
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

// speed is what passes take, to tell how long a part of a prompt makes others wait.
type speed struct {
	without float64 // seconds of a pass without a prompt
	token   float64 // that a token of a prompt adds; 0: none was timed
}

func (s *speed) pass(d time.Duration, generating, prompts int) {
	t := d.Seconds()
	switch {
	case prompts == 0:
		s.without = mix(s.without, t)
	case generating > 0:
		s.token = mix(s.token, max(0, t-s.without)/float64(prompts))
	case prompts >= leastPart:
		s.token = mix(s.token, t/float64(prompts))
	}
}

func mix(mean, x float64) float64 {
	if mean == 0 {
		return x
	}
	return mean + (x-mean)/4
}

// part returns how many tokens of a prompt, at most most, take d beside others.
func (s *speed) part(d time.Duration, most int) int {
	if s.token == 0 {
		return min(firstPart, most)
	}
	return min(max(leastPart, int(d.Seconds()/s.token)), most)
}
