package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"

	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cuda/driver"
	"autodev/compute/cuda/dynlib"
	"autodev/compute/cuda/kernels"
	"autodev/compute/cudaplan"
)

// Ptr is an address in device memory.
type Ptr = driver.Ptr

// Options configure a device.
type Options struct {
	Index     int    // which device
	CUDA      string // path of libcuda.so.1; empty: searched for (package dynlib)
	CublasLt  string // path of libcublasLt.so; empty: searched for
	Workspace int64  // bytes for matrix products; 0: cudaplan.Products
	// Fits says, for an out-of-memory error, what would fit into free bytes ("a micro-batch of 4 fits"); may be nil.
	Fits func(free int64) string
	// Lost is told once that the device is lost, on its goroutine: it must not use the device; may be nil.
	Lost func(error)
	// Algorithms is how many of cuBLASLt's algorithms are timed for each product, when it is first prepared, to keep the fastest. 0 takes the
	// library's first choice without timing: the choice by time may differ from run to run, and the last bits of results with it.
	Algorithms int
	// CallByCall runs programs one call at a time, waiting for each, instead of captured graphs: slower, but an error names its call.
	CallByCall bool
	// InTurn lets no kernel begin before the one before it has ended, to see what launching them early is worth.
	InTurn bool
	// Unfused keeps products and the activations that follow them apart, to see what fusing them is worth.
	Unfused bool
	// NoWarpgroups runs the kernels of compute capability 8.0 on 9.0 too, to see what those for 9.0 are worth.
	NoWarpgroups bool
	// Unchecked takes attention's kernels for compute capability 9.0 without comparing them with those for 8.0 first, for tests that plant bugs.
	Unchecked bool
	// Poison fills the arena with NaNs instead of zeros, for tests: what is read there must have been written.
	Poison bool
}

// Properties are a device's figures.
type Properties struct {
	Name            string
	Capability      int // compute capability times 10
	Multiprocessors int
	SharedPerBlock  int // bytes of shared memory that a block may ask for
	L2              int // bytes
	Memory          int64
	Bandwidth       float64 // of memory, bytes a second; 0 where the driver does not say
	Driver          int     // CUDA version of the driver, 1000·major + 10·minor

	LibCUDA, LibCublasLt string // what the libraries were loaded by: a path, or a name on the loader's
}

// Short returns the short type that the device multiplies in: bfloat16, or float16 before compute capability 8.0.
func (p Properties) Short() compute.DType {
	if p.Capability < 80 {
		return compute.F16
	}
	return compute.BF16
}

// Device is one GPU. Its methods may be called from any goroutine.
type Device struct {
	options    Options
	properties Properties
	work       chan request
	closed     chan struct{} // closed when the owner has ended
	close      sync.Once

	// What follows belongs to the owner's goroutine.
	api       *driver.API
	blas      *cublaslt.Handle
	id        driver.DeviceID
	entries   map[string]*entry
	agree     map[string]bool // kernels that were compared with others
	workspace Ptr
	queue     *Queue
	lost      error
}

// entry is a kernel, and its module once it has been loaded.
type entry struct {
	kernels.Entry
	module   *module
	function driver.Function
	shared   int // dynamic shared memory it may be launched with
}

type module struct {
	kernels.Module
	handle driver.Module
}

type request struct {
	f    func(*Queue) error // nil: end
	done chan error
}

var errClosed = errors.New("the device is closed")

// New finds the libraries and takes the device into use. The error of a machine without NVIDIA's libraries lists where they were looked for.
func New(o Options) (*Device, error) {
	if o.Workspace == 0 {
		o.Workspace = cudaplan.Products
	}
	d := &Device{options: o, agree: map[string]bool{}, work: make(chan request), closed: make(chan struct{})}
	started := make(chan error)
	go d.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	return d, nil
}

