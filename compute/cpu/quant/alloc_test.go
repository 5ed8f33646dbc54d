package quant

import (
	"math/rand/v2"
	"testing"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
)

// TestNoAllocations: neither quantising activations nor a product allocates, but for memory that later calls use again.
func TestNoAllocations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	pool := par.New(2)
	defer pool.Close()
	const out, in = 200, 320 // a row's end is padded
	for _, f := range []Format{Int8, Int4} {
		w := QuantizeAbsMax(pool, f, normal(r, out*(in-7), 1), out, in-7)
		for _, n := range []int{1, 60} {
			x, y, bias := normal(r, n*(in-7), 1), make([]float32, n*out), normal(r, out, 1)
			for _, k := range kernels() {
				var rows, next Rows
				source := &copied{x, in - 7}
				perRun := testing.AllocsPerRun(50, func() {
					rows.set(k, pool, x, n, in-7)
					Mul(pool, y, &rows, w, Epilogue{Bias: bias})
					Mul(pool, y, &rows, w, Epilogue{Bias: bias, Then: vec.GELUTanh})
					Mul(pool, y, &rows, w, Epilogue{Bias: bias, Base: y})
					Mul(pool, y, &rows, w, Epilogue{Bias: bias, Rows: &next})
					rows.setFrom(k, pool, source, n, in-7)
				})
				// A collection in between may empty what is kept.
				if perRun > 1 {
					t.Errorf("%s, %s, %d rows: %v allocations", k.level, f, n, perRun)
				}
			}
		}
	}
}
