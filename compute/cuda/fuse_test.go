package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cudaplan"
	"autodev/compute/ref"
)

// mlp is two plans: a product and GELU; a product's gradient, something else and GELU's gradient. In bfloat16 or float32. What is where
// is named.
type mlp struct {
	bytes                 [compute.NumSpaces]int64
	up, down              []compute.Call
	x, w, bias, z, y      compute.Buffer
	dout, v, dy           compute.Buffer // dy becomes dz in its place
	n, in, inner, outward int
}

func newMLP(d compute.DType, inPlace bool) *mlp {
	m := &mlp{n: 19, in: 16, inner: 24, outward: 8}
	place := func(rows, columns int) compute.Buffer {
		b := compute.Buffer{Space: compute.Arena, Offset: m.bytes[compute.Arena], DType: d, Shape: []int{rows, columns}}
		m.bytes[compute.Arena] += (b.Bytes() + 127) / 64 * 64
		return b
	}
	m.x, m.w, m.bias, m.z, m.y = place(m.n, m.in), place(m.inner, m.in), place(1, m.inner), place(m.n, m.inner), place(m.n, m.inner)
	m.bias.Shape = []int{m.inner}
	m.dout, m.v, m.dy = place(m.n, m.outward), place(m.outward, m.inner), place(m.n, m.inner)
	if inPlace {
		m.y = m.z
	}
	b := func(buffers ...compute.Buffer) []compute.Buffer { return buffers }
	one, gelu := compute.Attr{Alpha: 0.5}, compute.Attr{Act: compute.GELUTanh}
	m.up = []compute.Call{
		{Name: "up", Kernel: compute.Linear, Attr: one, In: b(m.x, m.w, m.bias), Out: b(m.z)},
		{Name: "gelu", Kernel: compute.Activation, Attr: gelu, In: b(m.z), Out: b(m.y)},
	}
	m.down = []compute.Call{
		{Name: "down", Kernel: compute.LinearGradX, Attr: one, In: b(m.dout, m.v), Out: b(m.dy)},
		{Name: "other", Kernel: compute.Add, In: b(m.x, m.x), Out: b(m.x)},
		{Name: "gelu", Kernel: compute.ActivationGrad, Attr: gelu, In: b(m.dy, m.z), Out: b(m.dy)},
	}
	return m
}

