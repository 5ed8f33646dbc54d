package cuda

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cuda/driver"
	"autodev/compute/ref"
)

// example is a call with its operands' values on the host, float32 whatever they are kept as on the device. Values of outputs are their
// old contents, which those that accumulate add to.
type example struct {
	name    string
	call    compute.Call
	in, out []compute.Host
	alias   int // 1 + the input whose memory the first output takes; 0: none
	// How far a result may be off beside the rounding of what is stored: absolute, for results around 1.
	loose float64
}

// flow is an operand that may be short (examples gives it the store's type), exact one that may not; ints one of int32.
func flow(shape ...int) compute.Buffer {
	return compute.Buffer{Space: compute.Arena, DType: compute.BF16, Shape: shape}
}
func exact(shape ...int) compute.Buffer {
	return compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: shape}
}
func ints(shape ...int) compute.Buffer {
	return compute.Buffer{Space: compute.Arena, DType: compute.I32, Shape: shape}
}

// examples lists calls of every kernel of the vocabulary, with all optional operands present and absent.
func examples(t testing.TB, s Store) []example {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	below := func(n, least, limit int) []int32 {
		x := make([]int32, n)
		for i := range x {
			x[i] = int32(least + r.IntN(limit-least))
		}
		return x
	}
	starts := func(n, seq int) []int32 {
		x := make([]int32, n)
		for i := range x {
			if t := i % seq; t > 0 {
				if x[i] = x[i-1]; r.IntN(8) == 0 {
					x[i] = int32(t)
				}
			}
		}
		return x
	}
	var none compute.Buffer
	var all []example
	add := func(name string, k compute.Kernel, a compute.Attr, in, out []compute.Buffer, integers ...[]int32) *example {
		e := example{name: fmt.Sprint(k, " ", name), call: compute.Call{Kernel: k, Attr: a, In: slices.Clone(in), Out: slices.Clone(out), Name: "example"}}
		host := func(buffers []compute.Buffer) (hosts []compute.Host) {
			for i, b := range buffers {
				if b.Space != compute.None && b.DType == compute.BF16 {
					buffers[i].DType, b.DType = s.dtype(), s.dtype()
				}
				var h compute.Host
				switch {
				case b.Space == compute.None:
				case b.DType == compute.I32:
					h.I32, integers = integers[0], integers[1:]
				case b.DType == compute.F64:
					h.F64 = make([]float64, b.Len())
				default:
					h.F32 = make([]float32, b.Len())
					for j := range h.F32 {
						v := float32(r.NormFloat64())
						if h.F32[j] = v; b.DType.Short() {
							h.F32[j] = round(v, s)
						}
					}
				}
				hosts = append(hosts, h)
			}
			return hosts
		}
		e.in, e.out = host(e.call.In), host(e.call.Out)
		all = append(all, e)
		return &all[len(all)-1]
	}
	b := func(buffers ...compute.Buffer) []compute.Buffer { return buffers }
	norm := compute.Attr{Epsilon: 1e-5}
	key := []int32{7, -3}

	for _, width := range []int{16, 13} {
		n := 37
		name := fmt.Sprint("width ", width)
		add(name, compute.Embed, compute.Attr{}, b(flow(11, width), flow(5, width), ints(n), ints(n)), b(flow(n, width)), below(n, 0, 11), below(n, 0, 5))
		add(name, compute.EmbedGrad, compute.Attr{}, b(flow(n, width), ints(n)), b(exact(11, width)), below(n, 0, 11)).loose = 1e-5
		add(name, compute.LayerNorm, norm, b(flow(n, width), flow(width), flow(width)), b(flow(n, width))).loose = 2e-5
		add(name, compute.LayerNormGrad, norm, b(flow(n, width), flow(n, width), flow(width), flow(n, width)), b(flow(n, width), exact(width), exact(width))).loose = 1e-4
		add(name+" bare", compute.LayerNormGrad, norm, b(flow(n, width), flow(n, width), flow(width)), b(flow(n, width))).loose = 1e-4
		e := add(name+" onto base", compute.LayerNormGrad, norm, b(flow(n, width), flow(n, width), flow(width), flow(n, width)), b(flow(n, width), none, exact(width)))
		e.loose, e.alias = 1e-4, 4
		add(name, compute.LayerNormGainGrad, norm, b(flow(n, width), flow(n, width)), b(exact(width))).loose = 1e-4
		add(name, compute.BiasGrad, compute.Attr{}, b(flow(130, width)), b(exact(width))).loose = 1e-4
		for _, act := range []compute.Act{compute.GELUTanh, compute.GELUErf, compute.ReLU} {
			add(name+act.String(), compute.Activation, compute.Attr{Act: act}, b(flow(n, width)), b(flow(n, width))).loose = 2e-6
			add(name+act.String(), compute.ActivationGrad, compute.Attr{Act: act}, b(flow(n, width), flow(n, width)), b(flow(n, width))).loose = 1e-5
		}
		add(name, compute.Add, compute.Attr{}, b(flow(n, width), flow(n, width)), b(flow(n, width))).alias = 2
		add(name, compute.Dropout, compute.Attr{Drop: 0.3, Salt: 4}, b(flow(n, width), ints(2)), b(flow(n, width)), key).alias = 1
	}
	for _, in := range []int{24, 7, 4} {
		for _, alpha := range []float64{1, -2} {
			a, n, out := compute.Attr{Alpha: alpha}, 19, 13
			name := fmt.Sprint(in, " by ", out, " times ", alpha)
			add(name, compute.Linear, a, b(flow(n, in), flow(out, in)), b(flow(n, out))).loose = 2e-5
			add(name+" bias", compute.Linear, a, b(flow(n, in), flow(out, in), flow(out)), b(flow(n, out))).loose = 2e-5
			add(name+" base", compute.Linear, a, b(flow(n, in), flow(out, in), none, flow(n, out)), b(flow(n, out))).loose = 2e-5
			e := add(name+" bias and base", compute.Linear, a, b(flow(n, in), flow(out, in), flow(out), flow(n, out)), b(flow(n, out)))
			e.loose, e.alias = 2e-5, 4
			add(name, compute.LinearGradX, a, b(flow(n, out), flow(out, in)), b(flow(n, in))).loose = 2e-5
			e = add(name+" base", compute.LinearGradX, a, b(flow(n, out), flow(out, in), flow(n, in)), b(flow(n, in)))
			e.loose, e.alias = 2e-5, 3
			add(name, compute.LinearGradW, a, b(flow(n, out), flow(n, in)), b(exact(out, in))).loose = 3e-5
		}
	}
	for _, drop := range []float64{0, 0.25} {
		a := compute.Attr{Heads: 4, KVHeads: 2, HeadDim: 16, Seq: 21, Scale: 0.25, Drop: drop, Salt: 9}
		n, width := 2*a.Seq, (a.Heads+2*a.KVHeads)*a.HeadDim
		in := b(flow(n, width), ints(n))
		integers := [][]int32{starts(n, a.Seq)}
		if drop > 0 {
			in, integers = append(in, ints(2)), append(integers, key)
		}
		name := fmt.Sprint("drop ", drop)
		add(name, compute.Attention, a, in, b(flow(n, 64)), integers...).loose = 1e-5
		add(name+" with sums", compute.Attention, a, in, b(flow(n, 64), exact(n, 4)), integers...).loose = 1e-5
		forward := all[len(all)-1]
		if drop == 0 {
			in = append(in, none)
		}
		g := add(name, compute.AttentionGrad, a, append(append(b(flow(n, 64)), in...), flow(n, 64), exact(n, 4)), b(flow(n, width)), integers...)
		g.loose = 5e-5
		outputs := forward.want(t)
		g.in[1], g.in[4], g.in[5] = forward.in[0], outputs[0], outputs[1]
	}
	for _, vocab := range []int{40, 35} {
		a, n := compute.Attr{Vocab: vocab}, 50
		in := b(flow(n, 24), flow(40, 24), ints(n), exact(1))
		name := fmt.Sprint("vocabulary ", vocab)
		add(name, compute.CrossEntropy, a, in, b(exact(1), flow(n, 24), exact(40, 24)), below(n, -4, vocab)).loose = 1e-4
		add(name+" frozen", compute.CrossEntropy, a, in, b(exact(1), flow(n, 24)), below(n, -4, vocab)).loose = 1e-4
		add(name, compute.TokenNLL, a, in[:3], b(exact(n)), below(n, -4, vocab)).loose = 1e-4
	}
	add("", compute.SumSquares, compute.Attr{}, b(exact(3000)), b(compute.Buffer{Space: compute.Arena, DType: compute.F64, Shape: []int{1}}))
	add("", compute.Zero, compute.Attr{}, nil, b(exact(333)))
	adam := add("", compute.AdamW, compute.Attr{}, b(exact(101), exact(8)), b(exact(101), exact(101), exact(101), flow(101)))
	if s == F32 {
		adam.call.Out, adam.out = adam.call.Out[:3], adam.out[:3]
	}
	adam.loose = 1e-6
	copy(adam.in[1].F32, []float32{1e-3, 0.9, 0.95, 1e-8, 0.1, 0.19, 0.0975, 0.5})
	for i, v := range adam.out[2].F32 {
		adam.out[2].F32[i] = v * v
	}
	return all
}

