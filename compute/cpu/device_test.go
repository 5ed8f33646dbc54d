package cpu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute"
	"autodev/compute/ref"
	"autodev/internal/rng"
)

// example is a call with its operands on the host. out holds the old contents of accumulating outputs.
type example struct {
	call    compute.Call
	in, out []compute.Host
	// The result may differ from the float64 reference by abs + rel·|expected|.
	abs, rel float64
}

func floats(shape ...int) compute.Buffer {
	return compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: shape}
}

func ints(shape ...int) compute.Buffer {
	return compute.Buffer{Space: compute.Arena, DType: compute.I32, Shape: shape}
}

// build makes an example of kernel k whose float operands are normally distributed; integer operands are given by name of
// place in the list of inputs.
func build(r *rand.Rand, k compute.Kernel, attr compute.Attr, in, out []compute.Buffer, integers map[int][]int32) example {
	e := example{call: compute.Call{Kernel: k, Attr: attr, In: in, Out: out, Name: "example"}, abs: 2e-6, rel: 2e-5}
	fill := func(b compute.Buffer, i int) compute.Host {
		switch {
		case b.Space == compute.None:
			return compute.Host{}
		case b.DType == compute.I32:
			return compute.Host{I32: integers[i]}
		case b.DType == compute.F64:
			return compute.Host{F64: make([]float64, b.Len())}
		}
		x := make([]float32, b.Len())
		for j := range x {
			x[j] = float32(r.NormFloat64())
		}
		return compute.Host{F32: x}
	}
	for i, b := range in {
		e.in = append(e.in, fill(b, i))
	}
	for _, b := range out {
		e.out = append(e.out, fill(b, -1))
	}
	return e
}

func ids(r *rand.Rand, n, limit int) []int32 {
	x := make([]int32, n)
	for i := range x {
		x[i] = int32(r.IntN(limit))
	}
	return x
}

// docStarts draws document bounds: each token starts a document with probability 1/8.
func docStarts(r *rand.Rand, n, seq int) []int32 {
	x := make([]int32, n)
	for i := range x {
		if t := i % seq; t > 0 {
			x[i] = x[i-1]
			if r.IntN(8) == 0 {
				x[i] = int32(t)
			}
		}
	}
	return x
}

// size draws small and, now and then, larger sizes.
func size(t *rapid.T, name string, limit int) int {
	if rapid.IntRange(0, 3).Draw(t, name+" is small") > 0 {
		limit = min(limit, 9)
	}
	return rapid.IntRange(1, limit).Draw(t, name)
}

