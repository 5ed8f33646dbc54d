package cuda

import (
	"fmt"
	"math"

	"autodev/compute/cuda/driver"
	"autodev/compute/cuda/kernels"
)

// Op is something prepared that can be given to the device again and again: a Launch, a Product, a Graph.
type Op interface {
	Enqueue(q *Queue) error
}

// Store is how a kernel's floats lie in memory: the suffix of its name.
type Store uint8

// The stores.
const (
	F32 Store = iota + 1
	BF16
	F16
)

// Size returns bytes per element.
func (s Store) Size() int {
	if s == F32 {
		return 4
	}
	return 2
}

func (s Store) String() string {
	switch s {
	case F32:
		return "f32"
	case BF16:
		return "bf16"
	case F16:
		return "f16"
	}
	return fmt.Sprintf("Store(%d)", uint8(s))
}

// Dim is up to three extents; absent ones are 1.
type Dim []int

// Grid says how many blocks of how many threads run a kernel, and the bytes of dynamic shared memory a block gets.
type Grid struct {
	Blocks, Threads Dim
	Shared          int
}

// Launch is a kernel with its arguments.
type Launch struct {
	Name   string
	packet *driver.Packet
	params []kernels.Param
	early  bool // it waits for the kernels before it
}

// Prepare returns a launch of the kernel named. Arguments are Ptr, int32, uint32, int64, float32, or int, which takes the parameter's type; their
// number and types are checked against the kernel's, the grid against what the device and the kernel allow.
func (q *Queue) Prepare(name string, g Grid, args ...any) (*Launch, error) {
	l, err := q.prepare(name, g, args)
	if err != nil {
		return nil, fmt.Errorf("cuda: kernel %s: %w", name, err)
	}
	return l, nil
}

func (q *Queue) prepare(name string, g Grid, args []any) (*Launch, error) {
	d := q.d
	e := d.entries[name]
	if e == nil {
		return nil, fmt.Errorf("there is none for compute capability %d.%d", d.properties.Capability/10, d.properties.Capability%10)
	}
	if err := q.load(e); err != nil {
		return nil, err
	}
	blocks, err := extents(g.Blocks, [3]int{math.MaxInt32, 65535, 65535})
	if err != nil {
		return nil, fmt.Errorf("blocks %v: %w", g.Blocks, err)
	}
	threads, err := extents(g.Threads, [3]int{1024, 1024, 64})
	if err != nil {
		return nil, fmt.Errorf("threads %v: %w", g.Threads, err)
	}
	if n := int(threads[0] * threads[1] * threads[2]); n > e.MaxThreads {
		return nil, fmt.Errorf("%d threads a block, expected at most %d", n, e.MaxThreads)
	}
	if g.Shared < 0 || g.Shared > d.properties.SharedPerBlock {
		return nil, fmt.Errorf("%d bytes of shared memory, the device has %d", g.Shared, d.properties.SharedPerBlock)
	}
	if g.Shared > e.shared {
		if err := d.note(d.api.SetFunctionAttribute(e.function, driver.FunctionMaxDynamicShared, g.Shared)); err != nil {
			return nil, err
		}
		e.shared = g.Shared
	}
	if len(args) != len(e.Params) {
		return nil, fmt.Errorf("%d arguments, expected %d", len(args), len(e.Params))
	}
	if len(args) > driver.MaxArguments {
		return nil, fmt.Errorf("%d arguments, at most %d are possible", len(args), driver.MaxArguments)
	}
	l := &Launch{name, driver.NewPacket(e.function, blocks, threads, uint32(g.Shared), len(args)), e.Params, e.Early && d.launchesEarly()}
	for i, a := range args {
		if err := l.Set(i, a); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// load loads the kernel's module.
func (q *Queue) load(e *entry) error {
	if e.function != 0 {
		return nil
	}
	m := e.module
	if m.handle == 0 {
		ptx, err := m.PTX()
		if err != nil {
			return err
		}
		if m.handle, err = q.d.api.LoadModule(ptx); err != nil {
			return fmt.Errorf("module %s for %v: %w", m.Name, m.Target, q.d.note(err))
		}
	}
	f, err := q.d.api.Function(m.handle, e.Name)
	if err == nil && e.Early && q.d.launchesEarly() {
		// Blocks of two kernels are on a multiprocessor at the same time only if they want it divided in the same way.
		err = q.d.api.SetFunctionAttribute(f, driver.FunctionSharedCarveout, earlyShared)
	}
	if err == nil {
		e.function = f
	}
	return q.d.note(err)
}

// earlyShared is what part of a multiprocessor's first-level cache is shared memory while kernels are launched early, in percent: the rows that products
// norm and attention's tiles fit, and a row of activations fits the rest.
const earlyShared = 50

// extents fills d up with ones.
func extents(d Dim, limit [3]int) (full [3]uint32, err error) {
	full = [3]uint32{1, 1, 1}
	if len(d) == 0 || len(d) > 3 {
		return full, fmt.Errorf("expected one to three extents")
	}
	for i, n := range d {
		if n < 1 || n > limit[i] {
			return full, fmt.Errorf("extent %d is %d, expected 1 to %d", i, n, limit[i])
		}
		full[i] = uint32(n)
	}
	return full, nil
}

// Set changes argument i for later Enqueues. Graphs that were captured before keep the old value.
func (l *Launch) Set(i int, v any) error {
	var bits uint64
	t := l.params[i]
	fits := false
	switch v := v.(type) {
	case Ptr:
		bits, fits = uint64(v), t == kernels.U64
	case int64:
		bits, fits = uint64(v), t == kernels.U64
	case int32:
		bits, fits = uint64(uint32(v)), t == kernels.U32
	case uint32:
		bits, fits = uint64(v), t == kernels.U32
	case float32:
		bits, fits = uint64(math.Float32bits(v)), t == kernels.F32
	case int:
		switch {
		case t == kernels.U64:
			bits, fits = uint64(v), true
		case t == kernels.U32 && v >= math.MinInt32 && v <= math.MaxInt32:
			bits, fits = uint64(uint32(v)), true
		}
	}
	if !fits {
		return fmt.Errorf("argument %d is the %T %v, expected a .%s", i, v, v, t)
	}
	l.packet.Set(i, bits)
	return nil
}

// launchesEarly reports whether kernels that wait for those before them may begin before these have ended.
func (d *Device) launchesEarly() bool {
	return !d.options.InTurn && d.properties.Capability >= 90 && d.properties.Driver >= driver.EarlyVersion
}

// Enqueue gives the launch to the device. It allocates nothing, but for the first time in a capture. In a capture, a kernel that waits for those
// before it follows another one early: outside, what is before it may be the host's copy of what it reads before it waits.
func (l *Launch) Enqueue(q *Queue) error {
	launch := q.d.api.Launch
	if l.early && q.afterKernel {
		launch = q.d.api.LaunchEarly
	}
	if err := launch(l.packet, q.stream); err != nil {
		return fmt.Errorf("cuda: kernel %s: %w", l.Name, q.d.note(err))
	}
	q.afterKernel = q.capturing
	return nil
}

// blocksFor returns how many blocks of the given threads cover n elements, at most limit.
func blocksFor(n int64, threads, limit int) int {
	return int(max(1, min((n+int64(threads)-1)/int64(threads), int64(limit))))
}
