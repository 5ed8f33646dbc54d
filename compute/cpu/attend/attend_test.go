package attend

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func randomPairs(r *rand.Rand, n int) []uint32 {
	x := make([]uint32, n)
	roundGeneric(x, random(r, 2*n))
	return x
}

// lower and upper are the two numbers of a pair.
func lower(w uint32) float64 { return float64(math.Float32frombits(w << 16)) }
func upper(w uint32) float64 { return float64(math.Float32frombits(w &^ 0xffff)) }

func eachLevel(t *testing.T, f func(t *testing.T, k *kernels)) {
	for _, k := range levels() {
		t.Run(k.level, func(t *testing.T) { f(t, k) })
	}
}

// checkProduct compares a product with float64 and its columns and rows with those of the portable form.
func checkProduct[W word](t *testing.T, tl, generic *tiles[W], p Product, c []float32, a, b []W, term func(a, b W) (sum, size float64), exact bool) {
	t.Helper()
	got, portable := append([]float32(nil), c...), append([]float32(nil), c...)
	product(tl, p, got, a, b)
	product(generic, p, portable, a, b)
	touched := make([]bool, len(c))
	for i := range p.Rows {
		for j := range p.Cols {
			at := i*p.LDC + j
			touched[at] = true
			want, size := 0.0, 1e-30
			if p.Add {
				want, size = float64(c[at]), math.Abs(float64(c[at]))
			}
			for k := range p.K {
				x := i*p.LDA + k
				if p.Down {
					x = k*p.LDA + i
				}
				s, m := term(a[x], b[j/Panel*p.LDB+k*Panel+j%Panel])
				want, size = want+s, size+m
			}
			if math.Abs(float64(got[at])-want) > size*float64(p.K+2)*0x1p-23 {
				t.Fatalf("%+v: element %d, %d: %v, expected %v", p, i, j, got[at], want)
			}
			if exact && math.Float32bits(got[at]) != math.Float32bits(portable[at]) {
				t.Fatalf("%+v: element %d, %d: %v, expected the portable form's bits of %v", p, i, j, got[at], portable[at])
			}
		}
	}
	for at := range c {
		if !touched[at] && math.Float32bits(got[at]) != math.Float32bits(c[at]) {
			t.Fatalf("%+v: element at %d changed", p, at)
		}
	}
}

func TestProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	generic := genericKernels()
	eachLevel(t, func(t *testing.T, k *kernels) {
		for i := range 120 {
			p := Product{Rows: 1 + r.IntN(20), Cols: Panel * (1 + r.IntN(3)), K: r.IntN(40), Add: i%2 == 0, Down: i%3 == 0}
			if p.Down {
				p.Rows = 8 * (1 + r.IntN(3))
			}
			p.LDB, p.LDC, p.LDA = p.K*Panel+r.IntN(3)*16, p.Cols+r.IntN(2)*16, max(p.K, p.Rows)+r.IntN(5)
			sizeA, sizeB, sizeC := p.LDA*max(p.Rows, p.K)+1, p.LDB*p.Cols/Panel+1, p.LDC*p.Rows
			c := random(r, sizeC)
			checkProduct(t, &k.floats, &generic.floats, p, c, random(r, sizeA), random(r, sizeB), func(a, b float32) (float64, float64) {
				v := float64(a) * float64(b)
				return v, math.Abs(v)
			}, k.level == "generic")
			checkProduct(t, &k.pairs, &generic.pairs, p, c, randomPairs(r, sizeA), randomPairs(r, sizeB), func(a, b uint32) (float64, float64) {
				x, y := lower(a)*lower(b), upper(a)*upper(b)
				return x + y, math.Abs(x) + math.Abs(y)
			}, true)
		}
	})
}