// draw draws an example of kernel k.
func draw(t *rapid.T, k compute.Kernel) example {
	r := rng.New(rapid.Uint64().Draw(t, "seed"), "example")
	optional := func(name string, b compute.Buffer) compute.Buffer {
		if rapid.Bool().Draw(t, name) {
			return b
		}
		return compute.Buffer{}
	}
	n, e, m := size(t, "n", 150), size(t, "width", 300), size(t, "out", 140)
	alpha := compute.Attr{Alpha: rapid.SampledFrom([]float64{1, 0.25, -2}).Draw(t, "alpha"), BF16: rapid.Bool().Draw(t, "bf16")}
	norm := compute.Attr{Epsilon: 1e-5}
	act := compute.Attr{Act: rapid.SampledFrom([]compute.Act{compute.GELUTanh, compute.GELUErf, compute.ReLU}).Draw(t, "act")}
	switch k {
	case compute.Embed:
		return build(r, k, compute.Attr{}, []compute.Buffer{floats(m, e), floats(7, e), ints(n), ints(n)}, []compute.Buffer{floats(n, e)},
			map[int][]int32{2: ids(r, n, m), 3: ids(r, n, 7)})
	case compute.EmbedGrad:
		x := build(r, k, compute.Attr{}, []compute.Buffer{floats(n, e), ints(n)}, []compute.Buffer{floats(m, e)}, map[int][]int32{1: ids(r, n, m)})
		x.abs = 2e-5 // of sums of up to n rows
		return x
	case compute.LayerNorm:
		e = max(e, 8) // rows of a few elements may be nearly constant, and their digits lost
		x := build(r, k, norm, []compute.Buffer{floats(n, e), floats(e), floats(e)}, []compute.Buffer{floats(n, e)}, nil)
		x.abs = 1e-5
		return x
	case compute.LayerNormGrad, compute.LayerNormGainGrad:
		e = max(e, 8)
		if k == compute.LayerNormGrad {
			x := build(r, k, norm, []compute.Buffer{floats(n, e), floats(n, e), floats(e), optional("base", floats(n, e))},
				[]compute.Buffer{floats(n, e), optional("dgain", floats(e)), optional("dbias", floats(e))}, nil)
			x.abs = 1e-4
			return x
		}
		x := build(r, k, norm, []compute.Buffer{floats(n, e), floats(n, e)}, []compute.Buffer{floats(e)}, nil)
		x.abs = 2e-5
		return x
	case compute.Linear:
		x := build(r, k, alpha, []compute.Buffer{floats(n, e), floats(m, e), optional("bias", floats(m)), optional("base", floats(n, m))}, []compute.Buffer{floats(n, m)}, nil)
		x.abs = 2e-5 * math.Sqrt(float64(e))
		return x
	case compute.LinearGradX:
		x := build(r, k, alpha, []compute.Buffer{floats(n, m), floats(m, e), optional("base", floats(n, e))}, []compute.Buffer{floats(n, e)}, nil)
		x.abs = 2e-5 * math.Sqrt(float64(m))
		return x
	case compute.LinearGradW:
		x := build(r, k, alpha, []compute.Buffer{floats(n, m), floats(n, e)}, []compute.Buffer{floats(m, e)}, nil)
		x.abs = 2e-5 * math.Sqrt(float64(n))
		return x
	case compute.BiasGrad:
		x := build(r, k, compute.Attr{}, []compute.Buffer{floats(n, e)}, []compute.Buffer{floats(e)}, nil)
		x.abs = 2e-5
		return x
	case compute.Attention, compute.AttentionGrad:
		kv := rapid.IntRange(1, 3).Draw(t, "key heads")
		a := compute.Attr{KVHeads: kv, Heads: kv * size(t, "group", 20), HeadDim: size(t, "head dimension", 40), Seq: size(t, "sequence", 80)}
		a.Scale = 1 / math.Sqrt(float64(a.HeadDim))
		batch := rapid.IntRange(1, 3).Draw(t, "batch")
		key := compute.Buffer{}
		if rapid.Bool().Draw(t, "dropout") {
			a.Drop, a.Salt, key = 0.3, 5, ints(2)
		}
		n, w, d := batch*a.Seq, (a.Heads+2*kv)*a.HeadDim, a.Heads*a.HeadDim
		starts, keyValue := docStarts(r, n, a.Seq), []int32{9, -4}
		if k == compute.Attention {
			x := build(r, k, a, []compute.Buffer{floats(n, w), ints(n), key}, []compute.Buffer{floats(n, d), optional("lse", floats(n, a.Heads))}, map[int][]int32{1: starts, 2: keyValue})
			x.abs = 2e-5
			return x
		}
		x := build(r, k, a, []compute.Buffer{floats(n, d), floats(n, w), ints(n), key}, []compute.Buffer{floats(n, w)}, map[int][]int32{2: starts, 3: keyValue})
		x.abs, x.rel = 2e-5*math.Sqrt(float64(a.Heads*a.HeadDim)), 1e-4
		return x
	case compute.Activation:
		return build(r, k, act, []compute.Buffer{floats(n, e)}, []compute.Buffer{floats(n, e)}, nil)
	case compute.ActivationGrad:
		return build(r, k, act, []compute.Buffer{floats(n, e), floats(n, e)}, []compute.Buffer{floats(n, e)}, nil)
	case compute.Add:
		return build(r, k, compute.Attr{}, []compute.Buffer{floats(n, e), floats(n, e)}, []compute.Buffer{floats(n, e)}, nil)
	case compute.Dropout:
		return build(r, k, compute.Attr{Drop: rapid.SampledFrom([]float64{0, 0.1, 0.9}).Draw(t, "drop"), Salt: 3}, []compute.Buffer{floats(n, e), ints(2)}, []compute.Buffer{floats(n, e)},
			map[int][]int32{1: {1, 2}})
	case compute.CrossEntropy, compute.TokenNLL:
		v := rapid.IntRange(1, m).Draw(t, "vocabulary")
		targets := ids(r, n, v)
		if rapid.Bool().Draw(t, "ignored targets") {
			for i := range targets {
				if r.IntN(3) == 0 {
					targets[i] = -100
				}
			}
		}
		in := []compute.Buffer{floats(n, e), floats(m, e), ints(n), floats(1)}
		a, at := compute.Attr{Vocab: v, BF16: alpha.BF16}, map[int][]int32{2: targets}
		var x example
		if k == compute.TokenNLL {
			x = build(r, k, a, in[:3], []compute.Buffer{floats(n)}, at)
		} else {
			x = build(r, k, a, in, []compute.Buffer{floats(1), floats(n, e), optional("head trained", floats(m, e))}, at)
			x.in[3].F32[0] = 1 / float32(n)
		}
		x.abs = 2e-5 * math.Sqrt(float64(e))
		if a.BF16 {
			// A last digit of float32 may decide how an element of the logits' gradient is rounded.
			x.abs += 0x1p-7 / float64(n)
		}
		return x
	case compute.SumSquares:
		return build(r, k, compute.Attr{}, []compute.Buffer{floats(n, e)}, []compute.Buffer{{Space: compute.Arena, DType: compute.F64, Shape: []int{1}}}, nil)
	case compute.Zero:
		return build(r, k, compute.Attr{}, nil, []compute.Buffer{floats(n * e * m)}, nil)
	case compute.AdamW:
		x := build(r, k, compute.Attr{}, []compute.Buffer{floats(n, e), floats(8)}, []compute.Buffer{floats(n, e), floats(n, e), floats(n, e)}, nil)
		copy(x.in[1].F32, []float32{1e-2, 0.9, 0.95, 1e-8, 0.1, 1 - 0.9*0.9, 1 - 0.95*0.95, 0.5})
		for i, v := range x.out[2].F32 {
			x.out[2].F32[i] = v * v
		}
		x.abs = 1e-5
		return x
	}
	panic(fmt.Sprint("no example of ", k))
}

