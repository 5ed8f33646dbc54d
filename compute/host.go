package compute

// Host is the elements of one operand in host memory; exactly the field of its DType is set, none for an absent operand.
type Host struct {
	F32 []float32
	F64 []float64
	I32 []int32
}

// HostKernels executes single calls on host memory: what Gorgonia's TapeMachine and the tests use to run one kernel
// outside a plan. In and out follow the kernel's signature like Call.In and Call.Out; c.In and c.Out need only their shapes
// and types.
type HostKernels interface {
	Do(c *Call, in, out []Host) error
}
