package compute

import "fmt"

// Host is the elements of one operand in host memory; exactly the field of its DType is set, none for an absent operand. Kernels
// on the host know no short types.
type Host struct {
	F32 []float32
	F64 []float64
	I32 []int32
}

// absent reports whether no field is set.
func (h Host) absent() bool { return h.F32 == nil && h.F64 == nil && h.I32 == nil }

// HostKernels executes single calls on host memory: what Gorgonia's TapeMachine and the tests use to run one kernel
// outside a plan. In and out follow the kernel's signature like Call.In and Call.Out; c.In and c.Out need only their shapes
// and types: an operand is absent when its Host is.
type HostKernels interface {
	Do(c *Call, in, out []Host) error
}

// CheckHost reports whether the call's shapes fit its kernel (as Check) and the slices given fit the shapes.
func (c *Call) CheckHost(in, out []Host) error {
	d := *c
	var err error
	if d.In, err = hostBuffers(c, "input", c.In, in); err != nil {
		return err
	}
	if d.Out, err = hostBuffers(c, "output", c.Out, out); err != nil {
		return err
	}
	return d.Check()
}

// hostBuffers returns the buffers marked present or absent by the slices given for them.
func hostBuffers(c *Call, role string, buffers []Buffer, hosts []Host) ([]Buffer, error) {
	if len(hosts) > len(buffers) {
		return nil, fmt.Errorf("%s: %v: %d %s slices for %d buffers", c.Name, c.Kernel, len(hosts), role, len(buffers))
	}
	marked := make([]Buffer, len(buffers))
	for i, b := range buffers {
		if i >= len(hosts) || hosts[i].absent() {
			continue
		}
		h := hosts[i]
		b.Space = Arena
		found := 0
		switch b.DType {
		case F32:
			found = len(h.F32)
		case F64:
			found = len(h.F64)
		case I32:
			found = len(h.I32)
		}
		if found != b.Len() {
			return nil, fmt.Errorf("%s: %v: %s %d has %d %v elements, expected %d for shape %v", c.Name, c.Kernel, role, i, found, b.DType, b.Len(), b.Shape)
		}
		marked[i] = b
	}
	return marked, nil
}
