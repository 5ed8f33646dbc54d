package cpu

import (
	"fmt"

	"autodev/compute"
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
)

// Options configure a device.
type Options struct {
	Threads int // how many threads share a kernel's work; 0: as many as Go may use (GOMAXPROCS)
}

// Device is the CPU as a compute.Device and as compute.HostKernels. Results do not depend on the number of threads.
type Device struct {
	pool    *par.Pool
	kernels Kernels
}

var (
	_ compute.Device      = (*Device)(nil)
	_ compute.HostKernels = (*Device)(nil)
)

// New returns a device; Close ends its threads.
func New(o Options) *Device {
	pool := par.New(max(o.Threads, 0))
	return &Device{pool, NewKernels(pool)}
}

// Close ends the device's threads. What is run afterwards runs on the caller's goroutine.
func (d *Device) Close() { d.pool.Close() }

// Kernels returns the device's kernels, for callers that run them without a plan.
func (d *Device) Kernels() Kernels { return d.kernels }

// Pool returns the device's threads, for products with packed weights (package gemm).
func (d *Device) Pool() *par.Pool { return d.pool }

// Name implements compute.Device.
func (d *Device) Name() string {
	threads := "threads"
	if d.pool.Threads() == 1 {
		threads = "thread"
	}
	return fmt.Sprintf("cpu (%s, %d %s)", gemm.Level(), d.pool.Threads(), threads)
}

// Alloc implements compute.Device.
func (d *Device) Alloc(bytes [compute.NumSpaces]int64) (compute.Memory, error) {
	m, err := newMemory(d.pool, bytes)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// WorkBytes implements compute.Device. A call that does not fit its kernel needs none: Compile reports it.
func (d *Device) WorkBytes(c *compute.Call) int64 {
	if c.Check() != nil {
		return 0
	}
	return 4 * int64(d.kernels.work(c))
}

// KeepsAttention implements compute.Device: gradients have whole rows of scores, whose sums come with them.
func (d *Device) KeepsAttention() bool { return false }

// FoldsSums implements compute.Device: beside a product a sum takes no time here, and without folding a plan has the bits of its graph.
func (d *Device) FoldsSums() bool { return false }

// Do implements compute.HostKernels.
func (d *Device) Do(c *compute.Call, in, out []compute.Host) error {
	if err := c.CheckHost(in, out); err != nil {
		return err
	}
	run, err := d.kernels.bind(c, operands(in), operands(out), make([]float32, d.kernels.work(c)))
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	return run()
}
