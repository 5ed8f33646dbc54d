package cpu

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"autodev/compute"
	"autodev/compute/cpu/par"
)

// memory implements compute.Visible: one allocation a space.
type memory struct {
	pool   *par.Pool
	spaces [compute.NumSpaces][]byte
	freed  bool
}

var errFreed = errors.New("the memory was freed")

func newMemory(pool *par.Pool, bytes [compute.NumSpaces]int64) (*memory, error) {
	m := &memory{pool: pool}
	for s, n := range bytes {
		space := compute.Space(s)
		switch {
		case n < 0 || n > math.MaxInt-compute.Align:
			return nil, errors.Join(fmt.Errorf("cpu: %v: %d bytes", space, n), m.Free())
		case n == 0:
			continue
		case space == compute.None:
			return nil, errors.Join(fmt.Errorf("cpu: space %v has %d bytes, expected 0", space, n), m.Free())
		}
		b, err := allocate(int(n))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cpu: allocating %d bytes for %v: %w", n, space, err), m.Free())
		}
		m.spaces[s] = b
	}
	return m, nil
}

// region returns the bytes of b, which must lie inside its space.
func (m *memory) region(b compute.Buffer) ([]byte, error) {
	if m.freed {
		return nil, errFreed
	}
	if b.Space == compute.None || b.Space >= compute.NumSpaces {
		return nil, fmt.Errorf("buffer in space %v", b.Space)
	}
	if b.DType < compute.F32 || b.DType > compute.I32 {
		return nil, fmt.Errorf("buffer of type %v in %v", b.DType, b.Space)
	}
	size := int64(b.DType.Size())
	for _, d := range b.Shape {
		if d <= 0 || size > math.MaxInt64/int64(d) {
			return nil, fmt.Errorf("buffer of shape %v in %v, expected positive dimensions", b.Shape, b.Space)
		}
		size *= int64(d)
	}
	space := m.spaces[b.Space]
	if b.Offset < 0 || b.Offset%compute.Align != 0 || size > int64(len(space)) || b.Offset > int64(len(space))-size {
		return nil, fmt.Errorf("buffer of %d bytes at offset %d of %v, expected a multiple of %d inside its %d bytes", size, b.Offset, b.Space, compute.Align, len(space))
	}
	return space[b.Offset : b.Offset+size : b.Offset+size], nil
}

// host returns b's elements; an absent buffer has none.
func (m *memory) host(b compute.Buffer) (compute.Host, error) {
	if b.Space == compute.None {
		return compute.Host{}, nil
	}
	bytes, err := m.region(b)
	if err != nil {
		return compute.Host{}, err
	}
	switch b.DType {
	case compute.F64:
		return compute.Host{F64: view[float64](bytes)}, nil
	case compute.I32:
		return compute.Host{I32: view[int32](bytes)}, nil
	}
	return compute.Host{F32: view[float32](bytes)}, nil
}

// pair returns the elements of b in place and those of the caller's slice, of b's type and length.
func (m *memory) pair(b compute.Buffer, slice any) (inside, outside compute.Host, err error) {
	if inside, err = m.host(b); err != nil {
		return inside, outside, err
	}
	n, dtype := 0, compute.DType(0)
	switch s := slice.(type) {
	case []float32:
		outside, n, dtype = compute.Host{F32: s}, len(s), compute.F32
	case []float64:
		outside, n, dtype = compute.Host{F64: s}, len(s), compute.F64
	case []int32:
		outside, n, dtype = compute.Host{I32: s}, len(s), compute.I32
	default:
		return inside, outside, fmt.Errorf("a %T, expected []float32, []float64 or []int32", slice)
	}
	if dtype != b.DType || n != b.Len() || b.Space == compute.None {
		return inside, outside, fmt.Errorf("%d elements of %v for %d of %v in %v", n, dtype, b.Len(), b.DType, b.Space)
	}
	return inside, outside, nil
}

// View implements compute.Visible.
func (m *memory) View(b compute.Buffer) (compute.Host, error) {
	h, err := m.host(b)
	if err != nil {
		return h, fmt.Errorf("cpu: view: %w", err)
	}
	return h, nil
}

func (m *memory) Write(b compute.Buffer, src any) error {
	inside, outside, err := m.pair(b, src)
	if err != nil {
		return fmt.Errorf("cpu: write: %w", err)
	}
	copyHost(inside, outside)
	return nil
}

func (m *memory) Read(b compute.Buffer, dst any) error {
	inside, outside, err := m.pair(b, dst)
	if err != nil {
		return fmt.Errorf("cpu: read: %w", err)
	}
	copyHost(outside, inside)
	return nil
}

func copyHost(dst, src compute.Host) {
	copy(dst.F32, src.F32)
	copy(dst.F64, src.F64)
	copy(dst.I32, src.I32)
}

func (m *memory) Zero(s compute.Space) error {
	if m.freed {
		return fmt.Errorf("cpu: zero %v: %w", s, errFreed)
	}
	if s == compute.None || s >= compute.NumSpaces {
		return fmt.Errorf("cpu: zero %v: no such space", s)
	}
	const piece = 1 << 20
	b := m.spaces[s]
	m.pool.Run((len(b)+piece-1)/piece, func(i int) { clear(b[i*piece : min(len(b), (i+1)*piece)]) })
	return nil
}

// Free releases the memory; programs compiled for it report an error from then on. A second Free does nothing.
func (m *memory) Free() error {
	if m.freed {
		return nil
	}
	m.freed = true
	var errs []error
	for s, b := range m.spaces {
		if b == nil {
			continue
		}
		if err := release(b); err != nil {
			errs = append(errs, fmt.Errorf("cpu: releasing %v: %w", compute.Space(s), err))
		}
		m.spaces[s] = nil
	}
	return errors.Join(errs...)
}

// uint64s and float64s view scratch as other types. It is aligned to 8 bytes, as make and plans give it.
func uint64s(work []float32) []uint64 { return view[uint64](bytesOf(work)) }

func float64s(work []float32) []float64 { return view[float64](bytesOf(work)) }

func bytesOf(work []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(work))), 4*len(work))
}

// view returns b as a slice of T.
func view[T float32 | float64 | int32 | uint64](b []byte) []T {
	size := int(unsafe.Sizeof(*new(T)))
	if len(b) < size {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/size)
}