// own is the goroutine that owns the device.
func (d *Device) own(started chan<- error) {
	runtime.LockOSThread() // the current context is the thread's; the thread ends with the goroutine
	defer close(d.closed)
	if err := d.start(); err != nil {
		started <- errors.Join(err, d.stop())
		return
	}
	started <- nil
	for {
		r := <-d.work
		switch {
		case r.f == nil: // the last request
			if d.lost != nil {
				r.done <- nil // the driver has freed everything
			} else {
				r.done <- d.stop()
			}
			return
		case d.lost != nil:
			r.done <- &LostError{d.properties.Name, d.lost}
		default:
			err := r.f(d.queue)
			if d.lost != nil && err != nil {
				err = &LostError{d.properties.Name, err}
			}
			if d.lost != nil && d.options.Lost != nil {
				d.options.Lost(&LostError{d.properties.Name, d.lost})
			}
			r.done <- err
		}
	}
}

// Do runs f on the goroutine that owns the device and returns its error. f may use the queue until it returns; it must not call Do.
func (d *Device) Do(f func(q *Queue) error) error {
	r := request{f, make(chan error, 1)}
	select {
	case <-d.closed:
		return fmt.Errorf("cuda: %w", errClosed)
	case d.work <- r:
		return <-r.done
	}
}

// Close frees what the device holds and ends its goroutine. A second Close does nothing.
func (d *Device) Close() error {
	var err error
	d.close.Do(func() {
		last := request{done: make(chan error, 1)}
		d.work <- last
		err = <-last.done
		<-d.closed
	})
	return err
}

// Properties returns the device's figures.
func (d *Device) Properties() Properties { return d.properties }

// Name describes the device to people, as compute.Device.
func (d *Device) Name() string {
	p := d.properties
	return fmt.Sprintf("cuda:%d (%s, sm_%d, %s)", d.options.Index, p.Name, p.Capability, size(p.Memory))
}

// Find finds the libraries and the device and returns its figures, without taking it into use. The errors are those of New.
func Find(o Options) (Properties, error) {
	d := &Device{options: o}
	_, err := d.find()
	if err != nil {
		err = fmt.Errorf("cuda: %w", err)
	}
	return d.properties, err
}

// newest returns the newest version of cuBLASLt for the device: one of CUDA's later versions than the driver's does not start, and from 13 on it has no
// products for compute capability 7.0 and 7.2 (release notes of CUDA 13.0).
func (p Properties) newest() int {
	newest := p.Driver / 1000
	if p.Capability < 75 {
		newest = min(newest, 12)
	}
	return newest
}

// find loads the libraries and looks at the device.
func (d *Device) find() (*cublaslt.Library, error) {
	var err error
	if d.api, err = driver.Load(d.options.CUDA); err != nil {
		return nil, err
	}
	if d.properties.Driver, err = d.api.Version(); err != nil {
		return nil, err
	}
	if needed := (kernels.Target{SM: 70}).DriverVersion(); d.properties.Driver < needed {
		return nil, &TooOldError{d.properties.Driver, needed}
	}
	if err := d.identify(); err != nil {
		return nil, err
	}
	p := &d.properties
	blas, err := cublaslt.Load(d.options.CublasLt, p.newest())
	if err != nil {
		return nil, err
	}
	p.LibCUDA, p.LibCublasLt = d.api.Path, blas.Path
	if v := blas.Version(); v/10000 > p.newest() {
		return nil, fmt.Errorf("%s has version %d.%d, expected at most %d for a driver that supports CUDA %d.%d and %s (compute capability %d.%d): %s may name another",
			blas.Path, v/10000, v%10000/100, p.newest(), p.Driver/1000, p.Driver%1000/10, p.Name, p.Capability/10, p.Capability%10, dynlib.CublasLt(0).Env)
	}
	return blas, nil
}

