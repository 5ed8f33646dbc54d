package infer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// call is one call of Engine.Complete: requests that wait together.
type call struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	class   Class
	client  string
	session string
	tasks   []*task
	arrived time.Time
	emits   bool // somebody takes chunks

	// Guarded by Engine.mu.
	started bool
	broken  bool // a failure of ours has ended it
	begun   time.Time
	rest    int // tasks that have not been started
	held    int // tasks that have, and are not over

	wake chan struct{} // there are chunks
	over chan struct{} // closed when nothing of the call is under way

	mu sync.Mutex

	// The receiver's own.
	emitting int   // the task whose chunks are delivered
	failed   error // why no more are
}

// task is one request of a call.
type task struct {
	c     *call
	index int
	j     *job
	after *task // the task of the call before this one with the same prompt; nil: none

	// The scheduler's own.
	entry *entry
	g     *generation // nil until it is started
	over  bool

	// Guarded by call.mu until ended.
	chunks []Chunk
	ended  bool // nothing will be added; res and err are final
	res    Result
	err    error
}

func newCall(ctx context.Context, jobs []*job, emit bool) *call {
	c := &call{class: min(jobs[0].Class, Background), client: jobs[0].Client, session: jobs[0].Session, wake: make(chan struct{}, 1), over: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.rest, c.emits = len(jobs), emit
	for i, j := range jobs {
		t := &task{c: c, index: i, j: j}
		if i > 0 && !j.PromptLogprobs && j.with == jobs[i-1].with && slices.Equal(j.prompt.ids, jobs[i-1].prompt.ids) {
			t.after = c.tasks[i-1]
		}
		c.tasks = append(c.tasks, t)
	}
	return c
}

// emit hands a chunk to the call's receiver. It never waits.
func (t *task) emit(ch Chunk) error {
	t.c.mu.Lock()
	t.chunks = append(t.chunks, ch)
	t.c.mu.Unlock()
	t.c.nudge()
	return nil
}

// end makes the result final.
func (t *task) end(res Result, err error) {
	t.c.mu.Lock()
	t.res, t.err, t.ended = res, err, true
	t.c.mu.Unlock()
	t.c.nudge()
}

func (c *call) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// deliver gives the receiver what there is for it.
func (c *call) deliver(emit func(i int, ch Chunk) error) {
	for c.failed == nil && c.emitting < len(c.tasks) {
		t := c.tasks[c.emitting]
		c.mu.Lock()
		chunks, ended := t.chunks, t.ended
		t.chunks = nil
		c.mu.Unlock()
		for _, ch := range chunks {
			if c.failed = context.Cause(c.ctx); c.failed != nil {
				return
			}
			if err := emit(t.index, ch); err != nil {
				c.failed = fmt.Errorf("%w: %w", errEmit, err)
				c.cancel(c.failed)
				return
			}
		}
		if !ended || t.err != nil {
			return
		}
		c.emitting++
	}
}

// results returns what the call gives, when it is over: the results up to the first error, which is returned.
func (c *call) results() ([]Result, error) {
	var all []Result
	for i, t := range c.tasks {
		if !t.ended {
			return all, context.Cause(c.ctx) // it was not started
		}
		res, err := t.res, t.err
		if err == nil && c.failed != nil && i == c.emitting {
			res.FinishReason, err = FinishCancel, c.failed
		}
		all = append(all, res)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}
