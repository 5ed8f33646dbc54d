package cuda

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"autodev/compute/cuda/driver"
)

// Queue gives work to the device, in order. It is only valid inside the function that Device.Do gave it to.
type Queue struct {
	d      *Device
	stream driver.Stream
	// side is the queue that Fork gives, with the events that order the two; nil on the side queue itself.
	side           *Queue
	forked, joined driver.Event
	started, ended driver.Event

	capturing   bool
	afterKernel bool // what a capture got last is a Launch
}

func newQueue(d *Device) (*Queue, error) {
	q := &Queue{d: d, side: &Queue{d: d}}
	var errs []error
	stream := func(to *driver.Stream) {
		s, err := d.api.NewStream()
		*to = s
		errs = append(errs, err)
	}
	event := func(to *driver.Event, timing bool) {
		e, err := d.api.NewEvent(timing)
		*to = e
		errs = append(errs, err)
	}
	stream(&q.stream)
	stream(&q.side.stream)
	event(&q.forked, false)
	event(&q.joined, false)
	event(&q.started, true)
	event(&q.ended, true)
	return q, d.note(errors.Join(errs...))
}

func (q *Queue) destroy() error {
	a := q.d.api
	var errs []error
	for _, e := range []driver.Event{q.forked, q.joined, q.started, q.ended} {
		errs = append(errs, a.DestroyEvent(e))
	}
	errs = append(errs, a.DestroyStream(q.side.stream), a.DestroyStream(q.stream))
	return q.d.note(errors.Join(errs...))
}

// Device returns the queue's device.
func (q *Queue) Device() *Device { return q.d }

// Sync waits until all that the queue was given is done, and returns the first error of it.
func (q *Queue) Sync() error { return q.d.note(q.d.api.SyncStream(q.stream)) }

// Fork returns a second queue whose work runs beside this one's from here on. Join must follow before the next Fork and before Sync.
func (q *Queue) Fork() (*Queue, error) {
	q.afterKernel = false
	if q.side == nil {
		return nil, errors.New("cuda: fork of a forked queue")
	}
	if err := q.d.api.RecordEvent(q.forked, q.stream); err != nil {
		return nil, q.d.note(err)
	}
	return q.side, q.d.note(q.d.api.WaitEvent(q.side.stream, q.forked))
}

// Join lets the queue's later work wait for all work of the forked queue.
func (q *Queue) Join() error {
	q.afterKernel = false
	if err := q.d.api.RecordEvent(q.joined, q.side.stream); err != nil {
		return q.d.note(err)
	}
	return q.d.note(q.d.api.WaitEvent(q.stream, q.joined))
}

// Time gives the device what f enqueues, waits for it and returns how long the device took.
func (q *Queue) Time(f func() error) (time.Duration, error) {
	a := q.d.api
	if err := a.RecordEvent(q.started, q.stream); err != nil {
		return 0, q.d.note(err)
	}
	if err := f(); err != nil {
		return 0, err
	}
	if err := a.RecordEvent(q.ended, q.stream); err != nil {
		return 0, q.d.note(err)
	}
	if err := a.SyncEvent(q.ended); err != nil {
		return 0, q.d.note(err)
	}
	ms, err := a.Elapsed(q.started, q.ended)
	return time.Duration(float64(ms) * float64(time.Millisecond)), q.d.note(err)
}

// Alloc allocates device memory with undefined contents, aligned to 256 bytes. What does not fit is an *OutOfMemoryError.
func (q *Queue) Alloc(bytes int64) (Ptr, error) {
	p, err := q.d.api.Alloc(bytes)
	if errors.Is(err, driver.OutOfMemory) {
		return 0, q.outOfMemory(bytes)
	}
	return p, q.d.note(err)
}

func (q *Queue) outOfMemory(asked int64) error {
	free, total, err := q.d.api.MemInfo()
	if err != nil {
		return q.d.note(err)
	}
	e := &OutOfMemoryError{Device: q.d.Name(), Asked: asked, Free: free, Total: total}
	if q.d.options.Fits != nil {
		e.Fits = q.d.options.Fits(free)
	}
	return e
}