// TestFusions: fused and unfused programs give what the reference gives, in place and beside, with and without something to add to, and fused
// ones have fewer steps, where the library has the epilogues.
func TestFusions(t *testing.T) {
	o := Options{Poison: true}
	variants := 4
	set := func(int64) {}
	if !cudatest.GPU() {
		l := cudatest.Library(t, "")
		o.CUDA, o.CublasLt, variants = l.CUDA, l.CublasLt, 6
		set = func(epilogues int64) {
			if err := l.Set("epilogues", epilogues); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range []Store{F32, BF16, F16} {
		for _, inPlace := range []bool{false, true} {
			for variant := range variants {
				c := struct {
					based, unfused bool
					epilogues      int64
				}{variant%2 > 0, variant/2 == 1, -1}
				steps := 3
				if variant/2 > 0 {
					steps = 5
				}
				if variant/2 == 2 {
					c.epilogues = int64(cublaslt.None | cublaslt.Bias)
				}
				set(c.epilogues)
				dtype, unit := s.dtype(), map[Store]float64{F32: 0x1p-20, BF16: 0x1p-6, F16: 0x1p-9}[s]
				o.Unfused = c.unfused
				d := openDevice(t, o)
				m := newMLP(dtype, inPlace)
				base := m.z // what the product adds to: where it goes, or beside
				if !inPlace {
					base.Offset = m.bytes[compute.Arena]
					m.bytes[compute.Arena] += 4096
				}
				if c.based {
					m.up[0].In, m.down[0].In = append(m.up[0].In, base), append(m.down[0].In, m.dy)
				}
				mem, err := d.Alloc(m.bytes)
				if err != nil {
					t.Fatal(err)
				}
				values := map[int64][]float32{}
				r := rand.New(rand.NewPCG(3, 4))
				for _, b := range []compute.Buffer{m.x, m.w, m.bias, m.dout, m.v, base, m.dy} {
					v := make([]float32, b.Len())
					for i := range v {
						v[i] = round(float32(r.NormFloat64()), s)
					}
					values[b.Offset] = v
					if err := mem.Write(b, kept(v, dtype)); err != nil {
						t.Fatal(err)
					}
				}
				taken := 0
				for _, calls := range [][]compute.Call{m.up, m.down} {
					program, err := d.Compile(&compute.Plan{Calls: calls}, mem)
					if err != nil {
						t.Fatal(err)
					}
					taken += len(program.(*Program).steps)
					if err := program.Run(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if taken != steps && cudatest.GPU() {
					t.Logf("%v, %+v: %d steps, where the library has the epilogues %d", s, c, taken, steps)
				} else if taken != steps {
					t.Errorf("%+v: %d steps, expected %d", c, taken, steps)
				}
				z, y := make([]float32, m.n*m.inner), make([]float32, m.n*m.inner)
				upBase, downBase := values[base.Offset], values[m.dy.Offset]
				if !c.based {
					upBase, downBase = nil, nil
				}
				ref.Linear(z, values[m.x.Offset], values[m.w.Offset], values[m.bias.Offset], upBase, m.n, m.in, m.inner, 0.5)
				ref.Activation(y, z, compute.GELUTanh)
				compareKept(t, fmt.Sprint(s, inPlace, c, " y"), mem, m.y, y, unit)
				if inPlace {
					z = y // what is there when the gradient is taken: nothing of a model, but the same for all
				} else {
					compareKept(t, fmt.Sprint(s, inPlace, c, " z"), mem, m.z, z, unit)
				}
				dy, dz := make([]float32, m.n*m.inner), make([]float32, m.n*m.inner)
				ref.LinearGradX(dy, values[m.dout.Offset], values[m.v.Offset], downBase, m.n, m.inner, m.outward, 0.5)
				ref.ActivationGrad(dz, dy, z, compute.GELUTanh)
				compareKept(t, fmt.Sprint(s, inPlace, c, " dz"), mem, m.dy, dz, unit)
				if err := mem.Free(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// kept returns values as m.Write takes them for a type.
func kept(v []float32, d compute.DType) any {
	if d.Short() {
		return compute.ToShort(d, v)
	}
	return v
}

func compareKept(t *testing.T, what string, mem compute.Memory, b compute.Buffer, want []float32, unit float64) {
	t.Helper()
	got := make([]float32, len(want))
	var err error
	if b.DType.Short() {
		bits := make([]uint16, len(want))
		err = mem.Read(b, bits)
		got = compute.FromShort(b.DType, bits)
	} else {
		err = mem.Read(b, got)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if distance(float64(got[i]), float64(w), 4*unit, 2*unit) > 1 {
			t.Errorf("%s: element %d is %v, expected %v", what, i, got[i], w)
			return
		}
	}
}

// TestNoFusion: what else uses what lies between, or lies where it would be written early, keeps calls apart.
func TestNoFusion(t *testing.T) {
	for name, c := range map[string]struct {
		change   func(m *mlp)
		up, down bool
	}{
		"as it is":            {func(m *mlp) {}, true, true},
		"another activation":  {func(m *mlp) { m.up[1].Attr.Act, m.down[2].Attr.Act = compute.ReLU, compute.GELUErf }, false, false},
		"gelu over the input": {func(m *mlp) { m.up[1].Out[0].Offset = m.x.Offset }, false, true},
		"something between":   {func(m *mlp) { m.up = []compute.Call{m.up[0], m.down[1], m.up[1]} }, false, true},
		"gradients":           {func(m *mlp) { m.up = append(m.up, m.down[2]) }, false, true},
		"the gradient is read": {func(m *mlp) {
			m.down[1].In, m.down[1].Out = []compute.Buffer{m.dy, m.dy}, []compute.Buffer{m.y}
		}, true, false},
		"gelu's input is computed between":   {func(m *mlp) { m.down[1].In, m.down[1].Out = []compute.Buffer{m.y, m.y}, []compute.Buffer{m.z} }, true, false},
		"scratch is gelu's input":            {func(m *mlp) { m.down[1].Work = m.z }, true, false},
		"the gradient goes elsewhere":        {func(m *mlp) { m.down[2].Out[0] = m.y }, true, false},
		"a base, over it where it is needed": {func(m *mlp) { m.up[0].In, m.down[0].In = append(m.up[0].In, m.z), append(m.down[0].In, m.dy) }, false, true},
		"a base, in place":                   {func(m *mlp) { m.up[0].In, m.up[1].Out = append(m.up[0].In, m.z), m.up[0].Out }, true, true},
		"a base beside":                      {func(m *mlp) { m.up[0].In = append(m.up[0].In, m.dy) }, true, true},
		"a base where GELU goes":             {func(m *mlp) { m.up[0].In = append(m.up[0].In, m.y) }, false, true},
		"rows of 20": {func(m *mlp) {
			for _, calls := range [][]compute.Call{m.up, m.down} {
				for i := range calls {
					for _, side := range [][]compute.Buffer{calls[i].In, calls[i].Out} {
						for j, b := range side {
							side[j].Shape = slices.Clone(b.Shape)
							for k, n := range b.Shape {
								if n == m.inner {
									side[j].Shape[k] = 20
								}
							}
						}
					}
				}
			}
		}, false, false},
	} {
		m := newMLP(compute.BF16, false)
		c.change(m)
		if up, down := len(cudaplan.Fusions(m.up)) > 0, len(cudaplan.Fusions(m.down)) > 0; up != c.up || down != c.down {
			t.Errorf("%s: the product is fused: %v, its gradient: %v, expected %v and %v", name, up, down, c.up, c.down)
		}
	}
}

// TestFusedNames: errors and profiles name both calls.
func TestFusedNames(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	m := newMLP(compute.F32, false)
	mem, err := d.Alloc(m.bytes)
	if err != nil {
		t.Fatal(err)
	}
	for want, calls := range map[string][]compute.Call{"up: Linear with Activation": m.up, "down: LinearGradX with ActivationGrad": m.down} {
		p, err := d.Compile(&compute.Plan{Calls: calls}, mem)
		if err != nil {
			t.Fatal(err)
		}
		times, err := p.(*Program).Profile(t.Context())
		if err != nil || len(times) != len(calls)-1 || times[0].Name != want || times[0].Call != 0 || times[len(times)-1].Call != len(times)-1 {
			t.Errorf("%v, %v", times, err)
		}
	}
	if err := mem.Free(); err != nil {
		t.Error(err)
	}
}

// TestOverwrites: a gradient that is cleared just before a product is added to it is overwritten by the product, whatever it held.
func TestOverwrites(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	place := func(at int64, dims ...int) compute.Buffer {
		return compute.Buffer{Space: compute.Arena, Offset: at, DType: compute.F32, Shape: dims}
	}
	dy, x, dw := place(0, 4, 3), place(64, 4, 2), place(128, 3, 2)
	product := compute.Call{Name: "product", Kernel: compute.LinearGradW, Attr: compute.Attr{Alpha: 1}, In: []compute.Buffer{dy, x}, Out: []compute.Buffer{dw}}
	clear := compute.Call{Name: "clear", Kernel: compute.Zero, Out: []compute.Buffer{place(128, 6)}}
	want := make([]float32, 6)
	values := [][]float32{random(1, 12, F32), random(2, 8, F32)}
	ref.LinearGradW(want, values[0], values[1], 4, 2, 3, 1)
	for _, c := range []struct {
		calls  []compute.Call
		steps  int
		factor float32
	}{
		{[]compute.Call{clear, product}, 1, 1},
		{[]compute.Call{clear, product, product}, 2, 2},
		{[]compute.Call{clear, product, clear, product}, 2, 1},
	} {
		p := &compute.Plan{Calls: c.calls}
		p.Bytes[compute.Arena] = 192
		mem, err := d.Alloc(p.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		nan := float32(math.NaN())
		for i, v := range [][]float32{values[0], values[1], {nan, nan, nan, nan, nan, nan}} {
			if err := mem.Write([]compute.Buffer{dy, x, dw}[i], v); err != nil {
				t.Fatal(err)
			}
		}
		program, err := d.Compile(p, mem)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(program.(*Program).steps); n != c.steps {
			t.Errorf("%d calls: %d steps, expected %d", len(c.calls), n, c.steps)
		}
		if err := program.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := make([]float32, 6)
		if err := mem.Read(dw, got); err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if distance(float64(got[i]), float64(c.factor*w), 1e-6, 1e-6) > 1 {
				t.Errorf("%d calls: element %d is %v, expected %v", len(c.calls), i, got[i], c.factor*w)
			}
		}
		if err := mem.Free(); err != nil {
			t.Error(err)
		}
	}
}
