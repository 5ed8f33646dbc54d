package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
)

// product is a drawn problem with operands inside larger buffers whose size is exact.
type product struct {
	a, b, c Mat
	alpha   float32
	o       Options
}

// matrix makes a rows × cols view of random numbers that ends with its data.
func matrix(r *rand.Rand, rows, cols, pad int, t bool) Mat {
	outer, inner := rows, cols
	if t {
		outer, inner = cols, rows
	}
	m := Mat{Rows: rows, Cols: cols, Stride: inner + pad, T: t}
	size := 0
	if outer > 0 && inner > 0 {
		size = (outer-1)*m.Stride + inner
	}
	m.Data = make([]float32, size)
	for i := range m.Data {
		m.Data[i] = r.Float32()*2 - 1
	}
	return m
}

func (m Mat) at(i, j int) float32 {
	if m.T {
		i, j = j, i
	}
	return m.Data[i*m.Stride+j]
}

func (m Mat) clone() Mat {
	m.Data = append([]float32(nil), m.Data...)
	return m
}

// rowsFrom is the view of n rows of m from row i on.
func (m Mat) rowsFrom(i, n int) Mat {
	m.Rows = n
	if m.T {
		m.Data = m.Data[i:][:(m.Cols-1)*m.Stride+n]
	} else {
		m.Data = m.Data[i*m.Stride:][:(n-1)*m.Stride+m.Cols]
	}
	return m
}

func (m Mat) colsFrom(j, n int) Mat { return m.Transposed().rowsFrom(j, n).Transposed() }

func draw(t *rapid.T, maxM, maxN, maxK int) product {
	size := func(name string, limit int) int {
		return rapid.OneOf(rapid.IntRange(1, min(limit, 70)), rapid.IntRange(1, limit)).Draw(t, name)
	}
	m, n, k := size("m", maxM), size("n", maxN), size("k", maxK)
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	pad := rapid.IntRange(0, 20)
	p := product{
		a:     matrix(r, m, k, pad.Draw(t, "pad a"), rapid.Bool().Draw(t, "a.T")),
		b:     matrix(r, k, n, pad.Draw(t, "pad b"), rapid.Bool().Draw(t, "b.T")),
		c:     matrix(r, m, n, pad.Draw(t, "pad c"), false),
		alpha: rapid.SampledFrom([]float32{1, 1, 0.5, -1.25, 0}).Draw(t, "alpha"),
	}
	switch rapid.SampledFrom([]string{"overwrite", "accumulate", "base"}).Draw(t, "init") {
	case "accumulate":
		p.o.Accumulate = true
	case "base":
		p.o.Base = matrix(r, m, n, pad.Draw(t, "pad base"), false)
	}
	if rapid.Bool().Draw(t, "bias") {
		p.o.Bias = matrix(r, 1, n, 0, false).Data
	}
	return p
}

func (p product) String() string {
	return fmt.Sprintf("%d×%d×%d a.T=%v b.T=%v alpha=%v accumulate=%v base=%v bias=%v", p.a.Rows, p.b.Cols, p.a.Cols,
		p.a.T, p.b.T, p.alpha, p.o.Accumulate, p.o.Base.Data != nil, p.o.Bias != nil)
}

// run computes p with kernel k into a copy of its C.
func (p product) run(k *kernel, pool *par.Pool, packed bool) Mat {
	c := p.c.clone()
	if packed {
		b := k.packed(pool, p.b)
		b.k.mul(pool, c, p.alpha, p.a, Mat{Rows: b.Rows, Cols: b.Cols}, b.data, p.o)
	} else {
		k.mul(pool, c, p.alpha, p.a, p.b, nil, p.o)
	}
	return c
}

// operand is what kernel k makes of element (i, j) of an operand.
func (k *kernel) operand(m Mat, i, j int) float32 {
	if k.unit == 2 {
		return fromBF16(toBF16(m.at(i, j)))
	}
	return m.at(i, j)
}

