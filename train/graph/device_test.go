package graph

import (
	"context"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"autodev/compute"
)

// hostDevice runs plans call by call on host kernels. It fills the arena with NaN before every run and a call's work space
// before and after the call, so that memory used before it is written or after it was given away shows.
type hostDevice struct {
	kernels compute.HostKernels
	work    int64 // bytes of work space every call asks for
	more    map[compute.Kernel]int64
	keeps   bool // plans for it keep attention's outputs for its gradient, as those for cards do
	folds   bool // products add for it, as for cards
}

func (d hostDevice) Name() string { return "host kernels" }

func (d hostDevice) WorkBytes(c *compute.Call) int64 { return d.work + d.more[c.Kernel] }

func (d hostDevice) KeepsAttention() bool { return d.keeps }

func (d hostDevice) FoldsSums() bool { return d.folds }

func (d hostDevice) Alloc(bytes [compute.NumSpaces]int64) (compute.Memory, error) {
	m := &hostMemory{}
	for s, n := range bytes {
		m.spaces[s] = make([]uint64, (n+7)/8)
	}
	return m, nil
}

func (d hostDevice) Compile(p *compute.Plan, mem compute.Memory) (compute.Program, error) {
	if err := checkArena(p); err != nil && !readsGradients(p) {
		return nil, err
	}
	return &hostProgram{d, p, mem.(*hostMemory)}, nil
}

type hostMemory struct {
	spaces [compute.NumSpaces][]uint64
}

// bits returns the elements of a buffer of a short type where they lie.
func (m *hostMemory) bits(b compute.Buffer) []uint16 {
	b.DType = compute.F32
	b.Shape = []int{(b.Len() + 1) / 2}
	f := m.host(b).F32
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(f))), 2*len(f))
}

func (m *hostMemory) host(b compute.Buffer) compute.Host {
	if b.Space == compute.None {
		return compute.Host{}
	}
	space := m.spaces[b.Space]
	if b.Offset+b.Bytes() > int64(len(space))*8 || b.Offset%compute.Align != 0 {
		panic(fmt.Sprintf("buffer %+v outside of its space of %d bytes", b, len(space)*8))
	}
	p := unsafe.Pointer(&space[b.Offset/8])
	switch b.DType {
	case compute.F32:
		return compute.Host{F32: unsafe.Slice((*float32)(p), b.Len())}
	case compute.F64:
		return compute.Host{F64: unsafe.Slice((*float64)(p), b.Len())}
	}
	return compute.Host{I32: unsafe.Slice((*int32)(p), b.Len())}
}

func (m *hostMemory) Write(b compute.Buffer, src any) error { return m.copy(b, src, true) }
func (m *hostMemory) Read(b compute.Buffer, dst any) error  { return m.copy(b, dst, false) }

func (m *hostMemory) copy(b compute.Buffer, data any, write bool) error {
	if x, ok := data.([]uint16); ok && b.DType.Short() && len(x) == b.Len() {
		move(m.bits(b)[:len(x)], x, write)
		return nil
	}
	h := m.host(b)
	ok := false
	switch x := data.(type) {
	case []float32:
		ok = move(h.F32, x, write)
	case []float64:
		ok = move(h.F64, x, write)
	case []int32:
		ok = move(h.I32, x, write)
	}
	if !ok {
		return fmt.Errorf("%T does not fit %+v", data, b)
	}
	return nil
}

func move[T any](device, host []T, write bool) bool {
	if len(device) != len(host) {
		return false
	}
	if write {
		copy(device, host)
	} else {
		copy(host, device)
	}
	return true
}

func (m *hostMemory) Zero(s compute.Space) error { clear(m.spaces[s]); return nil }
func (m *hostMemory) Free() error                { m.spaces = [compute.NumSpaces][]uint64{}; return nil }

type hostProgram struct {
	d    hostDevice
	plan *compute.Plan
	mem  *hostMemory
}

// readsGradients reports whether the plan goes on with the gradients of a step, which may lie in the arena.
func readsGradients(p *compute.Plan) bool {
	return p.Calls[0].Kernel == compute.SumSquares || p.Calls[0].Kernel == compute.AdamW
}

func poison(words []uint64) {
	for i := range words {
		words[i] = math.MaxUint64 // a NaN as one float64 and as two float32
	}
}

