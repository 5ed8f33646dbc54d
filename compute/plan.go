package compute

import (
	"context"
	"fmt"
)

// DType is the type of a buffer's elements.
type DType uint8

const (
	F32 DType = iota + 1
	F64
	I32
	BF16 // the upper half of a float32
	F16  // IEEE 754 binary16
)

// Size returns bytes per element.
func (d DType) Size() int {
	switch d {
	case F64:
		return 8
	case BF16, F16:
		return 2
	}
	return 4
}

func (d DType) String() string {
	switch d {
	case F32:
		return "f32"
	case F64:
		return "f64"
	case I32:
		return "i32"
	case BF16:
		return "bf16"
	case F16:
		return "f16"
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Short reports whether parameters and activations may be kept in the type beside float32 (Mixed).
func (d DType) Short() bool { return d == BF16 || d == F16 }

// Space is one of the memories of a run. Each is a single allocation, made once, of a size known beforehand.
type Space uint8

const (
	// None marks an absent optional operand.
	None Space = iota
	// Weights holds all parameters, trained and frozen, as kernels read them.
	Weights
	// Grads holds the gradients of the trained parameters, accumulated over micro-batches.
	Grads
	// Moments holds the optimiser's state: first moments, then second.
	Moments
	// Inputs holds what the caller writes before a run: ids, targets, positions, document bounds, scalars.
	Inputs
	// Outputs holds what the caller reads after a run: losses, norms.
	Outputs
	// Arena holds activations and their gradients, placed by liveness, and kernels' work space.
	Arena
	// Masters holds the trained parameters in full precision where Weights keeps them in a shorter type (Storage).
	Masters
	// NumSpaces is the number of spaces.
	NumSpaces
)

var spaceNames = [NumSpaces]string{"none", "weights", "grads", "moments", "inputs", "outputs", "arena", "masters"}

func (s Space) String() string {
	if s < NumSpaces {
		return spaceNames[s]
	}
	return fmt.Sprintf("Space(%d)", uint8(s))
}

// Align is the alignment in bytes of every buffer's offset.
const Align = 64

// Buffer is a typed, contiguous, row-major region of a space.
type Buffer struct {
	Space  Space
	Offset int64 // bytes from the start of the space, a multiple of Align
	DType  DType
	Shape  []int
}

// Len returns the number of elements.
func (b Buffer) Len() int {
	if b.Space == None {
		return 0
	}
	n := 1
	for _, d := range b.Shape {
		n *= d
	}
	return n
}

// Bytes returns the size in bytes, without padding.
func (b Buffer) Bytes() int64 { return int64(b.Len()) * int64(b.DType.Size()) }

// Call is one kernel launch.
type Call struct {
	Kernel Kernel
	Attr   Attr
	In     []Buffer // in the kernel's order; an absent optional input has Space None
	Out    []Buffer
	Work   Buffer // scratch whose contents are undefined before and after; sized by Device.WorkBytes
	Name   string // where in the model the call comes from, for errors and profiles
}

// Plan is a flat list of calls, run in order.
type Plan struct {
	Calls []Call
	Bytes [NumSpaces]int64 // size of each space the calls use
}

// Target is what must be known of a device to plan for it. The device itself need not be there.
type Target interface {
	// Name describes the device to people, e.g. "cpu (avx512, 2 threads)".
	Name() string
	// WorkBytes returns the scratch that a call needs, given the shapes and types of its operands.
	WorkBytes(c *Call) int64
	// KeepsAttention reports whether AttentionGrad needs y and lse of its Attention, which a plan keeps for it then.
	KeepsAttention() bool
	// FoldsSums reports whether plans let products add what is to be added to their results, instead of calls of Add: fewer passes over
	// memory, other roundings.
	FoldsSums() bool
}

// Device runs plans. Its methods may be called from any goroutine, one at a time.
type Device interface {
	Target
	// Alloc allocates the spaces of a run, zeroed.
	Alloc(bytes [NumSpaces]int64) (Memory, error)
	// Compile checks every call of p against the vocabulary and the sizes of mem and prepares it for running.
	Compile(p *Plan, mem Memory) (Program, error)
}

// Program is a plan made ready on a device. Run returns ctx's error when ctx ends between two calls; the contents of Arena,
// Outputs and Grads are then undefined.
type Program interface {
	Run(ctx context.Context) error
}

// Memory is the allocated spaces of a run, on the device.
type Memory interface {
	// Write copies src to b; Read copies b to dst. src and dst are []float32, []float64, []int32 or, of bits, []uint16 (BF16, F16), of
	// b's type and length.
	Write(b Buffer, src any) error
	Read(b Buffer, dst any) error
	// Zero clears a whole space.
	Zero(s Space) error
	// Free releases the memory, which must not be used afterwards.
	Free() error
}

// Visible is a Memory that the host sees too, so that large buffers need no copy. View returns b's elements where they lie;
// they are valid until Free.
type Visible interface {
	Memory
	View(b Buffer) (Host, error)
}
