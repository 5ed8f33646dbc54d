package compute

import "fmt"

// CheckOverlap reports outputs or scratch that share memory with another operand where the kernel does not allow it.
func (c *Call) CheckOverlap() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%s: %v: "+format, append([]any{c.Name, c.Kernel}, args...)...)
	}
	for i, out := range c.Out {
		for j, in := range c.In {
			if out.Overlaps(in) && !mayAlias(c.Kernel, i, j, out, in) {
				return fail("output %d overlaps input %d in %v at offsets %d and %d", i, j, out.Space, out.Offset, in.Offset)
			}
		}
		for j, other := range c.Out[:i] {
			if out.Overlaps(other) {
				return fail("outputs %d and %d overlap in %v at offsets %d and %d", i, j, out.Space, out.Offset, other.Offset)
			}
		}
	}
	for _, side := range [][]Buffer{c.In, c.Out} {
		for _, b := range side {
			if c.Work.Overlaps(b) {
				return fail("work overlaps an operand in %v at offsets %d and %d", b.Space, c.Work.Offset, b.Offset)
			}
		}
	}
	return nil
}

// Overlaps reports whether two buffers share memory.
func (b Buffer) Overlaps(o Buffer) bool {
	return b.Space != None && b.Space == o.Space && b.Offset < o.Offset+o.Bytes() && o.Offset < b.Offset+b.Bytes()
}

// Same reports whether two buffers are the same elements of the same memory, whatever their shapes.
func (b Buffer) Same(o Buffer) bool {
	return b.Space == o.Space && b.Offset == o.Offset && b.DType == o.DType && b.Len() == o.Len()
}

// mayAlias reports whether the kernel allows output i to be exactly the memory of input j.
func mayAlias(k Kernel, i, j int, out, in Buffer) bool {
	if out.Offset != in.Offset || out.Bytes() != in.Bytes() {
		return false
	}
	switch k {
	case Add, Activation, ActivationGrad:
		return true
	case Dropout:
		return j == 0
	case LayerNormGrad:
		return i == 0 && (j == 0 || j == 3)
	case Linear:
		return j == 3
	case LinearGradX:
		return j == 2
	}
	return false
}