// checkReference compares what kernel k has made of p with the product in float64 and requires that nothing outside of C has
// changed.
func (p product) checkReference(t interface {
	Helper()
	Fatalf(string, ...any)
}, k *kernel, got Mat) {
	t.Helper()
	for i := range p.c.Rows {
		for j := range p.c.Cols {
			sum, size := 0.0, 0.0
			for x := range p.a.Cols {
				v := float64(k.operand(p.a, i, x)) * float64(k.operand(p.b, x, j))
				sum += v
				size += math.Abs(v)
			}
			want := float64(p.alpha) * sum
			size *= math.Abs(float64(p.alpha))
			add := func(v float32) { want += float64(v); size += math.Abs(float64(v)) }
			if p.o.Accumulate {
				add(p.c.at(i, j))
			}
			if p.o.Base.Data != nil {
				add(p.o.Base.at(i, j))
			}
			if p.o.Bias != nil {
				add(p.o.Bias[j])
			}
			// Rounding errors of a sum grow like the square root of its length; 2^-24 each.
			if e := math.Abs(float64(got.at(i, j)) - want); !(e <= (4+math.Sqrt(float64(p.a.Cols)))*size*0x1p-24) {
				t.Fatalf("%v: C[%d,%d] = %v, want %v (error %.3g of %.3g)", p, i, j, got.at(i, j), want, e, size)
			}
		}
	}
	for i, v := range got.Data {
		if i%got.Stride >= got.Cols && v != p.c.Data[i] {
			t.Fatalf("%v: element %d between the rows of C has changed", p, i)
		}
	}
}

func sameBits(a, b Mat) error {
	for i := range a.Rows {
		for j := range a.Cols {
			if x, y := a.at(i, j), b.at(i, j); math.Float32bits(x) != math.Float32bits(y) {
				return fmt.Errorf("element %d, %d: %v and %v", i, j, x, y)
			}
		}
	}
	return nil
}

func eachKernel(t *testing.T, f func(t *testing.T, k *kernel)) {
	level := ""
	for _, k := range kernels() {
		if k.level != level { // two kernels may differ in bf16 only
			t.Run(k.level+"/float32", func(t *testing.T) { f(t, k) })
		}
		level = k.level
		t.Run(k.bf16.level+"/bf16", func(t *testing.T) { f(t, k.bf16) })
	}
}

