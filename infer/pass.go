package infer

import (
	"slices"
	"time"
)

const (
	// patience is how many times as much time passes with Interactive completions take as prompts of lower classes beside them.
	patience = 3
	// A part of a prompt beside a pass that has made way is at most a smallShare-th of the longest, so that it needs little memory.
	smallShare = 4
)

// jointPass is the next tokens of several completions, which are evaluated together.
type jointPass struct {
	tasks   []*task
	spans   []*span // of the tasks
	prompts bool    // some are parts of prompts
	long    bool    // as one of the last pass was
	batch   batch
	spent   time.Duration // evaluating it so far
	results []passed
}

// passed is what a pass was for one of its tasks.
type passed struct {
	t      *task
	prompt bool // it was a part of its prompt
	over   bool
	err    error
}

func (p *jointPass) has(t *task) bool { return slices.Contains(p.tasks, t) }

// turn evaluates next tokens of those who are active. While some of these are Interactive, prompts of lower classes are in a pass of
// their own, of which at least one kernel runs after each pass of the others. A pass without Interactive completions makes way when such a
// call comes. So that waits for a kernel and not for a prompt, nobody waits for ever, and nothing is evaluated twice.
func (e *Engine) turn() {
	first, behind, urgent := e.divide()
	if len(e.patient.tasks) == 0 {
		e.plan(&e.patient, behind, e.m.chunk)
	}
	leave := e.hurry
	if urgent {
		most := e.m.chunk
		if len(e.patient.tasks) > 0 {
			most = max(leastPart, most/smallShare)
		}
		e.plan(&e.main, first, most)
		began := time.Now()
		e.run(&e.main, nil)
		share := time.Since(began) / patience
		began = time.Now()
		leave = func() bool { return time.Since(began) >= share }
	}
	if !e.patient.prompts {
		leave = nil
	}
	e.run(&e.patient, leave)
}

// divide returns who of the active may take part in a pass now: with urgent those who go first, and those whose prompts are behind them. A
// card's passes make no way.
func (e *Engine) divide() (first, behind []*task, urgent bool) {
	for _, t := range e.active {
		if !e.patient.has(t) {
			behind = append(behind, t)
			urgent = urgent || t.c.class == Interactive
		}
	}
	if !urgent {
		return nil, behind, false
	}
	i := 0
	for _, t := range behind {
		if t.c.class == Interactive || t.g.left() == 0 || e.m.card != nil {
			first = append(first, t)
		} else {
			behind[i] = t
			i++
		}
	}
	return first, behind[:i], true
}

// hurry reports whether there is a new Interactive call.
func (e *Engine) hurry() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed && slices.ContainsFunc(e.calls, func(c *call) bool { return c.class == Interactive && c.rest > 0 && c.ctx.Err() == nil })
}

// plan fills a pass: the last tokens of those of tasks that generate and the next part of the most urgent prompt, of at most most tokens, with
// other short ones; and guesses behind tokens that are the last. Those for which there is no memory are ended.
func (e *Engine) plan(p *jointPass, tasks []*task, most int) {
	var generating, prompts []*task
	for _, t := range tasks {
		if t.g.left() > 0 {
			e.advance(t)
			prompts = append(prompts, t)
		} else {
			generating = append(generating, t)
		}
	}
	var failed []func()
	add := func(t *task, chunk, rows, others int) int {
		had := t.g.s.kv.capacity()
		sp, err := t.g.plan(t.c.ctx, chunk, rows, others)
		if err != nil {
			failed = append(failed, func() { e.finish(t, err) })
			return 0
		}
		if t.g.s.kv.capacity() > had {
			e.cache.grown(t.entry)
			e.decideAnew()
		}
		p.spans, p.tasks = append(p.spans, sp), append(p.tasks, t)
		return len(sp.ids)
	}
	rows := 0 // of prompts
	parts, chunk := e.parts(p, prompts, generating, most)
	guesses := max(0, e.m.pass-len(generating)-len(parts))
	others := len(generating)
	for _, t := range parts {
		n := add(t, chunk, min(t.g.left()+guesses, e.m.pass), others)
		guesses, others, rows = guesses-len(t.g.draft), others+n, rows+n-len(t.g.draft)
	}
	p.prompts = rows > 0
	others--
	for _, t := range generating {
		more := add(t, 0, 1+guesses, others) - 1
		guesses, others = guesses-more, others+more
	}
	for _, end := range failed {
		end()
	}
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

// run goes on with a pass, if there is one, until leave, which may be nil, says that it is to make way, or it is over. Then what came of it is used.
func (e *Engine) run(p *jointPass, leave func() bool) {
	if len(p.tasks) == 0 {
		return
	}
	began, over := time.Now(), true
	err := guarded(func() (err error) {
		over, err = e.evaluate(p, leave)
		return err
	})
	if p.spent += time.Since(began); over || err != nil {
		e.conclude(p, err)
		p.tasks, p.spans, p.batch, p.spent = p.tasks[:0], p.spans[:0], batch{}, 0
	}
}

// evaluate runs what plan has made, and reports whether it is over.
func (e *Engine) evaluate(p *jointPass, leave func() bool) (over bool, err error) {
	if e.m.card != nil {
		e.logits.m = e.m
		return true, e.m.card.run(p.spans, &e.logits)
	}
	if p.batch.m == nil {
		w := &e.large
		if p == &e.main && len(e.patient.tasks) > 0 {
			w = &e.small
		}
		if *w == nil {
			if *w, err = e.m.workspace(); err != nil {
				return true, err
			}
		}
		p.batch.looking = e.looking
		p.batch.begin(e.m, *w, p.spans)
	}
	p.batch.leave = leave
	return p.batch.run()
}

// conclude uses what came of a pass, or ends those whose pass has failed.
func (e *Engine) conclude(p *jointPass, err error) {
	p.results = p.results[:0]
	for _, t := range p.tasks {
		p.results = append(p.results, passed{t: t, prompt: !t.g.prompted, over: true, err: err})
	}
	if err == nil {
		alone := len(p.results) == 1
		e.m.pool.Run(len(p.results), func(i int) {
			r := &p.results[i]
			r.err = guarded(func() (err error) {
				r.over, err = r.t.g.take(p.spent, alone)
				return err
			})
		})
		e.learn(p)
	}
	for _, r := range p.results {
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
	clear(p.results)
}

// learn notes the time and the tokens of a pass.
func (e *Engine) learn(p *jointPass) {
	prompts, rows := 0, 0
	for i, sp := range p.spans {
		if sp.err != nil {
			return // a part of it was left out
		}
		rows += len(sp.ids)
		switch {
		case p.results[i].prompt && sp.visit != nil:
			prompts += len(sp.ids)
		case p.results[i].prompt:
			prompts += min(sp.from+1, len(sp.ids)) // guesses may be behind
		}
	}
	e.speed.pass(p.spent, rows-prompts, prompts)
	e.count(func(s *Stats) {
		s.Passes++
		s.Rows += int64(rows)
		s.PromptTokens += int64(prompts)
	})
}
