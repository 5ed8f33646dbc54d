package cpu

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"autodev/compute"
)

func TestMemory(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	var bytes [compute.NumSpaces]int64
	bytes[compute.Arena], bytes[compute.Outputs] = 3<<20+64, 128
	mem, err := d.Alloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	m := mem.(*memory)
	for s := compute.Arena; s <= compute.Arena; s++ {
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(m.spaces[s]))); at%compute.Align != 0 {
			t.Errorf("%v starts at %#x, expected a multiple of %d", s, at, compute.Align)
		}
	}
	f := compute.Buffer{Space: compute.Arena, Offset: 3 << 20, DType: compute.F32, Shape: []int{2, 8}}
	src, dst := make([]float32, 16), make([]float32, 16)
	for i := range src {
		src[i] = float32(i) + 0.5
	}
	for _, err := range []error{mem.Read(f, dst), mem.Write(f, src)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if slices.Max(dst) != 0 || slices.Min(dst) != 0 {
		t.Errorf("fresh memory holds %v", dst)
	}
	if err := mem.Read(f, dst); err != nil || !slices.Equal(src, dst) {
		t.Errorf("read %v, expected %v (%v)", dst, src, err)
	}
	wide := compute.Buffer{Space: compute.Outputs, Offset: 64, DType: compute.F64, Shape: []int{8}}
	if err := mem.Write(wide, []float64{1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		t.Error(err)
	}
	if err := mem.Zero(compute.Arena); err != nil {
		t.Error(err)
	}
	back := make([]float64, 8)
	for _, err := range []error{mem.Read(f, dst), mem.Read(wide, back)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if slices.Max(dst) != 0 || back[7] != 8 {
		t.Errorf("after clearing the arena it holds %v and outputs %v", dst, back)
	}

	buffer := func(change func(*compute.Buffer)) compute.Buffer {
		b := f
		change(&b)
		return b
	}
	for want, c := range map[string]struct {
		b   compute.Buffer
		dst any
	}{
		"a []string":                        {f, []string{}},
		"16 elements of f32 for 15":         {buffer(func(b *compute.Buffer) { b.Shape = []int{15} }), dst},
		"16 elements of f32 for 16 of i32":  {buffer(func(b *compute.Buffer) { b.DType = compute.I32 }), dst},
		"at offset 3145792":                 {buffer(func(b *compute.Buffer) { b.Offset += 64 }), dst},
		"at offset 4":                       {buffer(func(b *compute.Buffer) { b.Offset = 4 }), dst},
		"at offset -64":                     {buffer(func(b *compute.Buffer) { b.Offset = -64 }), dst},
		"of f32 in none":                    {buffer(func(b *compute.Buffer) { b.Space = compute.None }), dst},
		"space Space(9)":                    {buffer(func(b *compute.Buffer) { b.Space = 9 }), dst},
		"type DType(7)":                     {buffer(func(b *compute.Buffer) { b.DType = 7 }), dst},
		"shape [-2 -8]":                     {buffer(func(b *compute.Buffer) { b.Shape = []int{-2, -8} }), dst},
		"shape [4294967296 4294967296 256]": {buffer(func(b *compute.Buffer) { b.Shape = []int{1 << 32, 1 << 32, 1 << 8} }), dst},
		"inside its 0 bytes":                {buffer(func(b *compute.Buffer) { b.Space = compute.Grads }), dst},
	} {
		if err := mem.Read(c.b, c.dst); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("read: error %v, expected …%s…", err, want)
		}
		if err := mem.Write(c.b, c.dst); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("write: error %v, expected …%s…", err, want)
		}
	}
	for _, s := range []compute.Space{compute.None, compute.NumSpaces} {
		if mem.Zero(s) == nil {
			t.Errorf("space %v is cleared", s)
		}
	}
	prog, err := d.Compile(&compute.Plan{}, mem)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := mem.Free(); err != nil {
			t.Error(err)
		}
	}
	for what, err := range map[string]error{"read": mem.Read(f, dst), "write": mem.Write(f, dst), "zero": mem.Zero(compute.Arena), "run": prog.Run(context.Background())} {
		if err == nil || !strings.Contains(err.Error(), "freed") {
			t.Errorf("%s of freed memory: %v", what, err)
		}
	}
}

func TestAllocRefusesAbsurdSizes(t *testing.T) {
	d := New(Options{Threads: 1})
	defer d.Close()
	for _, c := range []struct {
		space compute.Space
		bytes int64
		want  string
	}{
		{compute.Arena, -1, "arena: -1 bytes"},
		{compute.Weights, math.MaxInt64, "weights"},
		{compute.Grads, 1 << 60, "allocating 1152921504606846976 bytes for grads"},
		{compute.None, 64, "expected 0"},
	} {
		var bytes [compute.NumSpaces]int64
		bytes[c.space] = c.bytes
		if mem, err := d.Alloc(bytes); err == nil || mem != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d bytes for %v: %v, expected …%s…", c.bytes, c.space, err, c.want)
		}
	}
}
