package par

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

func TestRunCallsEveryItemOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		p := New(threads)
		for _, n := range []int{0, 1, 2, 7, 1000} {
			count := make([]atomic.Int32, n)
			p.Run(n, func(i int) { count[i].Add(1) })
			for i := range count {
				if c := count[i].Load(); c != 1 {
					t.Fatalf("%d threads, %d items: item %d ran %d times", threads, n, i, c)
				}
			}
		}
		p.Close()
	}
}

func TestNilPoolRunsInOrder(t *testing.T) {
	var p *Pool
	if p.Threads() != 1 {
		t.Fatalf("Threads() = %d", p.Threads())
	}
	var got []int
	p.RunWorker(3, func(w, i int) { got = append(got, w, i) })
	p.Run(2, func(i int) { got = append(got, i) })
	want := []int{0, 0, 0, 1, 0, 2, 0, 1}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	p.Close()
}

func TestWorkerNumbersAreExclusive(t *testing.T) {
	const threads = 5
	p := New(threads)
	defer p.Close()
	for range 200 {
		var busy [threads]atomic.Bool
		p.RunWorker(50, func(w, _ int) {
			if !busy[w].CompareAndSwap(false, true) {
				t.Errorf("worker %d runs two items at once", w)
			}
			busy[w].Store(false)
		})
	}
}

func TestConcurrentAndNestedRuns(t *testing.T) {
	p := New(3)
	defer p.Close()
	var total atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				p.Run(5, func(int) { p.Run(4, func(i int) { total.Add(int64(i)) }) })
			}
		})
	}
	wg.Wait()
	if got, want := total.Load(), int64(8*50*5*6); got != want {
		t.Fatalf("sum %d, want %d", got, want)
	}
}

func TestPanicReachesTheCaller(t *testing.T) {
	p := New(4)
	defer p.Close()
	for range 100 {
		var after atomic.Int64
		func() {
			defer func() {
				e, ok := recover().(*Panic)
				if !ok || !errors.Is(e, io.ErrUnexpectedEOF) || len(e.Stack) == 0 {
					t.Fatalf("recovered %v", e)
				}
			}()
			p.Run(1000, func(i int) {
				if i == 3 {
					panic(io.ErrUnexpectedEOF)
				}
				after.Add(1)
			})
			t.Fatal("Run returned")
		}()
		p.Run(10, func(int) { after.Add(1) }) // the pool still works
	}
}

func TestRunAfterClose(t *testing.T) {
	p := New(4)
	p.Close()
	p.Close()
	for range 10 {
		var n atomic.Int64
		p.Run(20, func(int) { n.Add(1) })
		if n.Load() != 20 {
			t.Fatalf("%d items ran", n.Load())
		}
	}
}

func BenchmarkRun(b *testing.B) {
	p := New(0)
	defer p.Close()
	f := func(int) {}
	for b.Loop() {
		p.Run(2, f)
	}
}

// BenchmarkAlternating alternates serial work with parallel work of the same length, as a decode step does: with two threads
// and no hand-off costs the time per operation is two thirds of that with one.
func BenchmarkAlternating(b *testing.B) {
	work := func() {
		x := 1.0
		for range 8000 {
			x = x*0.999 + 0.001
		}
		if x < 0 {
			panic("unreachable")
		}
	}
	for _, threads := range []int{1, 2} {
		b.Run(map[int]string{1: "1T", 2: "2T"}[threads], func(b *testing.B) {
			p := New(threads)
			defer p.Close()
			for b.Loop() {
				work()
				p.Run(2, func(int) { work() })
			}
		})
	}
}

// items is a task that counts.
type items struct{ count [64]atomic.Int32 }

func (t *items) Item(_, i int) { t.count[i].Add(1) }

// TestDoAllocatesNothing: regions are used again, and never while a helper of the call before may still look at them.
func TestDoAllocatesNothing(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		p := New(threads)
		var task items
		const runs = 2000
		perRun := testing.AllocsPerRun(runs, func() { p.Do(len(task.count), &task) })
		if perRun > 0 {
			t.Errorf("%d threads: %v allocations a call", threads, perRun)
		}
		for i := range task.count {
			if n := task.count[i].Load(); n != runs+1 { // AllocsPerRun calls it once more
				t.Fatalf("%d threads: item %d ran %d times, expected %d", threads, i, n, runs+1)
			}
		}
		p.Close()
	}
}

// TestRegionsAfterPanics: what a failed call leaves behind does not fail the next ones.
func TestRegionsAfterPanics(t *testing.T) {
	p := New(3)
	defer p.Close()
	for range 200 {
		func() {
			defer func() {
				var e *Panic
				if err, ok := recover().(error); !ok || !errors.As(err, &e) || e.Value != "seven" {
					t.Errorf("recovered %v", err)
				}
			}()
			p.Run(20, func(i int) {
				if i == 7 {
					panic("seven")
				}
			})
		}()
		var task items
		p.Do(len(task.count), &task)
		for i := range task.count {
			if n := task.count[i].Load(); n != 1 {
				t.Fatalf("item %d ran %d times after a panic", i, n)
			}
		}
	}
}
