package cuda

import (
	"fmt"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cudaplan"
	"autodev/compute/ref"
)

// normGrads are LayerNorm's gradients of random operands, on the device and by the reference; those that are not asked for are nil.
type normGrads struct{ dx, dgain, dbias []float32 }

func layerNormGradients(b workbench, rows, width int, ask string, s Store) (got, want normGrads) {
	const epsilon = 1e-5
	has := func(c rune) bool { return slices.Contains([]rune(ask), c) }
	n := rows * width
	dy, x, gain, base := random(1, n, s), random(2, n, s), random(3, width, s), random(4, n, s)
	for i := range x {
		x[i] = round(x[i]+3, s)
	}
	o := layerNormGrads{DY: b.floats(dy, s), X: b.floats(x, s), Work: b.empty(2 * 4 * cudaplan.Parts(rows) * width)}
	if has('x') {
		o.Gain, o.DX = b.floats(gain, s), o.DY // in place
		want.dx = make([]float32, n)
		ref.LayerNormGrad(want.dx, dy, x, gain, epsilon)
		if has('b') {
			o.Base = b.floats(base, s)
			ref.Add(want.dx, want.dx, base)
		}
	}
	if has('g') {
		want.dgain = random(5, width, F32)
		o.DGain = put(b, want.dgain)
		ref.LayerNormGainGrad(want.dgain, dy, x, epsilon)
	}
	if has('s') {
		want.dbias = random(6, width, F32)
		o.DBias = put(b, want.dbias)
		ref.BiasGrad(want.dbias, dy)
	}
	b.run(func(q *Queue) (Op, error) { return layerNormGrad(q, o, rows, width, epsilon, s) })
	if has('x') {
		got.dx = b.read(o.DX, n, s)
	}
	if has('g') {
		got.dgain = get[float32](b, o.DGain, width)
	}
	if has('s') {
		got.dbias = get[float32](b, o.DBias, width)
	}
	return got, want
}

func TestLayerNormGrad(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, c := range []struct {
				rows, width int
				ask         string
			}{
				{1, 8, "xbgs"}, {70, 40, "xbgs"}, {33, 40, "gs"}, {70, 40, "g"}, {5, 40, "xs"}, {9, 1, "xgs"}, {40, 257, "xbgs"}, {3, 300, "xb"},
				{37, 1000, "xgs"}, {5, 2600, "xbgs"}, {2, 5000, "xbgs"}, {2, 12008, "xg"},
			} {
				got, want := layerNormGradients(b, c.rows, c.width, c.ask, s.store)
				what := fmt.Sprint(s.store, c)
				cudatest.Close(b.t, what+" dx", got.dx, want.dx, 2e-5, 1.01*s.unit+1e-5)
				cudatest.Close(b.t, what+" dgain", got.dgain, want.dgain, 3e-5, 1e-5)
				cudatest.Close(b.t, what+" dbias", got.dbias, want.dbias, 1e-5, 1e-5)
			}
		}
	})
}

func TestLayerNormGradWithoutBarrierIsCaught(t *testing.T) {
	// Without dx no barrier of a later sum stands in for the last.
	for bug, ask := range map[string]string{"layernorm_grad_barrier": "xgs", "layernorm_grad_teams": "gs"} {
		planted(t, "layernorm_grad.cu:"+bug, 3, func(b workbench) bool {
			got, want := layerNormGradients(b, 60, 1000, ask, BF16) // two teams of four warps a block
			_, dx := cudatest.Differs(got.dx, want.dx, 0.01, 0.01)
			_, dgain := cudatest.Differs(got.dgain, want.dgain, 1e-3, 1e-3)
			return dx || dgain
		})
	}
}

func TestLayerNormGainGrad(t *testing.T) {
	onBench(t, func(b workbench) {
		const rows, width = 50, 72
		dy, x, want := random(1, rows*width, BF16), random(2, rows*width, BF16), make([]float32, width)
		ref.LayerNormGainGrad(want, dy, x, 1e-5)
		dgain, pdy, px, work := put(b, make([]float32, width)), b.floats(dy, BF16), b.floats(x, BF16), b.empty(4*cudaplan.Parts(rows)*width)
		b.run(func(q *Queue) (Op, error) { return layerNormGainGrad(q, dgain, pdy, px, work, rows, width, 1e-5, BF16) })
		cudatest.Close(b.t, "dgain", get[float32](b, dgain, width), want, 2e-5, 1e-5)
	})
}

// What is planned for is enough: parts never exceed it, whatever the device.
func TestLayerNormGradFitsItsWorkSpace(t *testing.T) {
	b := func(d compute.DType, shape ...int) compute.Buffer {
		return compute.Buffer{Space: compute.Arena, DType: d, Shape: shape}
	}
	f, x := compute.F32, b(compute.BF16, 100, 24)
	call := compute.Call{Kernel: compute.LayerNormGrad, In: []compute.Buffer{x, x, b(compute.BF16, 24)}, Out: []compute.Buffer{x, b(f, 24), b(f, 24)}}
	if got, want := cudaplan.WorkBytes(&call), int64(2*4*cudaplan.Parts(100)*24); got != want {
		t.Errorf("planned %d bytes, the launch may use %d", got, want)
	}
}

func biasGradient(b workbench, rows, width int, s Store) (got, want []float32) {
	dy := random(1, rows*width, s)
	want = random(2, width, F32)
	db := put(b, want)
	ref.BiasGrad(want, dy)
	pdy, work := b.floats(dy, s), b.empty(4*cudaplan.Parts(rows)*width)
	b.run(func(q *Queue) (Op, error) { return biasGrad(q, db, pdy, work, rows, width, s) })
	return get[float32](b, db, width), want
}

func TestBiasGrad(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, shape := range [][2]int{{1, 1}, {1, 8}, {9, 30}, {100, 32}, {1000, 40}, {70, 1000}, {300, 257}} {
				got, want := biasGradient(b, shape[0], shape[1], s.store)
				cudatest.Close(b.t, fmt.Sprint(s.store, shape), got, want, 3e-5, 1e-5)
			}
		}
	})
}

func TestBiasGradWithoutBarrierIsCaught(t *testing.T) {
	for _, bug := range []string{"column_sums_barrier", "column_sums_add_barrier"} {
		planted(t, "column_sums.cu:"+bug, 3, func(b workbench) bool {
			got, want := biasGradient(b, 300, 64, F32)
			_, differs := cudatest.Differs(got, want, 1e-3, 1e-3)
			return differs
		})
	}
}