func TestHandComputed(t *testing.T) {
	a := Dense([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	w := Dense([]float32{1, 0, -1, 2, 1, 0}, 2, 3) // [out, in]
	c := Dense(make([]float32, 4), 2, 2)
	Mul(nil, c, 1, a, w.Transposed(), Options{Bias: []float32{10, 20}})
	want := []float32{1 - 3 + 10, 2 + 2 + 20, 4 - 6 + 10, 8 + 5 + 20}
	for i := range want {
		if c.Data[i] != want[i] {
			t.Fatalf("got %v, want %v", c.Data, want)
		}
	}
}

func TestAgainstFloat64(t *testing.T) {
	pool := par.New(3)
	defer pool.Close()
	eachKernel(t, func(t *testing.T, k *kernel) {
		rapid.Check(t, func(t *rapid.T) {
			p := draw(t, 150, 150, 1100)
			p.checkReference(t, k, p.run(k, pool, rapid.Bool().Draw(t, "packed")))
		})
	})
}

// TestEveryEdge walks through all sizes around the tile and block sizes, the forms of the operands taking turns.
func TestEveryEdge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	eachKernel(t, func(t *testing.T, k *kernel) {
		for m := 1; m <= k.mr+2; m++ {
			for n := 1; n <= k.width+2; n++ {
				for _, kk := range []int{1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 37} {
					for _, bits := range []int{(m + n + kk) % 8, 7 - (m+n+kk)%8} {
						p := product{
							a:     matrix(r, m, kk, bits&1, bits&1 != 0),
							b:     matrix(r, kk, n, bits>>1&1, bits>>1&1 != 0),
							c:     matrix(r, m, n, bits>>2&1, false),
							alpha: 1,
							o:     Options{Accumulate: bits>>2&1 != 0},
						}
						p.checkReference(t, k, p.run(k, nil, n%2 == 0))
					}
				}
			}
		}
	})
}

// TestLaw: the bits do not depend on threads, packing, the layout of the operands, work space, nor on the rest of A and C.
func TestLaw(t *testing.T) {
	pools := []*par.Pool{nil, par.New(2), par.New(5)}
	eachKernel(t, func(t *testing.T, k *kernel) {
		rapid.Check(t, func(t *rapid.T) {
			p := draw(t, 200, 200, 1600)
			want := p.run(k, nil, false)
			other := p
			if rapid.Bool().Draw(t, "store A otherwise") {
				other.a = restored(p.a)
			}
			if rapid.Bool().Draw(t, "store B otherwise") {
				other.b = restored(p.b)
			}
			if rapid.Bool().Draw(t, "own work") {
				other.o.Work = make([]float32, WorkFloats(p.a.Rows, p.b.Cols, p.a.Cols))
				for i := range other.o.Work {
					other.o.Work[i] = float32(math.NaN())
				}
			}
			pool := rapid.SampledFrom(pools).Draw(t, "pool")
			if err := sameBits(want, other.run(k, pool, rapid.Bool().Draw(t, "packed"))); err != nil {
				t.Fatalf("%v: other storage or threads: %v", p, err)
			}
			i0 := rapid.IntRange(0, p.a.Rows-1).Draw(t, "first row")
			rows := rapid.IntRange(1, p.a.Rows-i0).Draw(t, "rows")
			j0 := rapid.IntRange(0, p.b.Cols-1).Draw(t, "first column")
			cols := rapid.IntRange(1, p.b.Cols-j0).Draw(t, "columns")
			part := product{a: p.a.rowsFrom(i0, rows), b: p.b.colsFrom(j0, cols), c: p.c.rowsFrom(i0, rows).colsFrom(j0, cols), alpha: p.alpha, o: p.o}
			if p.o.Bias != nil {
				part.o.Bias = p.o.Bias[j0 : j0+cols]
			}
			if p.o.Base.Data != nil {
				part.o.Base = p.o.Base.rowsFrom(i0, rows).colsFrom(j0, cols)
			}
			if err := sameBits(want.rowsFrom(i0, rows).colsFrom(j0, cols), part.run(k, pool, rapid.Bool().Draw(t, "part packed"))); err != nil {
				t.Fatalf("%v: rows %d+%d, columns %d+%d alone: %v", p, i0, rows, j0, cols, err)
			}
		})
	})
}

// restored is the same matrix stored the other way.
func restored(m Mat) Mat {
	out := Mat{Rows: m.Rows, Cols: m.Cols, T: !m.T, Stride: m.Rows + 3}
	if !out.T {
		out.Stride = m.Cols + 3
	}
	out.Data = make([]float32, max(m.Rows, m.Cols)*out.Stride)
	for i := range m.Rows {
		for j := range m.Cols {
			if out.T {
				out.Data[j*out.Stride+i] = m.at(i, j)
			} else {
				out.Data[i*out.Stride+j] = m.at(i, j)
			}
		}
	}
	return out
}

// TestDecodeEqualsPrefill: one row against packed weights equals the same row of a long call, bit for bit.
func TestDecodeEqualsPrefill(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	r := rand.New(rand.NewPCG(3, 4))
	eachKernel(t, func(t *testing.T, k *kernel) {
		const m, n, kk = 512, 96, 1300
		p := product{a: matrix(r, m, kk, 0, false), b: matrix(r, kk, n, 0, true), c: matrix(r, m, n, 0, false), alpha: 1, o: Options{Bias: matrix(r, 1, n, 0, false).Data}}
		all := p.run(k, pool, true)
		for i := range m {
			one := p
			one.a, one.c = p.a.rowsFrom(i, 1), p.c.rowsFrom(i, 1)
			if err := sameBits(all.rowsFrom(i, 1), one.run(k, nil, true)); err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
		}
	})
}

// TestParts forces many parts in all three dimensions.
func TestParts(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	r := rand.New(rand.NewPCG(5, 6))
	for i, s := range [][3]int{{maxPart + 40, 20, 700}, {20, maxPart + 40, 700}, {5, 9000, 600}, {maxPart + 3, maxPart + 5, 40},
		{20, maxPart + 40, 1100}, {maxPart + 3, 5, 1030}} {
		k := kernels()[0]
		if i > 3 {
			k = k.bf16
		}
		p := product{a: matrix(r, s[0], s[2], 0, false), b: matrix(r, s[2], s[1], 0, true), c: matrix(r, s[0], s[1], 0, false), alpha: 0.5, o: Options{Accumulate: true}}
		want := p.run(k, pool, false)
		if err := sameBits(want, p.run(k, nil, true)); err != nil {
			t.Fatalf("%v: %v", p, err)
		}
		other := p
		other.b = restored(p.b) // rows of it are wide enough to be packed in another way
		if err := sameBits(want, other.run(k, pool, false)); err != nil {
			t.Fatalf("%v: B stored otherwise: %v", p, err)
		}
		for range 20 {
			i, j := r.IntN(s[0]), r.IntN(s[1])
			one := product{a: p.a.rowsFrom(i, 1), b: p.b.colsFrom(j, 1), c: p.c.rowsFrom(i, 1).colsFrom(j, 1), alpha: p.alpha, o: p.o}
			one.checkReference(t, k, want.rowsFrom(i, 1).colsFrom(j, 1))
		}
	}
}

// TestWorkIsEnough: also for smaller products than those it was asked for.
func TestWorkIsEnough(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *kernel) {
		rapid.Check(t, func(t *rapid.T) {
			size := rapid.OneOf(rapid.IntRange(1, 50), rapid.IntRange(1, 1<<17))
			m, n, kk := size.Draw(t, "m"), size.Draw(t, "n"), size.Draw(t, "k")
			m1, n1, k1 := rapid.IntRange(1, m).Draw(t, "m1"), rapid.IntRange(1, n).Draw(t, "n1"), rapid.IntRange(1, kk).Draw(t, "k1")
			a, b := Mat{T: rapid.Bool().Draw(t, "a.T")}, Mat{T: rapid.Bool().Draw(t, "b.T"), Stride: n1}
			s := k.shape(m1, n1, k1, a, b, rapid.Bool().Draw(t, "packed"), rapid.IntRange(1, 200).Draw(t, "threads"))
			if got, need := WorkFloats(m, n, kk), s.aSize+s.bSize; got < need {
				t.Fatalf("WorkFloats is %d, needed %d", got, need)
			}
			if s.kb < k1 && s.kb%KC != 0 {
				t.Fatalf("parts of %d cut a block", s.kb)
			}
		})
	})
}

