package cuda

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"autodev/compute"
)

// Memory is the spaces of a run: one allocation of device memory each. It implements compute.Memory.
type Memory struct {
	d     *Device
	base  [compute.NumSpaces]Ptr
	bytes [compute.NumSpaces]int64
	freed bool
	// staging is pinned memory that the caller's slices are copied through, half by half.
	staging  []byte
	programs []*Program
}

var _ compute.Memory = (*Memory)(nil)

var errFreed = errors.New("the memory was freed")

// Alloc allocates the spaces of a run, zeroed (with Options.Poison the arena is filled with NaNs). Either all fit or none is allocated.
func (d *Device) Alloc(bytes [compute.NumSpaces]int64) (compute.Memory, error) {
	m := &Memory{d: d, bytes: bytes}
	err := d.Do(func(q *Queue) error {
		var total int64
		for s, n := range bytes {
			if n < 0 || n > math.MaxInt64-total || n > 0 && compute.Space(s) == compute.None {
				return fmt.Errorf("cuda: %d bytes for space %v", n, compute.Space(s))
			}
			total += n
		}
		free, _, err := q.MemInfo()
		if err != nil {
			return err
		}
		if total > free {
			return q.outOfMemory(total)
		}
		if m.staging, err = q.Pinned(min(stagingBytes, 2*max(total, compute.Align))); err != nil {
			return err
		}
		for s, n := range bytes {
			if n == 0 {
				continue
			}
			if m.base[s], err = q.Alloc(n); err != nil {
				freed := m.free(q)
				if oom := (*OutOfMemoryError)(nil); errors.As(err, &oom) {
					oom.Asked, oom.Free = total, free // fragments: what was asked for as a whole
				}
				return errors.Join(err, freed)
			}
			if err := m.clear(q, compute.Space(s), d.options.Poison); err != nil {
				return errors.Join(err, m.free(q))
			}
		}
		return q.Sync()
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Memory) clear(q *Queue, s compute.Space, poison bool) error {
	v := byte(0)
	if poison && s == compute.Arena {
		v = 0xff
	}
	return q.Fill(m.base[s], v, m.bytes[s])
}

// Ptr returns the address of b, which must lie inside its space; 0 for an absent buffer.
func (m *Memory) Ptr(b compute.Buffer) (Ptr, error) {
	if m.freed {
		return 0, errFreed
	}
	if b.Space == compute.None {
		return 0, nil
	}
	if b.Space >= compute.NumSpaces {
		return 0, fmt.Errorf("buffer in space %v", b.Space)
	}
	size := int64(b.DType.Size())
	for _, n := range b.Shape {
		if n <= 0 || size > math.MaxInt64/int64(n) {
			return 0, fmt.Errorf("buffer of shape %v in %v, expected positive dimensions", b.Shape, b.Space)
		}
		size *= int64(n)
	}
	if b.Offset < 0 || b.Offset%compute.Align != 0 || size > m.bytes[b.Space] || b.Offset > m.bytes[b.Space]-size {
		return 0, fmt.Errorf("buffer of %d bytes at offset %d of %v, expected a multiple of %d inside its %d bytes", size, b.Offset, b.Space, compute.Align, m.bytes[b.Space])
	}
	return m.base[b.Space] + Ptr(b.Offset), nil
}

// stagingBytes is the pinned memory of a run, less if its memory fits into half of it: two halves, one of which is copied to or from the device while
// the host is at the other.
const stagingBytes = 8 << 20

// Write implements compute.Memory.
func (m *Memory) Write(b compute.Buffer, src any) error {
	return m.move("write", b, src, func(q *Queue, p Ptr, host []byte) error {
		half := len(m.staging) / 2
		for i := 0; len(host) > 0; i++ {
			if i > 0 && i%2 == 0 {
				// Both halves are free again.
				if err := q.Sync(); err != nil {
					return err
				}
			}
			piece := m.staging[i%2*half:][:min(half, len(host))]
			copy(piece, host)
			if err := Write(q, p, piece); err != nil {
				return err
			}
			p, host = p+Ptr(len(piece)), host[len(piece):]
		}
		return q.Sync()
	})
}

// Read implements compute.Memory.
func (m *Memory) Read(b compute.Buffer, dst any) error {
	return m.move("read", b, dst, func(q *Queue, p Ptr, host []byte) error {
		half := len(m.staging) / 2
		piece := func(i int) []byte { return m.staging[i%2*half:][:min(half, len(host)-i*half)] }
		// While the host takes piece i away, piece i+1 is on its way.
		pieces := (len(host) + half - 1) / half
		fetch := func(i int) error {
			if i >= pieces {
				return nil
			}
			return Read(q, piece(i), p+Ptr(i*half))
		}
		if err := fetch(0); err != nil {
			return err
		}
		for i := range pieces {
			if err := q.Sync(); err != nil {
				return err
			}
			if err := fetch(i + 1); err != nil {
				return err
			}
			copy(host[i*half:], piece(i))
		}
		return nil
	})
}

// bytesOf returns the elements of a slice as bytes, their number and type; bits are of BF16 or F16.
func bytesOf(slice any) (b []byte, n int, d compute.DType) {
	switch s := slice.(type) {
	case []float32:
		return view(s), len(s), compute.F32
	case []float64:
		return view(s), len(s), compute.F64
	case []int32:
		return view(s), len(s), compute.I32
	case []uint16:
		return view(s), len(s), compute.BF16
	}
	return nil, 0, 0
}

func view[T Number](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}

// move checks that the slice has b's type and length and runs f with b's address and the slice.
func (m *Memory) move(verb string, b compute.Buffer, slice any, f func(*Queue, Ptr, []byte) error) error {
	host, n, dtype := bytesOf(slice)
	if dtype == 0 {
		return fmt.Errorf("cuda: %s: a %T, expected []float32, []float64, []int32 or []uint16", verb, slice)
	}
	same := dtype == b.DType || dtype.Short() && b.DType.Short()
	if !same || n != b.Len() || b.Space == compute.None {
		return fmt.Errorf("cuda: %s: %d elements of %v for %d of %v in %v", verb, n, dtype, b.Len(), b.DType, b.Space)
	}
	return m.d.Do(func(q *Queue) error {
		p, err := m.Ptr(b)
		if err == nil {
			err = f(q, p, host)
		}
		if err != nil {
			return fmt.Errorf("cuda: %s: %w", verb, err)
		}
		return nil
	})
}

// Zero implements compute.Memory.
func (m *Memory) Zero(s compute.Space) error {
	if s == compute.None || s >= compute.NumSpaces {
		return fmt.Errorf("cuda: zero %v: no such space", s)
	}
	return m.d.Do(func(q *Queue) error {
		if m.freed {
			return fmt.Errorf("cuda: zero %v: %w", s, errFreed)
		}
		if m.bytes[s] == 0 {
			return nil
		}
		if err := m.clear(q, s, false); err != nil {
			return err
		}
		return q.Sync()
	})
}

// Free releases the memory and the programs compiled for it. A second Free does nothing; nor does one on a lost device, whose driver
// has freed everything.
func (m *Memory) Free() error {
	err := m.d.Do(m.free)
	if lost := (*LostError)(nil); errors.As(err, &lost) {
		return nil
	}
	return err
}

func (m *Memory) free(q *Queue) error {
	if m.freed {
		return nil
	}
	m.freed = true
	var errs []error
	for _, p := range m.programs {
		errs = append(errs, p.free(q))
	}
	for _, p := range m.base {
		if p != 0 {
			errs = append(errs, q.Free(p))
		}
	}
	if m.staging != nil {
		errs = append(errs, q.FreePinned(m.staging))
	}
	return errors.Join(errs...)
}