// Free frees what Alloc returned, once the device is done with everything.
func (q *Queue) Free(p Ptr) error { return q.d.note(q.d.api.Free(p)) }

// MemInfo returns the free and the total bytes of the device's memory.
func (q *Queue) MemInfo() (free, total int64, err error) {
	free, total, err = q.d.api.MemInfo()
	return free, total, q.d.note(err)
}

// Pinned allocates host memory that copies reach without staging, so that they run beside the host. FreePinned frees it.
func (q *Queue) Pinned(bytes int64) ([]byte, error) {
	b, err := q.d.api.HostAlloc(bytes)
	return b, q.d.note(err)
}

// FreePinned frees what Pinned returned.
func (q *Queue) FreePinned(b []byte) error { return q.d.note(q.d.api.HostFree(b)) }

// Copy copies n bytes inside the device's memory; the regions must not overlap.
func (q *Queue) Copy(to, from Ptr, n int64) error {
	q.afterKernel = false
	return q.d.note(q.d.api.CopyOnDevice(to, from, n, q.stream))
}

// Fill sets n bytes to v.
func (q *Queue) Fill(p Ptr, v byte, n int64) error {
	q.afterKernel = false
	return q.d.note(q.d.api.Set8(p, v, n, q.stream))
}

// Number is what kernels' memory holds; uint16 stands for bf16 and f16.
type Number interface {
	~uint8 | ~int8 | ~uint16 | ~int32 | ~uint32 | ~float32 | ~float64
}

// Write copies src to the device. Ordinary memory has been read when it returns; pinned memory must stay until the queue is synchronised.
func Write[T Number](q *Queue, to Ptr, src []T) error {
	if len(src) == 0 {
		return nil
	}
	q.afterKernel = false
	return q.d.note(q.d.api.CopyToDevice(to, unsafe.Pointer(unsafe.SliceData(src)), int64(len(src))*int64(unsafe.Sizeof(src[0])), q.stream))
}

// Read copies from the device to dst. Ordinary memory is complete when it returns; pinned memory when the queue is synchronised.
func Read[T Number](q *Queue, dst []T, from Ptr) error {
	if len(dst) == 0 {
		return nil
	}
	q.afterKernel = false
	return q.d.note(q.d.api.CopyToHost(unsafe.Pointer(unsafe.SliceData(dst)), from, int64(len(dst))*int64(unsafe.Sizeof(dst[0])), q.stream))
}

// Graph is work that was recorded once and is given to the device by one call.
type Graph struct {
	d    *Device
	exec driver.GraphExec
}

// Capture records what f enqueues instead of running it. Inside f nothing may be waited for, allocated or copied from or to ordinary memory.
func (q *Queue) Capture(f func() error) (*Graph, error) {
	a := q.d.api
	if err := a.BeginCapture(q.stream); err != nil {
		return nil, q.d.note(err)
	}
	q.capturing, q.afterKernel = true, false
	failed := f()
	q.capturing, q.afterKernel = false, false
	graph, err := a.EndCapture(q.stream)
	if failed != nil {
		if err == nil && graph != 0 {
			err = a.DestroyGraph(graph)
		}
		return nil, fmt.Errorf("cuda: capture: %w", errors.Join(failed, q.d.note(err)))
	}
	if err != nil {
		return nil, q.d.note(err)
	}
	exec, err := a.Instantiate(graph)
	if err := errors.Join(err, a.DestroyGraph(graph)); err != nil {
		return nil, q.d.note(err)
	}
	return &Graph{q.d, exec}, nil
}

// Enqueue gives the graph's work to the device.
func (g *Graph) Enqueue(q *Queue) error { return q.d.note(q.d.api.LaunchGraph(g.exec, q.stream)) }

// Free frees the graph.
func (g *Graph) Free(q *Queue) error { return q.d.note(q.d.api.DestroyExec(g.exec)) }