// An element's bits are those of the element alone: the same in every tile, at every instruction set that fuses.
func TestElementsAreIndependent(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	ks := levels()
	if len(ks) < 3 {
		t.Skip("this machine has no two sets of assembly")
	}
	const rows, cols, kc = 21, 2 * Panel, 67
	p := Product{Rows: rows, Cols: cols, K: kc, LDA: kc, LDB: kc * Panel, LDC: cols}
	a, b := random(r, rows*kc), random(r, cols*kc)
	want := make([]float32, rows*cols)
	product(&ks[0].floats, p, want, a, b)
	for _, k := range ks[:len(ks)-1] {
		for i := range rows {
			one := make([]float32, cols)
			q := p
			q.Rows = 1
			product(&k.floats, q, one, a[i*kc:], b)
			for j := range one {
				if one[j] != want[i*cols+j] {
					t.Fatalf("%s: element %d, %d: %v alone, %v among others", k.level, i, j, one[j], want[i*cols+j])
				}
			}
		}
	}
}

// The rounding is to nearest even, and the twins agree for every kind of number.
func TestRounding(t *testing.T) {
	cases := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 1.00390625, 1.01171875, 1.0039064, 3e38, math.MaxFloat32, 1e-38, 1e-40, -1e-45, float32(math.Inf(1)), float32(math.Inf(-1))}
	for in, want := range map[float32]float32{1.00390625: 1, 1.01171875: 1.015625, 1.0039064: 1.0078125, -2.5: -2.5, 1e-40: 0} {
		if got := math.Float32frombits(bfloat(in)); got != want {
			t.Errorf("%v rounds to %v, expected %v", in, got, want)
		}
	}
	if x := math.Float32frombits(bfloat(float32(math.NaN()))); x == x {
		t.Errorf("not a number rounds to %v", x)
	}
	r := rand.New(rand.NewPCG(3, 1))
	for len(cases) < 1000 {
		cases = append(cases, math.Float32frombits(r.Uint32()))
	}
	eachLevel(t, func(t *testing.T, k *kernels) {
		for _, n := range []int{1, 15, 16, 33, 999, 1000} {
			src := cases[:n]
			got, want := make([]uint32, (n+1)/2), make([]uint32, (n+1)/2)
			k.rows.round(got, src)
			roundGeneric(want, src)
			wide, wantWide := make([]uint32, n), make([]uint32, n)
			k.rows.interleave(wide, src, cases[1000-n:])
			interleaveGeneric(wantWide, src, cases[1000-n:])
			if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(wide) != fmt.Sprint(wantWide) {
				t.Fatalf("%d elements: not the portable form's", n)
			}
		}
	})
}

