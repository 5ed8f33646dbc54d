package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"autodev/compute/cpu/par"
)

func eachKernel(t *testing.T, f func(t *testing.T, k *kernel)) {
	for _, k := range kernels() {
		t.Run(k.level, func(t *testing.T) { f(t, k) })
	}
}

func normal(r *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * scale)
	}
	return x
}

// product is one Mul: its operands and what Mul makes of them.
type product struct {
	n, out, in int
	x          []float32
	w          *Matrix
	e          Epilogue
}

func (p product) run(k *kernel, pool *par.Pool) []float32 {
	var rows Rows
	rows.set(k, pool, p.x, p.n, p.in)
	y := make([]float32, p.n*p.out)
	for i := range y {
		y[i] = float32(math.NaN())
	}
	Mul(pool, y, &rows, p.w, p.e)
	return y
}

// definition computes the law of the package comment with nothing but the weights that Row gives and float32 arithmetic.
func (p product) definition() []float32 {
	y := make([]float32, p.n*p.out)
	group := p.w.Format().Group()
	codes, scales := codesOf(p.w)
	groups := p.w.Format().Groups(p.in)
	for i := range p.n {
		x := p.x[i*p.in:][:p.in]
		xc, xs := actCodes(x)
		for o := range p.out {
			var acc float32
			for g := range groups {
				sum := int64(0)
				for k := g * group; k < min(p.in, (g+1)*group); k++ {
					sum += int64(xc[k]) * int64(codes[o*p.in+k])
				}
				a := float32(float32(sum) * (256 * scales[o*groups+g]))
				acc += float32(a * (xs[g*group/ActGroup] / 256))
			}
			if p.e.Bias != nil {
				acc += p.e.Bias[o]
			}
			if p.e.Then != nil {
				v := []float32{acc}
				p.e.Then(v, v)
				acc = v[0]
			}
			if p.e.Base != nil {
				acc += p.e.Base[i*p.out+o]
			}
			y[i*p.out+o] = acc
		}
	}
	return y
}

// actCodes quantises a row of finite activations as the package comment says.
func actCodes(x []float32) (codes []int, scales []float32) {
	for k0 := 0; k0 < len(x); k0 += ActGroup {
		part := x[k0:min(len(x), k0+ActGroup)]
		var largest float32
		for _, v := range part {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		s, inv := largest/127, 127/largest
		if largest < 0x1p-100 {
			s, inv = 0, 0
		}
		scales = append(scales, s)
		for _, v := range part {
			codes = append(codes, int(math.RoundToEven(float64(v*inv))))
		}
	}
	return codes, scales
}

// codesOf recovers codes and scales from the stored form, reading it as the package comment describes it.
func codesOf(m *Matrix) (codes []int, scales []float32) {
	padded := (m.in + 63) / 64 * 64
	groups := m.format.Groups(m.in)
	for o := range m.out {
		for k := range m.in {
			quad := o/16*(padded/4) + k/4
			if m.format == Int8 {
				codes = append(codes, int(m.codes[(quad*16+o%16)*4+k%4])-128)
			} else {
				c := m.codes[(quad/2*16+o%16)*4+k%4]
				codes = append(codes, int([2]byte{c & 15, c >> 4}[quad%2])-8)
			}
		}
		for g := range groups {
			at := ((o/16*groups+g)*16 + o%16) * 2
			scales = append(scales, fromHalf(uint16(m.scales[at])|uint16(m.scales[at+1])<<8)/256)
		}
	}
	return codes, scales
}

func sameBits(t *testing.T, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d numbers, expected %d", len(got), len(want))
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && !(got[i] != got[i] && want[i] != want[i]) {
			t.Fatalf("number %d is %v, expected %v", i, got[i], want[i])
		}
	}
}

func TestDefinition(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	eachKernel(t, func(t *testing.T, k *kernel) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, f := range []Format{Int8, Int4} {
			for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 29, 43} {
				for _, s := range [][2]int{{1, 1}, {16, 64}, {17, 65}, {33, 256}, {48, 320}, {100, 577}, {5, 1030}} {
					p := product{n: n, out: s[0], in: s[1], x: normal(r, n*s[1], 3)}
					p.w = Quantize(pool, f, normal(r, s[0]*s[1], 0.02), s[0], s[1])
					if n%2 == 0 {
						p.e = Epilogue{Bias: normal(r, s[0], 1), Base: normal(r, n*s[0], 1), Then: func(y, x []float32) {
							for i, v := range x {
								y[i] = max(v, 0)
							}
						}}
					}
					t.Run(fmt.Sprint(f, n, s), func(t *testing.T) { sameBits(t, p.run(k, pool), p.definition()) })
				}
			}
		}
	})
}