func TestEmpty(t *testing.T) {
	c := Dense([]float32{1, 2, 3, 4}, 2, 2)
	Mul(nil, c, 1, Mat{Rows: 2}, Mat{Cols: 2}, Options{Accumulate: true, Bias: []float32{10, 20}})
	if fmt.Sprint(c.Data) != "[11 22 13 24]" {
		t.Fatalf("empty sum: %v", c.Data)
	}
	Mul(nil, c, 1, Mat{Rows: 2}, Mat{Cols: 2}, Options{})
	if fmt.Sprint(c.Data) != "[0 0 0 0]" {
		t.Fatalf("empty sum: %v", c.Data)
	}
	Mul(nil, Mat{Cols: 3}, 1, Mat{Cols: 4}, Dense(make([]float32, 12), 4, 3), Options{})
	MulPacked(nil, Mat{Rows: 2}, 1, Dense(make([]float32, 8), 2, 4), Pack(nil, Mat{Rows: 4}), Options{})
}

// TestInPlaceBase: Base may be the memory of C.
func TestInPlaceBase(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	p := product{a: matrix(r, 33, 1100, 0, false), b: matrix(r, 1100, 70, 0, false), c: matrix(r, 33, 70, 0, false), alpha: 2}
	p.o.Accumulate = true
	want := p.run(best(), nil, false)
	c := p.c.clone()
	Mul(nil, c, 2, p.a, p.b, Options{Base: c})
	if err := sameBits(want, c); err != nil {
		t.Fatal(err)
	}
}