func TestRows(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	eachLevel(t, func(t *testing.T, k *kernels) {
		for _, rows := range []int{1, 5, 16, 17, 31, 32} {
			for _, n := range []int{1, 3, 4, 13, 64} {
				ld := n + r.IntN(4)
				src := Words(random(r, ld*rows))
				got, want := make([]uint32, n*Panel), make([]uint32, n*Panel)
				k.rows.transpose(got, src, ld, rows, n)
				for x := range n {
					for row := range rows {
						want[x*Panel+row] = src[row*ld+x]
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("%d×%d is not transposed", rows, n)
				}
			}
		}
		ints := make([]int8, 256)
		for i := range ints {
			ints[i] = int8(i*37%255 - 127)
		}
		pairs := make([]uint32, 128)
		k.rows.widen(pairs, ints)
		for i, w := range pairs {
			if lower(w) != float64(ints[2*i]) || upper(w) != float64(ints[2*i+1]) {
				t.Fatalf("integers %v became %v and %v", ints[2*i:2*i+2], lower(w), upper(w))
			}
		}
		for _, n := range []int{1, 16, 40} {
			x, y := random(r, n), random(r, n)
			want := append([]float32(nil), y...)
			mergeGeneric(want, x, 0.3, 1.7)
			k.rows.merge(y, x, 0.3, 1.7)
			if fmt.Sprint(y) != fmt.Sprint(want) {
				t.Fatalf("merged %v, expected %v", y, want)
			}
		}
	})
}

func TestExponentials(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	inf := float32(math.Inf(-1))
	eachLevel(t, func(t *testing.T, k *kernels) {
		for _, n := range []int{16, 64, 256} {
			scores, columns := random(r, n), random(r, n)
			for i := range scores {
				scores[i] *= 30
				if i%7 == 0 {
					scores[i] = inf
				}
			}
			scores[3] = -1e30
			scores[5] = 70 // the largest
			for _, c := range [][]float32{nil, columns} {
				const scale = 0.7
				s, pairs := append([]float32(nil), scores...), make([]uint32, n/2)
				got, sum := k.rows.exponentials(pairs, s, c, scale, 70), 0.0
				for i, x := range scores {
					e := math.Exp(scale * (float64(x) - 70))
					sum += e
					if c != nil {
						e *= float64(c[i])
					}
					v := lower(pairs[i/2])
					if i%2 == 1 {
						v = upper(pairs[i/2])
					}
					if math.Abs(v-e) > 0.004*math.Abs(e)+1e-37 {
						t.Fatalf("score %v: %v, expected %v", x, v, e)
					}
				}
				if math.Abs(float64(got)-sum) > 1e-5*sum {
					t.Errorf("sum %v, expected %v", got, sum)
				}
				// Among scores that are not seen.
				padded := make([]float32, n+32)
				for i := range padded {
					padded[i] = inf
				}
				copy(padded[16:], scores)
				more := make([]uint32, n/2+16)
				var wide []float32
				if c != nil {
					wide = append(append(make([]float32, 16), c...), make([]float32, 16)...)
				}
				if again := k.rows.exponentials(more, padded, wide, scale, 70); again != got || fmt.Sprint(more[8:8+n/2]) != fmt.Sprint(pairs) {
					t.Errorf("%d scores: others beside them change the bits", n)
				}
			}
			scores[9] = float32(math.NaN())
			if sum := k.rows.exponentials(make([]uint32, n/2), scores, nil, 1, 70); sum == sum {
				t.Errorf("sum %v with a score that is no number", sum)
			}
		}
	})
}

func FuzzProductTwins(f *testing.F) {
	f.Add(uint64(1), uint8(7), uint8(9), true, false)
	f.Add(uint64(2), uint8(15), uint8(33), false, true)
	generic := genericKernels()
	f.Fuzz(func(t *testing.T, seed uint64, rows, kc uint8, add, down bool) {
		r := rand.New(rand.NewPCG(seed, 5))
		p := Product{Rows: 1 + int(rows%40), Cols: Panel, K: int(kc), LDA: int(kc) + 48, LDB: int(kc) * Panel, LDC: Panel, Add: add, Down: down}
		if down {
			p.Rows = (p.Rows + 7) / 8 * 8
		}
		c, a, b := random(r, p.Rows*p.LDC), randomPairs(r, p.LDA*max(p.Rows, p.K, 1)), randomPairs(r, p.LDB+1)
		want := append([]float32(nil), c...)
		product(&generic.pairs, p, want, a, b)
		for _, k := range levels() {
			got := append([]float32(nil), c...)
			product(&k.pairs, p, got, a, b)
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%s: %+v: element %d: %v, expected %v", k.level, p, i, got[i], want[i])
				}
			}
		}
	})
}

func BenchmarkProducts(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, rows := range []int{1, 8, 16, 64} {
		const cols, kc = 256, 128
		a, bb, c := random(r, rows*kc), random(r, kc*cols), make([]float32, rows*(cols+16))
		p := Product{Rows: rows, Cols: cols, K: kc, LDA: kc, LDB: kc * Panel, LDC: cols + 16}
		q := p
		q.K, q.LDB = kc/2, kc/2*Panel
		ap, bp := randomPairs(r, len(a)), randomPairs(r, len(bb))
		b.Run(fmt.Sprintf("floats/%d", rows), func(b *testing.B) {
			for b.Loop() {
				p.Floats(c, a, bb)
			}
			b.ReportMetric(2*float64(rows)*cols*kc*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
		b.Run(fmt.Sprintf("pairs/%d", rows), func(b *testing.B) {
			for b.Loop() {
				q.Pairs(c, ap, bp)
			}
			b.ReportMetric(2*float64(rows)*cols*kc*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