func (p *hostProgram) Run(ctx context.Context) error {
	if !readsGradients(p.plan) {
		poison(p.mem.spaces[compute.Arena])
	}
	for i := range p.plan.Calls {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &p.plan.Calls[i]
		c, in, out, finish := p.mem.widened(c)
		scratch := func() {
			if c.Work.Space != compute.None {
				at := c.Work.Offset / 8
				poison(p.mem.spaces[compute.Arena][at : at+c.Work.Bytes()/8])
			}
		}
		scratch()
		if err := p.d.kernels.Do(c, in, out); err != nil {
			return err
		}
		finish()
		scratch()
	}
	return nil
}

// widened returns the call and its operands with short ones as float32 copies; finish rounds the results to where they belong.
func (m *hostMemory) widened(c *compute.Call) (_ *compute.Call, in, out []compute.Host, finish func()) {
	wide := *c
	finish = func() {}
	widen := func(buffers []compute.Buffer, output bool) (all []compute.Buffer, hosts []compute.Host) {
		for _, b := range buffers {
			if !b.DType.Short() || b.Space == compute.None {
				all, hosts = append(all, b), append(hosts, m.host(b))
				continue
			}
			place, d := m.bits(b)[:b.Len()], b.DType
			h := compute.Host{F32: compute.FromShort(d, place)}
			b.DType = compute.F32
			all, hosts = append(all, b), append(hosts, h)
			if before := finish; output {
				finish = func() { before(); copy(place, compute.ToShort(d, h.F32)) }
			}
		}
		return all, hosts
	}
	wide.In, in = widen(c.In, false)
	if c.Kernel == compute.AdamW && len(c.Out) == 4 {
		wide.Out, out = widen(c.Out[:3], true)
		return &wide, in, out, func() { copy(m.bits(c.Out[3])[:c.Out[3].Len()], compute.ToShort(c.Out[3].DType, out[0].F32)) }
	}
	wide.Out, out = widen(c.Out, true)
	return &wide, in, out, finish
}

// checkArena judges a plan by its calls alone: what a call reads from the arena must be exactly what an earlier call wrote,
// with nothing written over it since; a call's outputs and work space overlap nothing of its own but where the vocabulary
// allows it.
func checkArena(p *compute.Plan) error {
	var written []compute.Buffer
	overlap := func(a, b compute.Buffer) bool {
		return a.Space == b.Space && a.Space != compute.None && a.Offset < b.Offset+b.Bytes() && b.Offset < a.Offset+a.Bytes()
	}
	same := func(a, b compute.Buffer) bool {
		return a.Space == b.Space && a.Offset == b.Offset && a.DType == b.DType && slices.Equal(a.Shape, b.Shape)
	}
	for i, c := range p.Calls {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("call %d, %v %s: %s", i, c.Kernel, c.Name, fmt.Sprintf(format, args...))
		}
		all := append(slices.Clone(c.Out), c.Work)
		for j, b := range slices.Concat(c.In, all) {
			if b.Offset%compute.Align != 0 || b.Offset+b.Bytes() > p.Bytes[b.Space] {
				return fail("operand %d %+v is outside of %d bytes", j, b, p.Bytes[b.Space])
			}
		}
		for j, b := range c.In {
			if b.Space == compute.Arena && !slices.ContainsFunc(written, func(w compute.Buffer) bool { return same(w, b) }) {
				return fail("input %d at %d is not what was written there", j, b.Offset)
			}
		}
		for j, o := range all {
			for k, in := range c.In {
				if !overlap(o, in) {
					continue
				}
				allowed := j == 0 && same(o, in) && (c.Kernel == compute.Add || c.Kernel == compute.Dropout ||
					c.Kernel == compute.Activation || c.Kernel == compute.ActivationGrad ||
					c.Kernel == compute.Linear && k == 3 || c.Kernel == compute.LinearGradX && k == 2 ||
					c.Kernel == compute.LayerNormGrad && (k == 0 || k == 3))
				if !allowed {
					return fail("output %d overlaps input %d", j, k)
				}
			}
			for k := range j {
				if overlap(o, all[k]) {
					return fail("outputs %d and %d overlap", j, k)
				}
			}
		}
		for _, o := range all {
			written = slices.DeleteFunc(written, func(w compute.Buffer) bool { return overlap(w, o) })
		}
		for _, o := range c.Out {
			if o.Space == compute.Arena {
				written = append(written, o)
			}
		}
	}
	return nil
}
