package gemm

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute/cpu/par"
)

// fma32 is the correctly rounded a·b + c: the product is exact in float64, and rounding the sum to odd first keeps the second
// rounding from going wrong (Boldo, Melquiond 2008).
func fma32(a, b, c float32) float32 {
	p, x := float64(a)*float64(b), float64(c)
	s := p + x
	t := s - p
	err := (p - (s - t)) + (x - t)
	if err != 0 && math.Float64bits(s)&1 == 0 {
		if (err > 0) == (s > 0) {
			s = math.Float64frombits(math.Float64bits(s) + 1)
		} else {
			s = math.Float64frombits(math.Float64bits(s) - 1)
		}
	}
	return float32(s)
}

func TestFMA32(t *testing.T) {
	// 1+2^-12 squared is 1 + 2^-11 + 2^-24: a tie that a tiny addend breaks upwards or downwards.
	a := float32(1 + 0x1p-12)
	for _, c := range []struct{ add, want float32 }{
		{0, 1 + 0x1p-11}, {0x1p-100, 1 + 0x1p-11 + 0x1p-23}, {-0x1p-100, 1 + 0x1p-11}, {-1, 0x1p-11 + 0x1p-24},
	} {
		if got := fma32(a, a, c.add); got != c.want {
			t.Errorf("fma32(%v, %v, %v) = %v, want %v", a, a, c.add, got, c.want)
		}
	}
}

// TestDefinition compares the assembly bit for bit with the formula in the package comment.
func TestDefinition(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	eachKernel(t, func(t *testing.T, k *kernel) {
		if k.level == "generic" && k.unit == 1 {
			t.Skip("the portable kernel rounds products, see the package comment")
		}
		rapid.Check(t, func(t *rapid.T) {
			p := draw(t, 40, 70, 1200)
			if k.level == "generic" {
				p.alpha = 1 // else it rounds that product
			}
			got := p.run(k, pool, rapid.Bool().Draw(t, "packed"))
			for i := range p.c.Rows {
				for j := range p.c.Cols {
					if want := p.definition(k, i, j); math.Float32bits(got.at(i, j)) != math.Float32bits(want) {
						t.Fatalf("%v: C[%d,%d] = %v, want %v", p, i, j, got.at(i, j), want)
					}
				}
			}
		})
	})
}

func (p product) definition(k *kernel, i, j int) float32 {
	var acc float32
	first := true
	start := func(v float32) {
		if first {
			acc = v
		} else {
			acc += v
		}
		first = false
	}
	if p.o.Accumulate {
		start(p.c.at(i, j))
	}
	if p.o.Base.Data != nil {
		start(p.o.Base.at(i, j))
	}
	if p.o.Bias != nil {
		start(p.o.Bias[j])
	}
	for k0 := 0; k0 < p.a.Cols; k0 += KC {
		var sum float32
		for x := k0; x < min(k0+KC, p.a.Cols); x++ {
			sum = fma32(k.operand(p.a, i, x), k.operand(p.b, x, j), sum)
		}
		if first {
			start(p.alpha * sum)
		} else {
			acc = fma32(p.alpha, sum, acc)
		}
	}
	return acc
}

// TestPoisonStaysInItsRowAndColumn: infinities and NaNs reach only the elements that depend on them.
func TestPoisonStaysInItsRowAndColumn(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	eachKernel(t, func(t *testing.T, k *kernel) {
		for _, bt := range []bool{false, true} {
			p := product{a: matrix(r, 17, 9, 0, false), b: matrix(r, 9, 37, 0, bt), c: matrix(r, 17, 37, 0, false), alpha: 1}
			want := p.run(k, nil, false)
			p.a.Data[16*9+3] = float32(math.NaN())
			if bt {
				p.b.Data[36*9+2] = float32(math.Inf(1))
			} else {
				p.b.Data[2*37+36] = float32(math.Inf(1))
			}
			got := p.run(k, nil, false)
			if err := sameBits(want.rowsFrom(0, 16).colsFrom(0, 36), got.rowsFrom(0, 16).colsFrom(0, 36)); err != nil {
				t.Fatal(err)
			}
			if !math.IsNaN(float64(got.at(16, 5))) || !math.IsInf(float64(got.at(3, 36)), 0) {
				t.Fatalf("got %v and %v, expected NaN and an infinity", got.at(16, 5), got.at(3, 36))
			}
		}
	})
}

// FuzzTwins compares the kernels of all instruction sets on operands made from raw bits.
func FuzzTwins(f *testing.F) {
	f.Add(uint8(3), uint8(40), uint16(600), uint64(1), uint8(0))
	f.Add(uint8(14), uint8(32), uint16(512), uint64(2), uint8(7))
	f.Add(uint8(1), uint8(17), uint16(1), uint64(3), uint8(13))
	f.Fuzz(func(t *testing.T, m, n uint8, kk uint16, seed uint64, flags uint8) {
		m, n, kk = m%40+1, n%80+1, kk%1100+1
		r := rand.New(rand.NewPCG(seed, 0))
		p := product{
			a: matrix(r, int(m), int(kk), int(flags&1), flags&1 != 0), b: matrix(r, int(kk), int(n), int(flags>>1&1), flags>>1&1 != 0),
			c: matrix(r, int(m), int(n), int(flags>>2&1), false), alpha: r.Float32(), o: Options{Accumulate: flags>>3&1 != 0},
		}
		for bf16 := range 2 {
			var first *kernel
			var want Mat
			for _, k := range kernels() {
				if bf16 == 1 {
					k = k.bf16
				}
				switch got := p.run(k, nil, flags>>5&1 != 0); {
				case first == nil:
					first, want = k, p.run(k, nil, flags>>4&1 != 0)
					if err := sameBits(want, got); err != nil {
						t.Fatalf("%v: %s, packed and not: %v", p, k.level, err)
					}
				case k.level == "generic":
					p.checkReference(t, k, got)
				default:
					if err := sameBits(want, got); err != nil {
						t.Fatalf("%v: %s and %s: %v", p, first.level, k.level, err)
					}
				}
			}
		}
	})
}