func (d *Device) start() error {
	blas, err := d.find()
	if err != nil {
		return err
	}
	a := d.api
	context, err := a.RetainPrimary(d.id)
	if err != nil {
		return err
	}
	if err := a.SetCurrent(context); err != nil {
		return err
	}
	if d.queue, err = newQueue(d); err != nil {
		return err
	}
	if err := d.index(); err != nil {
		return err
	}
	if d.workspace, err = d.queue.Alloc(d.options.Workspace); err != nil {
		return err
	}
	d.blas, err = blas.New(d.workspace, d.options.Workspace)
	return err
}

// identify finds the device and its figures.
func (d *Device) identify() error {
	a, p := d.api, &d.properties
	count, err := a.DeviceCount()
	if err != nil {
		return err
	}
	if d.options.Index < 0 || d.options.Index >= count {
		var names []string
		for i := range count {
			if id, err := a.Device(i); err == nil {
				if n, err := a.DeviceName(id); err == nil {
					names = append(names, fmt.Sprintf("%d is %s", i, n))
				}
			}
		}
		if count == 0 {
			return errors.New("the NVIDIA driver sees no device")
		}
		return fmt.Errorf("there is no device %d, expected 0 to %d (%s)", d.options.Index, count-1, strings.Join(names, ", "))
	}
	if d.id, err = a.Device(d.options.Index); err != nil {
		return err
	}
	if p.Name, err = a.DeviceName(d.id); err != nil {
		return err
	}
	if p.Memory, err = a.DeviceMemory(d.id); err != nil {
		return err
	}
	var major, minor, clock, width int
	for _, f := range []struct {
		which driver.Attribute
		to    *int
	}{
		{driver.ComputeCapabilityMajor, &major}, {driver.ComputeCapabilityMinor, &minor}, {driver.MultiprocessorCount, &p.Multiprocessors},
		{driver.MaxSharedPerBlockOptin, &p.SharedPerBlock}, {driver.L2CacheSize, &p.L2},
		{driver.MemoryClockRate, &clock}, {driver.GlobalMemoryBusWidth, &width},
	} {
		if *f.to, err = a.DeviceAttribute(d.id, f.which); err != nil {
			return err
		}
	}
	p.Capability = 10*major + minor
	p.Bandwidth = 2 * float64(clock) * 1000 * float64(width) / 8
	if p.Capability < 70 {
		return fmt.Errorf("%s has compute capability %d.%d, expected at least 7.0", p.Name, major, minor)
	}
	return nil
}

// index lists the kernels that the device can run; their modules are loaded when they are first used.
func (d *Device) index() error {
	modules, err := kernels.For(d.properties.Capability, d.properties.Driver)
	if err != nil {
		return err
	}
	d.entries = map[string]*entry{}
	for _, m := range modules {
		shared := &module{Module: m}
		for _, e := range m.Entries {
			if other := d.entries[e.Name]; other != nil {
				return fmt.Errorf("kernel %s is in %s and in %s", e.Name, other.module.Name, m.Name)
			}
			d.entries[e.Name] = &entry{Entry: e, module: shared, shared: 48 << 10}
		}
	}
	return nil
}

// stop frees what start made, as far as it came.
func (d *Device) stop() error {
	if d.queue == nil {
		return nil
	}
	var errs []error
	if d.blas != nil {
		errs = append(errs, d.blas.Close())
	}
	if d.workspace != 0 {
		errs = append(errs, d.queue.Free(d.workspace))
	}
	unloaded := map[*module]bool{}
	for _, e := range d.entries {
		if e.module.handle != 0 && !unloaded[e.module] {
			unloaded[e.module] = true
			errs = append(errs, d.note(d.api.UnloadModule(e.module.handle)))
		}
	}
	errs = append(errs, d.queue.destroy(), d.note(d.api.ReleasePrimary(d.id)))
	return errors.Join(errs...)
}

// note remembers an error that ends the context, and returns err.
func (d *Device) note(err error) error {
	if err != nil && d.lost == nil {
		d.lost = sticky(err)
	}
	return err
}
