package cuda

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

// product computes alpha·op(A)·op(B) in float64.
func product(p cublaslt.Product, a, b []float32, alpha float32) []float64 {
	c := make([]float64, p.M*p.N)
	for i := range p.M {
		for j := range p.N {
			var sum float64
			for k := range p.K {
				x, y := i*p.K+k, k*p.N+j
				if p.TransA {
					x = k*p.M + i
				}
				if p.TransB {
					y = j*p.K + k
				}
				sum += float64(a[x]) * float64(b[y])
			}
			c[i*p.N+j] = float64(alpha) * sum
		}
	}
	return c
}

func TestMatmul(t *testing.T) {
	types := []struct {
		in, out   cublaslt.Type
		from, to  Store
		tolerance float64
	}{
		{cublaslt.F32, cublaslt.F32, F32, F32, 2e-6}, {cublaslt.BF16, cublaslt.BF16, BF16, BF16, 0x1p-8 * 1.01},
		{cublaslt.BF16, cublaslt.F32, BF16, F32, 2e-6}, {cublaslt.F16, cublaslt.F16, F16, F16, 0x1p-11 * 1.01},
	}
	cases := []struct {
		epilogue       cublaslt.Epilogue
		transA, transB bool
		beta           float32
	}{
		{cublaslt.None, false, false, 0}, {cublaslt.None, false, true, 1}, {cublaslt.None, true, false, 1}, {cublaslt.None, true, true, 0.5},
		{cublaslt.Bias, false, true, 0}, {cublaslt.GELU, false, true, 0}, {cublaslt.BiasGELU, false, true, 0}, {cublaslt.GELUAux, false, true, 0},
		{cublaslt.BiasGELUAux, false, true, 0}, {cublaslt.DGELU, false, false, 0}, {cublaslt.DGELUColumnSums, false, false, 0},
		{cublaslt.Bias, false, true, 1}, {cublaslt.BiasGELU, false, true, 1}, {cublaslt.BiasGELUAux, false, true, 0.5}, {cublaslt.DGELU, false, false, 1},
		{cublaslt.RowSumsOfA, true, false, 1}, {cublaslt.ColumnSumsOfB, true, false, 0},
	}
	eachSeed(t, func(t *testing.T, d *Device) {
		for _, ty := range types {
			for _, c := range cases {
				p := cublaslt.Product{M: 24, N: 40, K: 56, TransA: c.transA, TransB: c.transB, In: ty.in, Out: ty.out, Epilogue: c.epilogue}
				t.Run(fmt.Sprint(p, " beta ", c.beta), func(t *testing.T) {
					checkMatmul(t, d, p, ty.from, ty.to, c.beta, ty.tolerance)
				})
			}
		}
	})
}