func TestMisuse(t *testing.T) {
	d := func(r, c int) Mat { return Dense(make([]float32, r*c), r, c) }
	for want, f := range map[string]func(){
		"2×3 matrix times 4×2": func() { Mul(nil, d(2, 2), 1, d(2, 3), d(4, 2), Options{}) },
		"into 2×3 matrix":      func() { Mul(nil, d(2, 3), 1, d(2, 4), d(4, 2), Options{}) },
		"only 5 elements":      func() { Mul(nil, d(2, 2), 1, Mat{make([]float32, 5), 2, 3, 3, false}, d(3, 2), Options{}) },
		"with stride 2":        func() { Mul(nil, d(2, 2), 1, Mat{make([]float32, 9), 2, 3, 2, false}, d(3, 2), Options{}) },
		"C is transposed":      func() { Mul(nil, d(2, 2).Transposed(), 1, d(2, 3), d(3, 2), Options{}) },
		"bias has 3 elements":  func() { Mul(nil, d(2, 2), 1, d(2, 3), d(3, 2), Options{Bias: make([]float32, 3)}) },
		"base is 2×1":          func() { Mul(nil, d(2, 2), 1, d(2, 3), d(3, 2), Options{Base: d(2, 1)}) },
		"both Accumulate":      func() { Mul(nil, d(2, 2), 1, d(2, 3), d(3, 2), Options{Accumulate: true, Base: d(2, 2)}) },
		"work has 1 elements":  func() { Mul(nil, d(2, 2), 1, d(2, 3), d(3, 2), Options{Work: make([]float32, 1)}) },
		"A is -1×3":            func() { Mul(nil, Mat{Rows: -1, Cols: 2}, 1, Mat{Rows: -1, Cols: 3}, d(3, 2), Options{}) },
		"but its data has only 4": func() {
			Mul(nil, Mat{Rows: 1 << 62, Cols: 1}, 1, Mat{make([]float32, 4), 1 << 62, 4, 4, false}, d(4, 1), Options{})
		},
		"both Accumulate and Then": func() {
			Mul(nil, d(2, 2), 1, d(2, 3), d(3, 2), Options{Accumulate: true, Then: func(y, x []float32) {}})
		},
		"Then with C itself": func() {
			c := d(2, 2)
			Mul(nil, c, 1, d(2, 3), d(3, 2), Options{Base: c, Then: func(y, x []float32) {}})
		},
		"column 2 of a 3×2": func() { Pack(nil, d(3, 2)).Column(make([]float32, 3), 2) },
		"into 1×1 matrix":   func() { MulPacked(nil, d(1, 1), 1, d(2, 3), Pack(nil, d(3, 1)), Options{}) },
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("panic %q, expected %q", got, want)
				}
			}()
			f()
			t.Errorf("no panic, expected %q", want)
		}()
	}
}

// TestSerialDoesNotAllocate: attention calls this inside a worker.
func TestSerialDoesNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	const m, n, kk = 64, 300, 128
	a, b, c := matrix(r, m, kk, 4, false), matrix(r, kk, n, 4, true), matrix(r, m, n, 4, false)
	work := make([]float32, WorkFloats(m, n, kk))
	base, bias := matrix(r, m, n, 0, false), matrix(r, 1, n, 0, false).Data
	for _, o := range []Options{{}, {BF16: true}, {Base: base, Bias: bias}, {Base: base, Bias: bias, Then: vec.GELUTanh}} {
		o.Work = work
		if allocs := testing.AllocsPerRun(10, func() { Mul(nil, c, 0.1, a, b, o) }); allocs != 0 {
			t.Fatalf("%v allocations", allocs)
		}
	}
}

// TestSharedDoesNotAllocate: a product shared out among threads uses the memory of the one before again.
func TestSharedDoesNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 11))
	p := par.New(2)
	defer p.Close()
	const n, kk = 1024, 256
	w := matrix(r, n, kk, 0, false).Transposed()
	for _, b := range []*Packed{Pack(p, w), PackBF16(p, w)} {
		for _, m := range []int{1, 40} {
			a, c, bias := matrix(r, m, kk, 0, false), matrix(r, m, n, 0, false), matrix(r, 1, n, 0, false).Data
			o := Options{Bias: bias, Then: vec.GELUTanh}
			// A collection in between may empty what is kept.
			if allocs := testing.AllocsPerRun(100, func() { MulPacked(p, c, 1, a, b, o) }); allocs > 1 {
				t.Errorf("%d rows: %v allocations", m, allocs)
			}
		}
	}
}