// want returns what the outputs should hold.
func (e example) want(t testing.TB) []compute.Host {
	t.Helper()
	c := e.call
	wide := func(buffers []compute.Buffer, hosts []compute.Host) ([]compute.Buffer, []compute.Host) {
		buffers, hosts = slices.Clone(buffers), slices.Clone(hosts)
		for i, b := range buffers {
			if b.DType.Short() {
				buffers[i].DType = compute.F32
			}
			hosts[i].F32, hosts[i].F64 = slices.Clone(hosts[i].F32), slices.Clone(hosts[i].F64)
		}
		return buffers, hosts
	}
	var in, out []compute.Host
	c.In, in = wide(c.In, e.in)
	c.Out, out = wide(c.Out, e.out)
	n := len(out)
	if c.Kernel == compute.AdamW {
		c.Out, n = c.Out[:3], 3
	}
	if err := (ref.Kernels{}).Do(&c, in, out[:n]); err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	if len(out) > n {
		out[3].F32 = slices.Clone(out[0].F32)
	}
	return out
}

// plan places the call's operands and its work space in the arena.
func (e example) plan(d *Device) *compute.Plan {
	c, end := e.call, int64(0)
	place := func(b *compute.Buffer) {
		if b.Space == compute.None {
			return
		}
		b.Offset = end
		end = (end + b.Bytes() + 2*compute.Align - 1) / compute.Align * compute.Align // with a gap
	}
	c.In, c.Out = slices.Clone(c.In), slices.Clone(c.Out)
	for i := range c.In {
		place(&c.In[i])
	}
	for i := range c.Out {
		place(&c.Out[i])
	}
	if e.alias > 0 {
		c.Out[0].Offset = c.In[e.alias-1].Offset
	}
	if n := d.WorkBytes(&c); n > 0 {
		c.Work = compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{int((n + 3) / 4)}}
		place(&c.Work)
	}
	p := &compute.Plan{Calls: []compute.Call{c}}
	p.Bytes[compute.Arena] = end
	return p
}