func clone(hosts []compute.Host) []compute.Host {
	c := make([]compute.Host, len(hosts))
	for i, h := range hosts {
		c[i] = compute.Host{F32: slices.Clone(h.F32), F64: slices.Clone(h.F64), I32: slices.Clone(h.I32)}
	}
	return c
}

// widen returns hosts with float64 for float32.
func widen(hosts []compute.Host) []compute.Host {
	c := clone(hosts)
	for i, h := range c {
		if h.F32 == nil {
			continue
		}
		c[i] = compute.Host{F64: make([]float64, len(h.F32))}
		for j, v := range h.F32 {
			c[i].F64[j] = float64(v)
		}
	}
	return c
}

func wideBuffers(buffers []compute.Buffer) []compute.Buffer {
	c := slices.Clone(buffers)
	for i := range c {
		if c[i].DType == compute.F32 {
			c[i].DType = compute.F64
		}
	}
	return c
}

// expected runs the example on the reference in float64.
func (e example) expected(t fataler) []compute.Host {
	c := e.call
	c.In, c.Out = wideBuffers(c.In), wideBuffers(c.Out)
	out := widen(e.out)
	if err := (ref.Kernels{}).Do(&c, widen(e.in), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// do runs the example on the device and returns its outputs.
func (e example) do(t fataler, d *Device) []compute.Host {
	out := clone(e.out)
	if err := d.Do(&e.call, e.in, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// same fails unless two lists of outputs are equal bit for bit.
func same(t fataler, what string, a, b []compute.Host) {
	for i := range a {
		for j := range a[i].F32 {
			if math.Float32bits(a[i].F32[j]) != math.Float32bits(b[i].F32[j]) {
				t.Fatalf("%s: output %d element %d is %v, expected the bits of %v", what, i, j, a[i].F32[j], b[i].F32[j])
			}
		}
		for j := range a[i].F64 {
			if math.Float64bits(a[i].F64[j]) != math.Float64bits(b[i].F64[j]) {
				t.Fatalf("%s: output %d element %d is %v, expected the bits of %v", what, i, j, a[i].F64[j], b[i].F64[j])
			}
		}
	}
}

func (e example) near(t fataler, got, want []compute.Host) {
	for i := range want {
		for j, w := range want[i].F64 {
			var g float64
			if got[i].F64 != nil {
				g = got[i].F64[j]
			} else {
				g = float64(got[i].F32[j])
			}
			if !(math.Abs(g-w) <= e.abs+e.rel*math.Abs(w)) {
				t.Fatalf("%v: output %d element %d is %v, expected %v ± %v", e.call.Kernel, i, j, g, w, e.abs+e.rel*math.Abs(w))
			}
		}
	}
}

// plan lays the example's operands out in the arena and returns a plan of its one call.
func (e example) plan(d *Device) *compute.Plan {
	c := e.call
	var at int64
	place := func(buffers []compute.Buffer) []compute.Buffer {
		placed := slices.Clone(buffers)
		for i := range placed {
			if placed[i].Space != compute.None {
				placed[i].Offset = at
				at = (at + placed[i].Bytes() + compute.Align - 1) / compute.Align * compute.Align
			}
		}
		return placed
	}
	c.In, c.Out = place(c.In), place(c.Out)
	if need := d.WorkBytes(&c); need > 0 {
		c.Work = compute.Buffer{Space: compute.Arena, Offset: at, DType: compute.F32, Shape: []int{int(need / 4)}}
		at += need
	}
	p := &compute.Plan{Calls: []compute.Call{c}}
	p.Bytes[compute.Arena] = at
	return p
}

func slice(h compute.Host) any {
	switch {
	case h.F64 != nil:
		return h.F64
	case h.I32 != nil:
		return h.I32
	}
	return h.F32
}

// viaPlan runs the example as a plan and returns its outputs. The arena is filled with NaN beforehand.
func (e example) viaPlan(t fataler, d *Device) []compute.Host {
	p := e.plan(d)
	mem, err := d.Alloc(p.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Free()
	poison := make([]float32, p.Bytes[compute.Arena]/4)
	for i := range poison {
		poison[i] = float32(math.NaN())
	}
	all := compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{len(poison)}}
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(mem.Write(all, poison))
	c := p.Calls[0]
	for i, b := range c.In {
		if b.Space != compute.None {
			check(mem.Write(b, slice(e.in[i])))
		}
	}
	for i, b := range c.Out {
		if b.Space != compute.None {
			check(mem.Write(b, slice(e.out[i])))
		}
	}
	prog, err := d.Compile(p, mem)
	check(err)
	check(prog.Run(context.Background()))
	out := clone(e.out)
	for i, b := range c.Out {
		if b.Space != compute.None {
			check(mem.Read(b, slice(out[i])))
		}
	}
	return out
}

// Every kernel against the float64 reference, with the same bits for every number of threads and as a plan.
func TestKernels(t *testing.T) {
	devices := map[int]*Device{}
	for _, threads := range []int{1, 2, 3, 4, 7} {
		devices[threads] = New(Options{Threads: threads})
		defer devices[threads].Close()
	}
	for _, k := range compute.Kernels() {
		t.Run(k.String(), rapid.MakeCheck(func(t *rapid.T) {
			e := draw(t, k)
			got := e.do(t, devices[1])
			e.near(t, got, e.expected(t))
			for threads, d := range devices {
				same(t, fmt.Sprint(threads, " threads"), e.do(t, d), got)
			}
			same(t, "plan", e.viaPlan(t, devices[3]), got)
		}))
	}
}

func TestOutOfRangeOperandsAreNamed(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	for _, c := range []struct {
		kernel  compute.Kernel
		input   int
		operand string
	}{
		{compute.Embed, 2, "ids"}, {compute.Embed, 3, "positions"}, {compute.EmbedGrad, 1, "ids"},
		{compute.Attention, 1, "docStart"}, {compute.AttentionGrad, 2, "docStart"}, {compute.CrossEntropy, 2, "targets"}, {compute.TokenNLL, 2, "targets"},
	} {
		e := rapid.Custom(func(t *rapid.T) example { return draw(t, c.kernel) }).Example(1)
		at := len(e.in[c.input].I32) - 1
		e.in[c.input].I32[at] = 1 << 20
		err := d.Do(&e.call, e.in, clone(e.out))
		var r *compute.RangeError
		if !errors.As(err, &r) || r.Operand != c.operand || r.Index != at || r.Value != 1<<20 || !strings.HasPrefix(err.Error(), "example: "+c.kernel.String()) {
			t.Errorf("%v: %v", c.kernel, err)
		}
		p := e.plan(d)
		mem, err := d.Alloc(p.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		call := p.Calls[0]
		if err := mem.Write(call.In[c.input], e.in[c.input].I32); err != nil {
			t.Fatal(err)
		}
		prog, err := d.Compile(p, mem)
		if err != nil {
			t.Fatal(err)
		}
		if err := prog.Run(context.Background()); !errors.As(err, &r) || r.Operand != c.operand {
			t.Errorf("%v in a plan: %v", c.kernel, err)
		}
		if err := mem.Free(); err != nil {
			t.Error(err)
		}
	}
}
