package par

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Pool is a set of goroutines that help the callers of Run. Any number of goroutines may call Run and RunWorker at the same
// time, also from inside an item: the caller always works on its own items and so never waits for a free worker.
// A nil *Pool is valid and runs everything on the caller's goroutine.
type Pool struct {
	threads int
	regions chan *region
	free    chan *region // to be used again
	quit    chan struct{}
	close   sync.Once
}

// Task is work in items. A pointer to memory that is kept from call to call makes a task that costs no allocation, where a
// function that refers to its surroundings is made anew for every call.
type Task interface {
	// Item does item i. No two items of one call run at the same time with the same worker number, so it may index scratch memory
	// that belongs to the call.
	Item(worker, i int)
}

// New starts a pool of the given number of threads, counting the caller of Run; 0 means GOMAXPROCS. Close ends it.
func New(threads int) *Pool {
	if threads < 0 {
		panic(fmt.Sprintf("par: %d threads", threads))
	}
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	p := &Pool{threads: threads, regions: make(chan *region, threads-1), free: make(chan *region, 4*threads), quit: make(chan struct{})}
	for range threads - 1 {
		go p.help()
	}
	return p
}

// Threads returns the number of workers that may run items of one call at the same time, the caller included: at least 1.
func (p *Pool) Threads() int {
	if p == nil {
		return 1
	}
	return p.threads
}

// Close ends the pool's goroutines. Calls that are running complete, later ones run on their caller alone.
func (p *Pool) Close() {
	if p != nil {
		p.close.Do(func() { close(p.quit) })
	}
}

// Run calls f(0) … f(n-1), each once, on the pool's workers and the caller, and returns when all have returned.
// If an item panics the remaining ones are not started and Run panics with a *Panic (with the bare value when the pool has
// one thread).
func (p *Pool) Run(n int, f func(i int)) { p.Do(n, each(f)) }

// RunWorker is Run with the number of the worker, from 0 to Threads()-1, as f's first argument. No two items of one call
// run at the same time with the same worker number, so it may index scratch memory that belongs to the call.
func (p *Pool) RunWorker(n int, f func(worker, i int)) { p.Do(n, eachWorker(f)) }

// each and eachWorker are functions as tasks.
type (
	each       func(i int)
	eachWorker func(worker, i int)
)

func (f each) Item(_, i int)            { f(i) }
func (f eachWorker) Item(worker, i int) { f(worker, i) }

// Do is RunWorker for a task. It allocates nothing in the long run.
func (p *Pool) Do(n int, t Task) {
	if p.Threads() == 1 || n <= 1 {
		for i := range n {
			t.Item(0, i)
		}
		return
	}
	r := p.region()
	r.n, r.task = int64(n), t
	invited := min(p.threads, n) - 1
	// All shares are given out before anybody can give one back.
	r.shares.Store(int64(invited) + 1)
	for i := range invited {
		select {
		case p.regions <- r:
			continue
		default: // every helper already has something to come back to
		}
		r.shares.Add(int64(i - invited))
		break
	}
	r.work(0)
	r.wait()
	failure := r.failure.Load()
	p.leave(r)
	if failure != nil {
		panic(failure)
	}
}

// region returns one that nobody uses.
func (p *Pool) region() *region {
	select {
	case r := <-p.free:
		return r
	default:
		return &region{done: make(chan struct{}, 1)}
	}
}

// leave gives back a share of r. The last one makes it free.
func (p *Pool) leave(r *region) {
	if r.shares.Add(-1) > 0 {
		return
	}
	r.task = nil
	r.next.Store(0)
	r.finished.Store(0)
	r.workers.Store(0)
	r.failure.Store(nil)
	select {
	case p.free <- r:
	default:
	}
}

// patience is how long a worker looks for work, or for the end of a region, before it parks. Kernels follow each other within
// some ten microseconds, and to wake a parked thread takes as long, in virtual machines longer. A bound leaves the processor to
// others when nothing follows.
const patience = 100 * time.Microsecond

// poll is a wait of at most patience.
type poll struct {
	polls int
	began time.Time
}

// again reports whether to look once more. Now and then it lets other goroutines run.
func (w *poll) again() bool {
	const look = 64 // polls between looks at the clock
	w.polls++
	switch {
	case w.polls%look > 0:
		return true
	case w.polls == look:
		w.began = time.Now()
	case time.Since(w.began) > patience:
		return false
	}
	if w.polls%(8*look) == 0 {
		runtime.Gosched()
	}
	return true
}

func (p *Pool) help() {
	for {
		select {
		case r := <-p.regions:
			p.join(r)
		case <-p.quit:
			return
		}
	}
}

// join works on a region that the caller has been invited to, and on those that follow soon.
func (p *Pool) join(r *region) {
	for r != nil {
		r.work(int(r.workers.Add(1)))
		p.leave(r)
		r = nil
		for wait := (poll{}); r == nil && wait.again(); {
			select {
			case r = <-p.regions:
			default:
			}
		}
	}
}

// region is one call of Do. It is put into the queue at most threads-1 times, so at most threads workers ever draw a number from
// it. A helper that comes late finds no item left and touches nothing of the caller's; only when the last has come and gone is
// the region used again.
type region struct {
	n        int64
	task     Task
	next     atomic.Int64
	finished atomic.Int64
	workers  atomic.Int64 // helpers that came
	shares   atomic.Int64 // of the caller and of the helpers that are still to come or to leave
	failure  atomic.Pointer[Panic]
	done     chan struct{} // gets one value after the last item
}

func (r *region) work(worker int) {
	for {
		i := r.next.Add(1) - 1
		if i >= r.n {
			return
		}
		r.item(worker, int(i))
	}
}

func (r *region) item(worker, i int) {
	returned := false
	defer func() {
		if !returned {
			v := recover()
			if v == nil {
				v = "runtime.Goexit called by an item"
			}
			r.failure.CompareAndSwap(nil, &Panic{Value: v, Stack: debug.Stack()})
		}
		if r.finished.Add(1) == r.n {
			r.done <- struct{}{}
		}
	}()
	if r.failure.Load() == nil {
		r.task.Item(worker, i)
	}
	returned = true
}

// wait returns when all items have finished.
func (r *region) wait() {
	for w := (poll{}); w.again(); {
		select {
		case <-r.done:
			return
		default:
		}
	}
	<-r.done
}

// Panic is what Run panics with when an item has panicked.
type Panic struct {
	Value any    // the item's panic value
	Stack []byte // the item's goroutine's stack
}

func (e *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", e.Value, e.Stack) }

// Unwrap returns the panic value if it is an error.
func (e *Panic) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
