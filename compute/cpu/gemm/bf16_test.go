package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
)

func TestRoundToBF16(t *testing.T) {
	nan := math.Float32frombits
	for _, c := range []struct {
		x    float32
		want uint16
	}{
		{1, 0x3f80}, {-2.5, 0xc020}, {0, 0}, {float32(math.Copysign(0, -1)), 0x8000},
		{1 + 0x1p-8, 0x3f80}, {1 + 0x3p-8, 0x3f82}, {1 + 0x1.0002p-8, 0x3f81}, // ties to even, above the tie
		{math.MaxFloat32, 0x7f80}, {float32(math.Inf(-1)), 0xff80},
		{0x1p-126, 0x0080}, {0x1.fffffcp-127, 0}, {-1e-40, 0x8000}, // subnormal: zero
		{nan(0x7fc00000), 0x7fc0}, {nan(0x7f800001), 0x7fc0}, {nan(0xffffffff), 0xffff},
	} {
		if got := toBF16(c.x); got != c.want {
			t.Errorf("%v (%#x): %#x, want %#x", c.x, math.Float32bits(c.x), got, c.want)
		}
		// Every kernel packs it the same way, as an element of vectors and as one left over.
		for _, k := range kernels() {
			for _, tr := range []bool{false, true} {
				b := Mat{Data: make([]float32, 17*35), Rows: 17, Cols: 35, Stride: 35, T: tr}
				if tr {
					b.Stride = 17
				}
				for i := range b.Data {
					b.Data[i] = c.x
				}
				column := make([]float32, 17)
				packed := k.bf16.packed(nil, b)
				for j := range 35 {
					packed.Column(column, j)
					for i, v := range column {
						if math.Float32bits(v) != uint32(c.want)<<16 {
							t.Fatalf("%s: element %d, %d: %v becomes %#x, want %#x", k.bf16.level, i, j, c.x, math.Float32bits(v), uint32(c.want)<<16)
						}
					}
				}
			}
		}
	}
}

// TestPackedLayout: the stored form is the documented one on every machine.
func TestPackedLayout(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 80).Draw(t, "rows"), rapid.IntRange(1, 80).Draw(t, "cols")
		b := matrix(r, rows, cols, rapid.IntRange(0, 3).Draw(t, "pad"), rapid.Bool().Draw(t, "T"))
		want := make([]uint16, BF16PackedSize(rows, cols))
		for i := range rows {
			for j := range cols {
				panel := want[j/32*32*(rows+rows%2):]
				panel[i/2*64+j%32*2+1-i%2] = toBF16(b.at(i, j))
			}
		}
		for _, k := range kernels() {
			p := k.bf16.packed(nil, b)
			if !slices.Equal(p.BF16(), want) {
				t.Fatalf("%s packs %d×%d (T: %v) otherwise than documented", k.bf16.level, rows, cols, b.T)
			}
			if k.packed(nil, b).BF16() != nil {
				t.Fatal("a float32 matrix has a bf16 layout")
			}
		}
		again, err := PackedBF16From(want, rows, cols)
		if err != nil {
			t.Fatal(err)
		}
		column := make([]float32, rows)
		for j := range cols {
			again.Column(column, j)
			for i, v := range column {
				if v != fromBF16(toBF16(b.at(i, j))) {
					t.Fatalf("element %d, %d is %v", i, j, v)
				}
			}
			Pack(nil, b).Column(column, j)
			for i, v := range column {
				if v != b.at(i, j) {
					t.Fatalf("float32 element %d, %d is %v", i, j, v)
				}
			}
		}
		a := matrix(r, 3, rows, 0, false)
		x, y := Dense(make([]float32, 3*cols), 3, cols), Dense(make([]float32, 3*cols), 3, cols)
		MulPacked(nil, x, 1, a, again, Options{})
		Mul(nil, y, 1, a, b, Options{BF16: true})
		if err := sameBits(x, y); err != nil {
			t.Fatal(err)
		}
	})
	for _, c := range []struct{ n, rows, cols int }{{64, 2, 33}, {63, 2, 32}, {0, 1, 1}, {64, -2, 32}, {64, 1 << 62, 1 << 62}, {64, math.MaxInt - 31, 1}} {
		if _, err := PackedBF16From(make([]uint16, c.n), c.rows, c.cols); err == nil {
			t.Errorf("%d elements accepted for %d×%d", c.n, c.rows, c.cols)
		}
	}
	if _, err := PackedBF16From(make([]uint16, 65)[1:], 2, 32); err == nil {
		t.Error("misaligned memory accepted")
	}
	if p, err := PackedBF16From(nil, 0, 5); err != nil || p.Cols != 5 {
		t.Errorf("empty matrix: %v, %v", p, err)
	}
}

