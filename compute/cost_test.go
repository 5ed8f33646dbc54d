package compute

import "testing"

// What is added to is read and written, what is written is not read.
func TestTraffic(t *testing.T) {
	b := func(d DType, shape ...int) Buffer {
		return Buffer{Space: Arena, DType: d, Shape: shape}
	}
	f, h := F32, BF16
	for _, c := range []struct {
		call Call
		want int64
	}{
		{Call{Kernel: Add, In: []Buffer{b(h, 3, 4), b(h, 3, 4)}, Out: []Buffer{b(h, 3, 4)}}, 3 * 24},
		{Call{Kernel: LinearGradW, In: []Buffer{b(h, 5, 4), b(h, 5, 3)}, Out: []Buffer{b(f, 4, 3)}}, 40 + 30 + 2*48},
		{Call{Kernel: AdamW, In: []Buffer{b(f, 6), b(f, 8)}, Out: []Buffer{b(f, 6), b(f, 6), b(f, 6), b(h, 6)}}, 24 + 32 + 6*24 + 12},
	} {
		if got := c.call.Traffic(); got != c.want {
			t.Errorf("%v: %d bytes, expected %d", c.call.Kernel, got, c.want)
		}
	}
}