// values returns a host's elements as m.Write takes them for b.
func values(b compute.Buffer, h compute.Host) any {
	switch b.DType {
	case compute.F64:
		return h.F64
	case compute.I32:
		return h.I32
	case compute.BF16, compute.F16:
		return compute.ToShort(b.DType, h.F32)
	}
	return h.F32
}

// run compiles the call, runs it `times` times from the same operands and returns the last outputs.
func (e example) run(t testing.TB, d *Device, times int) []compute.Host {
	t.Helper()
	p := e.plan(d)
	mem, err := d.Alloc(p.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mem.Free(); err != nil && !t.Failed() {
			t.Error(err)
		}
	}()
	prog, err := d.Compile(p, mem)
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	c := &p.Calls[0]
	for range times {
		for _, side := range []struct {
			buffers []compute.Buffer
			hosts   []compute.Host
		}{{c.Out, e.out}, {c.In, e.in}} {
			for i, b := range side.buffers {
				if b.Space == compute.None {
					continue
				}
				if err := mem.Write(b, values(b, side.hosts[i])); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := prog.Run(t.Context()); err != nil {
			t.Fatalf("%s: %v", e.name, err)
		}
	}
	out := make([]compute.Host, len(c.Out))
	for i, b := range c.Out {
		var err error
		switch {
		case b.Space == compute.None:
		case b.DType == compute.F64:
			out[i].F64 = make([]float64, b.Len())
			err = mem.Read(b, out[i].F64)
		case b.DType.Short():
			bits := make([]uint16, b.Len())
			err = mem.Read(b, bits)
			out[i].F32 = compute.FromShort(b.DType, bits)
		default:
			out[i].F32 = make([]float32, b.Len())
			err = mem.Read(b, out[i].F32)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// off returns the largest distance of an output from what it should be, in units of what is tolerated.
func (e example) off(got, want []compute.Host, s Store) float64 {
	worst := 0.0
	for i, b := range e.call.Out {
		unit, loose := 0x1p-23, e.loose
		var bounds [][]float64 // absolute, of each element
		if s != F32 {
			short := map[Store]float64{BF16: 0x1p-8, F16: 0x1p-11}[s]
			// Values between the operations of a call (probabilities, logits and their gradients) are rounded too.
			switch e.call.Kernel {
			case compute.Attention, compute.AttentionGrad:
				loose += 8 * short
			case compute.CrossEntropy, compute.TokenNLL:
				bounds = e.likelihoodBounds(short)
			}
			if b.DType.Short() {
				unit = 1.01 * short
			}
			if s == F16 {
				loose += 0x1p-24 // the smallest number
			}
		}
		for j, w := range want[i].F32 {
			absolute := loose
			if bounds != nil {
				absolute += bounds[i][j]
			}
			worst = max(worst, distance(float64(got[i].F32[j]), float64(w), absolute, unit))
		}
		for j, w := range want[i].F64 {
			worst = max(worst, distance(got[i].F64[j], w, loose, 1e-12))
		}
	}
	return worst
}

// likelihoodBounds returns how far each element of a CrossEntropy's or TokenNLL's outputs may be off because logits, and their gradients, are
// rounded by up to u of their size.
//
// Logits up to L are each off by at most d = u·L. The logarithm of their sum of exponentials moves no more than they do, so a likelihood is off by 2d at
// most. A probability p is multiplied by e^ε / Σ pᵢe^εᵢ, |ε| ≤ d, which is between e^−2d and e^2d, and so is 1−p: it is off by at most
// min(p, 1−p)·(e^2d − 1). Its gradient s·(p − target) is rounded once more. What it is off by goes into the products by the other operand's size.
func (e example) likelihoodBounds(u float64) [][]float64 {
	x, w, targets, scale := e.in[0].F32, e.in[1].F32, e.in[2].I32, 1.0
	bounds := make([][]float64, len(e.out))
	for i := range e.out {
		bounds[i] = make([]float64, len(e.out[i].F32))
	}
	grad := e.call.Kernel == compute.CrossEntropy
	if grad {
		scale = math.Abs(float64(e.in[3].F32[0]))
	}
	vocab, width := e.call.Attr.Vocab, len(x)/len(targets)
	p := make([]float64, vocab)
	for i, target := range targets {
		if target < 0 {
			continue
		}
		row, largest, top, sum := x[i*width:][:width], 0.0, math.Inf(-1), 0.0
		for v := range p {
			p[v] = 0
			for j, a := range row {
				p[v] += float64(a) * float64(w[v*width+j])
			}
			largest, top = max(largest, math.Abs(p[v])), max(top, p[v])
		}
		for v := range p {
			p[v] = math.Exp(p[v] - top)
			sum += p[v]
		}
		d := u * largest
		if !grad {
			bounds[0][i] = 2 * d
			continue
		}
		bounds[0][0] += scale * 2 * d
		for v := range p {
			p[v] /= sum
			size := p[v]
			if v == int(target) {
				size = 1 - p[v]
			}
			off := scale * min(p[v], 1-p[v]) * math.Expm1(2*d)
			off += u*(scale*size+off) + 0x1p-25 // half the smallest number of float16
			for j, a := range row {
				bounds[1][i*width+j] += off * math.Abs(float64(w[v*width+j]))
				if len(bounds) > 2 {
					bounds[2][v*width+j] += off * math.Abs(float64(a))
				}
			}
		}
	}
	return bounds
}

func distance(got, want, absolute, relative float64) float64 {
	if got == want {
		return 0
	}
	if d := math.Abs(got-want) / (absolute + relative*math.Abs(want)); d == d {
		return d
	}
	return math.Inf(1)
}

func sameHosts(a, b []compute.Host) bool {
	return slices.EqualFunc(a, b, func(a, b compute.Host) bool { return slices.Equal(a.F32, b.F32) && slices.Equal(a.F64, b.F64) })
}

// TestVocabulary: every kernel, compiled as a plan, does what the reference does, under every schedule with the same bits, and its
// captured graph what its launches did.
func TestVocabulary(t *testing.T) {
	for _, c := range []struct {
		store      Store
		capability int64 // 0: the device's own
	}{{F32, 0}, {BF16, 0}, {F16, 0}, {F32, 70}, {F16, 70}} {
		s := c.store
		t.Run(fmt.Sprint(s, " on ", c.capability), func(t *testing.T) {
			all := examples(t, s)
			seen := map[compute.Kernel]bool{}
			first := map[string][]compute.Host{}
			eachSeedAs(t, c.capability, func(t *testing.T, d *Device) {
				for _, e := range all {
					seen[e.call.Kernel] = true
					got := e.run(t, d, 1)
					if old := first[e.name]; old == nil {
						first[e.name] = got
						if off := e.off(got, e.want(t), s); off > 1 {
							t.Errorf("%s is off by %.2f times what is tolerated", e.name, off)
						}
						if again := e.run(t, d, 3); !sameHosts(got, again) {
							t.Errorf("%s: a graph gives other bits than launches", e.name)
						}
					} else if !sameHosts(got, old) {
						t.Errorf("%s: other bits under this schedule", e.name)
					}
				}
			})
			for _, k := range compute.Kernels() {
				if !seen[k] && len(seen) > 0 && !t.Failed() { // without a device all was skipped
					t.Errorf("%v is not tested", k)
				}
			}
		})
	}
}

// TestMisplacedOperandIsCaught: were a call given another operand's address, or its neighbour's, the comparison above would show it.
func TestMisplacedOperandIsCaught(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	for _, e := range examples(t, BF16) {
		if e.call.Kernel != compute.Linear && e.call.Kernel != compute.LayerNormGrad && e.call.Kernel != compute.CrossEntropy {
			continue
		}
		want := e.want(t)
		wrong := e
		wrong.in = slices.Clone(e.in)
		moved := append([]float32{0}, e.in[0].F32[:len(e.in[0].F32)-1]...) // as if read one element early
		wrong.in[0].F32 = moved
		if off := wrong.off(wrong.run(t, d, 1), want, BF16); off < 2 {
			t.Errorf("%s: reading one element early shows as %.2f of what is tolerated only", e.name, off)
		}
	}
}

// TestCompileErrors: what a plan asks for that the device cannot do is said with the call's name.
func TestCompileErrors(t *testing.T) {
	d, l := onStandin(t, "", nil)
	e := examples(t, BF16)[0]
	good := e.plan(d)
	mem, err := d.Alloc(good.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mem.Free(); err != nil {
			t.Error(err)
		}
	}()
	broken := func(change func(c *compute.Call)) *compute.Plan {
		p := e.plan(d)
		change(&p.Calls[0])
		return p
	}
	for name, c := range map[string]struct {
		plan *compute.Plan
		want string
	}{
		"shape":    {broken(func(c *compute.Call) { c.Out[0].Shape = []int{3, 3} }), "example: Embed: y has shape [3 3]"},
		"outside":  {broken(func(c *compute.Call) { c.Out[0].Offset = 1 << 20 }), "example: Embed: output 0: buffer of"},
		"unplaced": {broken(func(c *compute.Call) { c.In[0].Space = compute.Grads }), "example: Embed: input 0: buffer of"},
		"overlap":  {broken(func(c *compute.Call) { c.Out[0].Offset = c.In[0].Offset }), "example: Embed: output 0 overlaps input 0"},
		"float64": {&compute.Plan{Calls: []compute.Call{{Name: "wide", Kernel: compute.Add,
			In:  []compute.Buffer{{Space: compute.Arena, DType: compute.F64, Shape: []int{1}}, {Space: compute.Arena, DType: compute.F64, Shape: []int{1}}},
			Out: []compute.Buffer{{Space: compute.Arena, DType: compute.F64, Shape: []int{1}, Offset: 64}}}}}, "wide: Add: operands of type f64"},
		"rounded": {&compute.Plan{Calls: []compute.Call{{Name: "rounded", Kernel: compute.LinearGradX, Attr: compute.Attr{Alpha: 1, BF16: true},
			In:  []compute.Buffer{{Space: compute.Arena, DType: compute.F32, Shape: []int{1, 1}}, {Space: compute.Arena, DType: compute.F32, Shape: []int{1, 1}}},
			Out: []compute.Buffer{{Space: compute.Arena, DType: compute.F32, Shape: []int{1, 1}, Offset: 64}}}}}, "rounded: LinearGradX: products of f32 operands rounded"},
		"work": {&compute.Plan{Calls: []compute.Call{{Name: "scratch", Kernel: compute.BiasGrad,
			In:  []compute.Buffer{{Space: compute.Arena, DType: compute.F32, Shape: []int{4, 4}}},
			Out: []compute.Buffer{{Space: compute.Arena, DType: compute.F32, Shape: []int{4}, Offset: 64}}}}}, "scratch: BiasGrad: work has 0 bytes"},
	} {
		if _, err := d.Compile(c.plan, mem); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, expected %q", name, err, c.want)
		}
	}
	if err := l.Set("capability", 75); err != nil {
		t.Fatal(err)
	}
	old := openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt})
	if _, err := old.Compile(good, mem); err == nil || !strings.Contains(err.Error(), "of the same device") {
		t.Errorf("another device's memory: %v", err)
	}
	oldMem, err := old.Alloc(good.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Compile(good, oldMem); err == nil || !strings.Contains(err.Error(), "no bfloat16 products (compute capability 7.5") {
		t.Errorf("bfloat16 on an old card: %v", err)
	}
	if err := oldMem.Free(); err != nil {
		t.Error(err)
	}
}

// TestOutOfRange: an index outside its table is named, and the program runs again with good ones.
func TestOutOfRange(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	for _, e := range examples(t, F32) {
		var at, value, limit int
		switch e.call.Kernel {
		case compute.Embed:
			at, value, limit = 3, 5, 4
		case compute.EmbedGrad:
			at, value, limit = 1, -1, 10
		case compute.Attention:
			at, value, limit = 1, 21, 20
		case compute.AttentionGrad:
			at, value, limit = 2, -2, 20
		case compute.CrossEntropy, compute.TokenNLL:
			at, value, limit = 2, 40, e.call.Attr.Vocab-1
		default:
			continue
		}
		p := e.plan(d)
		mem, err := d.Alloc(p.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := d.Compile(p, mem)
		if err != nil {
			t.Fatal(err)
		}
		c := &p.Calls[0]
		for i, b := range c.In {
			if b.Space == compute.None {
				continue
			}
			if err := mem.Write(b, values(b, e.in[i])); err != nil {
				t.Fatal(err)
			}
		}
		bad := slices.Clone(e.in[at].I32)
		bad[7], bad[9] = int32(value), int32(value)
		for range 2 { // launched and captured
			if err := mem.Write(c.In[at], bad); err != nil {
				t.Fatal(err)
			}
			var wrong *compute.RangeError
			if err := prog.Run(t.Context()); !errors.As(err, &wrong) || wrong.Index != 7 || wrong.Value != int32(value) || wrong.Max != limit || !strings.HasPrefix(err.Error(), "example: ") {
				t.Errorf("%s: error %v", e.name, err)
			}
			if err := mem.Write(c.In[at], e.in[at].I32); err != nil {
				t.Fatal(err)
			}
			if err := prog.Run(t.Context()); err != nil {
				t.Errorf("%s: afterwards: %v", e.name, err)
			}
		}
		if err := mem.Free(); err != nil {
			t.Error(err)
		}
	}
}

// TestRun: a context that has ended stops a program between chunks of its calls, a lost card is named with where it was lost, and call by
// call with the call itself.
func TestRun(t *testing.T) {
	add := func(n int) *compute.Plan {
		p := &compute.Plan{}
		x := compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{8}}
		for i := range n {
			p.Calls = append(p.Calls, compute.Call{Name: fmt.Sprint("sum ", i), Kernel: compute.Add, In: []compute.Buffer{x, x}, Out: []compute.Buffer{x}})
		}
		p.Bytes[compute.Arena] = 64
		return p
	}
	for _, callByCall := range []bool{false, true} {
		t.Run(fmt.Sprint("call by call ", callByCall), func(t *testing.T) {
			l := cudatest.Library(t, "")
			d := openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt, CallByCall: callByCall})
			p := add(3*chunkCalls + 5)
			mem, err := d.Alloc(p.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			prog, err := d.Compile(p, mem)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				ctx, cancel := context.WithCancel(t.Context())
				if err := prog.Run(ctx); err != nil {
					t.Fatal(err)
				}
				cancel()
				if err := prog.Run(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("an ended context: %v", err)
				}
				if err := prog.Run(&endsAfter{Context: t.Context(), n: 3}); !errors.Is(err, context.Canceled) {
					t.Errorf("a context that ends in the middle: %v", err)
				}
			}
			times, err := prog.(*Program).Profile(t.Context())
			if err != nil || len(times) != len(p.Calls) || times[1].Name != "sum 1: Add" || times[1].Took <= 0 {
				t.Errorf("profile of %d calls: %v", len(times), err)
			}
			after, want := int64(2), fmt.Sprintf("among the calls from sum %d: Add to sum %d: Add", chunkCalls, 2*chunkCalls-1) // the second graph
			if callByCall {
				after, want = chunkCalls+10, fmt.Sprintf("call sum %d: Add", chunkCalls+9)
			}
			if err := l.Set("lose_after", after); err != nil {
				t.Fatal(err)
			}
			var lost *LostError
			if err := prog.Run(t.Context()); !errors.As(err, &lost) || !errors.Is(err, driver.LaunchFailed) || !strings.Contains(err.Error(), want) {
				t.Errorf("a lost card: %v, expected %q", err, want)
			}
			if err := mem.Free(); err != nil {
				t.Errorf("freeing what a lost card had: %v", err)
			}
		})
	}
}

// endsAfter is a context that has ended when it has been asked n times.
type endsAfter struct {
	context.Context
	n int
}

func (c *endsAfter) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestStaging: what is larger than the pinned memory reaches the device and comes back whole, whatever is left over.
func TestStaging(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	for _, n := range []int{1, stagingBytes/4 - 1, stagingBytes / 4, stagingBytes/4 + 1, stagingBytes/2 + 3, 5*stagingBytes/8 + 7} {
		b := compute.Buffer{Space: compute.Weights, DType: compute.BF16, Shape: []int{n}}
		var bytes [compute.NumSpaces]int64
		bytes[compute.Weights] = b.Bytes()
		mem, err := d.Alloc(bytes)
		if err != nil {
			t.Fatal(err)
		}
		want, got := make([]uint16, n), make([]uint16, n)
		for i := range want {
			want[i] = uint16(i*7 + i>>16)
		}
		if err := errors.Join(mem.Write(b, want), mem.Read(b, got)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d elements came back differently", n)
		}
		if err := mem.Write(b, make([]float32, n)); err == nil {
			t.Error("float32 was written to bfloat16")
		}
		if err := mem.Free(); err != nil {
			t.Error(err)
		}
	}
}