func checkMatmul(t *testing.T, d *Device, p cublaslt.Product, from, to Store, beta float32, tolerance float64) {
	const alpha = 0.25
	a, b, c := random(1, p.M*p.K, from), random(2, p.K*p.N, from), random(3, p.M*p.N, to)
	vector, aux := random(4, max(p.M, p.N), to), random(5, p.M*p.N, to)
	sum := product(p, a, b, alpha)
	want, wantAux := make([]float32, len(sum)), make([]float32, len(sum))
	for i, v := range sum {
		v += float64(beta) * float64(c[i])
		switch p.Epilogue {
		case cublaslt.Bias, cublaslt.BiasGELU, cublaslt.BiasGELUAux:
			v += float64(vector[i%p.N])
		}
		want[i], wantAux[i] = float32(v), float32(v)
	}
	switch p.Epilogue {
	case cublaslt.GELU, cublaslt.BiasGELU, cublaslt.GELUAux, cublaslt.BiasGELUAux:
		ref.Activation(want, want, compute.GELUTanh)
	case cublaslt.DGELU, cublaslt.DGELUColumnSums:
		ref.ActivationGrad(want, want, aux, compute.GELUTanh)
		copy(wantAux, aux)
	}
	wantVector := make([]float64, max(p.M, p.N))
	switch p.Epilogue {
	case cublaslt.DGELUColumnSums:
		for i, v := range want {
			wantVector[i%p.N] += float64(v)
		}
	case cublaslt.RowSumsOfA: // A is stored [K,M]
		for i, v := range a {
			wantVector[i%p.M] += float64(v)
		}
	case cublaslt.ColumnSumsOfB:
		for i, v := range b {
			wantVector[i%p.N] += float64(v)
		}
	default:
		for i, v := range vector {
			wantVector[i] = float64(v)
		}
	}
	err := d.Do(func(q *Queue) error {
		out, extra, line := upload(t, q, encode(c, to)), upload(t, q, encode(aux, to)), upload(t, q, encode(vector, to))
		o := cublaslt.Operands{A: upload(t, q, encode(a, from)), B: upload(t, q, encode(b, from)), D: out, Bias: line, Aux: extra, Alpha: alpha, Beta: beta}
		if beta != 0 {
			o.C = out
		}
		m, err := q.PrepareMatmul(p, o)
		if cudatest.GPU() && cublaslt.Unsupported(err) && p.Epilogue != cublaslt.None && p.Epilogue != cublaslt.Bias {
			t.Skipf("SKIPPED: %v: nothing needs it", err)
		}
		if err != nil {
			return err
		}
		if err := errors.Join(m.Enqueue(q), q.Sync()); err != nil {
			return err
		}
		words := to.Size() / 2
		cudatest.Close(t, "D", decode(download[uint16](t, q, out, len(c)*words), to), want, 1e-5+tolerance*2, tolerance)
		if p.Epilogue&128 != 0 {
			cudatest.Close(t, "aux", decode(download[uint16](t, q, extra, len(c)*words), to), wantAux, 1e-5, tolerance)
		}
		got := decode(download[uint16](t, q, line, len(vector)*words), to)
		for i, w := range wantVector {
			if used := p.N; p.Epilogue == cublaslt.RowSumsOfA && i >= p.M || p.Epilogue != cublaslt.RowSumsOfA && i >= used {
				break
			}
			if math.Abs(float64(got[i])-w) > 1e-5+tolerance*(math.Abs(w)+10) {
				t.Errorf("vector[%d] is %v, expected %v", i, got[i], w)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A card without bfloat16 has products in float16 and float32 and none in that.
func TestMatmulTypesOfOldCards(t *testing.T) {
	d, _ := onStandin(t, "", map[string]int64{"capability": 70})
	for _, c := range []struct {
		in, out cublaslt.Type
		ok      bool
	}{{cublaslt.F16, cublaslt.F16, true}, {cublaslt.F16, cublaslt.F32, true}, {cublaslt.F32, cublaslt.F32, true}, {cublaslt.BF16, cublaslt.BF16, false}, {cublaslt.BF16, cublaslt.F32, false}} {
		err := d.Do(func(q *Queue) error {
			x := alloc[float32](t, q, 64)
			_, err := q.PrepareMatmul(cublaslt.Product{M: 8, N: 8, K: 8, In: c.in, Out: c.out}, cublaslt.Operands{A: x, B: x, D: x, Alpha: 1})
			return err
		})
		if c.ok != (err == nil) || err != nil && !errors.Is(err, cublaslt.ErrNoAlgorithm) {
			t.Errorf("%v to %v: %v", c.in, c.out, err)
		}
	}
}

func TestMatmulRejects(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	for _, p := range []cublaslt.Product{
		{M: 0, N: 8, K: 8},
		{M: 8, N: 8, K: 8, StrideA: 4},
		{M: 8, N: 8, K: 8, Epilogue: cublaslt.RowSumsOfA},
		{M: 8, N: 8, K: 8, TransB: true, Epilogue: cublaslt.ColumnSumsOfB},
		{M: 8, N: 8, K: 8, Epilogue: cublaslt.Bias},
		{M: 8, N: 8, K: 8, In: cublaslt.BF16, Out: cublaslt.F16},
	} {
		if err := d.Do(func(q *Queue) error {
			x := alloc[float32](t, q, 64)
			_, err := q.PrepareMatmul(p, cublaslt.Operands{A: x, B: x, D: x, Alpha: 1})
			return err
		}); err == nil {
			t.Errorf("%v was accepted", p)
		}
	}
}

// Algorithms are asked for with addresses that are aligned as the product says, however a product before was: what was found fits all that Bind
// takes, which is none that is aligned less.
func TestMatmulEpilogueAlignment(t *testing.T) {
	eachSeed(t, func(t *testing.T, d *Device) {
		p := cublaslt.Product{M: 8, N: 8, K: 8, In: cublaslt.BF16, Out: cublaslt.BF16, Epilogue: cublaslt.BiasGELUAux}
		if err := d.Do(func(q *Queue) error {
			at := alloc[uint16](t, q, 1024) // of 256 bytes
			for _, offset := range []Ptr{256, 16, 64, 16 + 256} {
				for range 2 { // the second time the descriptor has the first product's addresses
					if _, err := q.TimeAlgorithms(p, 2, 1); err != nil {
						return err
					}
					m, err := q.PrepareMatmul(p, cublaslt.Operands{A: at, B: at, D: at + 1024, Bias: at + offset, Aux: at + 512 + offset, Alpha: 1})
					if err != nil {
						return err
					}
					if err := errors.Join(m.Enqueue(q), q.Sync()); err != nil {
						t.Errorf("bias and aux at multiples of %d bytes: %v", offset&-offset, err)
					}
				}
			}
			for _, o := range []cublaslt.Operands{{Bias: at + 8, Aux: at}, {Bias: at, Aux: at + 8}} {
				o.A, o.B, o.D, o.Alpha = at, at, at+1024, 1
				if _, err := q.PrepareMatmul(p, o); err == nil {
					t.Errorf("bias at %#x and aux at %#x were accepted", o.Bias, o.Aux)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}
