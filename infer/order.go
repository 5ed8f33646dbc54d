package infer

import (
	"cmp"
	"slices"
)

const (
	// pausable is how many completions, for each that is running, may hold keys and values.
	pausable = 2
	// reservedFrom is the concurrency from which one place is left to Chat and Background requests, so that they never stand still.
	reservedFrom = 4
)

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
	// Interactive requests find a quarter free or, of what is kept for them, as much as a half.
	reserve := max(e.room/4, min(e.cache.kept(), e.room/2))
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
			room -= reserve
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
