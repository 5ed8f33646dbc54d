package cuda

import (
	"errors"
	"fmt"
	"math"

	"autodev/compute"
)

// Memory is the spaces of a run: one allocation of device memory each. It implements compute.Memory.
type Memory struct {
	d     *Device
	base  [compute.NumSpaces]Ptr
	bytes [compute.NumSpaces]int64
	freed bool
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

// Write implements compute.Memory.
func (m *Memory) Write(b compute.Buffer, src any) error {
	return m.move("write", b, src, func(q *Queue, p Ptr) error {
		switch s := src.(type) {
		case []float32:
			return Write(q, p, s)
		case []float64:
			return Write(q, p, s)
		default:
			return Write(q, p, s.([]int32))
		}
	})
}

// Read implements compute.Memory.
func (m *Memory) Read(b compute.Buffer, dst any) error {
	return m.move("read", b, dst, func(q *Queue, p Ptr) error {
		switch s := dst.(type) {
		case []float32:
			return Read(q, s, p)
		case []float64:
			return Read(q, s, p)
		default:
			return Read(q, s.([]int32), p)
		}
	})
}

// move checks that the slice has b's type and length and runs f with b's address.
func (m *Memory) move(verb string, b compute.Buffer, slice any, f func(*Queue, Ptr) error) error {
	n, dtype := 0, compute.DType(0)
	switch s := slice.(type) {
	case []float32:
		n, dtype = len(s), compute.F32
	case []float64:
		n, dtype = len(s), compute.F64
	case []int32:
		n, dtype = len(s), compute.I32
	default:
		return fmt.Errorf("cuda: %s: a %T, expected []float32, []float64 or []int32", verb, slice)
	}
	if dtype != b.DType || n != b.Len() || b.Space == compute.None {
		return fmt.Errorf("cuda: %s: %d elements of %v for %d of %v in %v", verb, n, dtype, b.Len(), b.DType, b.Space)
	}
	return m.d.Do(func(q *Queue) error {
		p, err := m.Ptr(b)
		if err == nil {
			err = f(q, p)
		}
		if err == nil {
			err = q.Sync()
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

// Free releases the memory. A second Free does nothing.
func (m *Memory) Free() error { return m.d.Do(m.free) }

func (m *Memory) free(q *Queue) error {
	if m.freed {
		return nil
	}
	m.freed = true
	var errs []error
	for _, p := range m.base {
		if p != 0 {
			errs = append(errs, q.Free(p))
		}
	}
	return errors.Join(errs...)
}