// TestBF16Error: against the product of the operands as they were, the error is that of rounding both to 8 bits.
func TestBF16Error(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const m, n, kk = 30, 70, 900
	p := product{a: matrix(r, m, kk, 0, false), b: matrix(r, kk, n, 0, true), c: matrix(r, m, n, 0, false), alpha: 1}
	Mul(nil, p.c, 1, p.a, p.b, Options{BF16: true})
	worst := 0.0
	for i := range m {
		for j := range n {
			sum, size := 0.0, 0.0
			for x := range kk {
				v := float64(p.a.at(i, x)) * float64(p.b.at(x, j))
				sum += v
				size += math.Abs(v)
			}
			worst = max(worst, math.Abs(float64(p.c.at(i, j))-sum)/size)
		}
	}
	if !(worst < 0x1p-8) || worst < 0x1p-16 {
		t.Fatalf("worst error %g of the sum of magnitudes, expected between 2^-16 (or nothing was rounded) and 2^-8", worst)
	}
}

// TestBF16Subnormal: the instruction takes subnormal numbers for zeros and makes none; emulations keep small sums.
func TestBF16Subnormal(t *testing.T) {
	for _, k := range kernels() {
		for _, c := range []struct{ a, b, flushed, kept float32 }{
			{1e-40, 0x1p100, 0, 0},                  // a subnormal operand
			{0x1p-100, 0x1p-30, 0, 0x1p-130},        // a subnormal sum
			{0x1p-100, 0x1p-26, 0x1p-126, 0x1p-126}, // the smallest normal sum
		} {
			got := Dense(make([]float32, 1), 1, 1)
			k.bf16.mul(nil, got, 1, Dense([]float32{c.a}, 1, 1), Dense([]float32{c.b}, 1, 1), nil, Options{})
			want := c.kept
			if k.bf16.float32s == nil {
				want = c.flushed
			}
			if got.Data[0] != want {
				t.Errorf("%s: %g·%g = %g, want %g", k.bf16.level, c.a, c.b, got.Data[0], want)
			}
		}
	}
}

// TestThen: fused, the function and the base give the bits they would give afterwards.
func TestThen(t *testing.T) {
	pool := par.New(3)
	defer pool.Close()
	eachKernel(t, func(t *testing.T, k *kernel) {
		rapid.Check(t, func(t *rapid.T) {
			p := draw(t, 100, 150, 1100)
			p.o.Accumulate = false
			plain := p
			plain.o.Base = Mat{}
			packed := rapid.Bool().Draw(t, "packed")
			want := plain.run(k, nil, packed)
			for i := range want.Rows {
				row := want.Data[i*want.Stride:][:want.Cols]
				vec.GELUTanh(row, row)
				for j := range row {
					if p.o.Base.Data != nil {
						row[j] += p.o.Base.at(i, j)
					}
				}
			}
			p.o.Then = vec.GELUTanh
			if err := sameBits(want, p.run(k, pool, packed)); err != nil {
				t.Fatalf("%v: %v", p, err)
			}
		})
	})
	c := Dense(make([]float32, 4), 2, 2)
	Mul(nil, c, 1, Mat{Rows: 2}, Mat{Cols: 2}, Options{Bias: []float32{1, 2}, Base: Dense([]float32{10, 20, 30, 40}, 2, 2),
		Then: func(y, x []float32) { vec.Scale(y, x, 3) }})
	if fmt.Sprint(c.Data) != "[13 26 33 46]" {
		t.Fatalf("empty sum: %v", c.Data)
	}
}
