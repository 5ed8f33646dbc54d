package quant

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
)

// copied is a Source of rows that exist.
type copied struct {
	x  []float32
	in int
}

func (c *copied) Row(dst []float32, i int) { copy(dst, c.x[i*c.in:][:c.in]) }

// sameRows compares what products read of two batches.
func sameRows(t *rapid.T, got, want *Rows) {
	if got.n != want.n || got.in != want.in || got.k != want.k {
		t.Fatalf("[%d %d] for %s, expected [%d %d] for %s", got.n, got.in, got.k.level, want.n, want.in, want.k.level)
	}
	if !bytes.Equal(got.codes, want.codes) || !slices.Equal(got.scale, want.scale) || !slices.Equal(got.sum8, want.sum8) || !slices.Equal(got.sum4, want.sum4) {
		t.Fatalf("[%d %d] for %s: other codes, scales or sums", got.n, got.in, got.k.level)
	}
}

// TestRowsFromASource: rows that are computed as they are quantised are those of Set.
func TestRowsFromASource(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	var got, want Rows
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(kernels()).Draw(t, "kernel")
		n, in := rapid.IntRange(0, 40).Draw(t, "n"), rapid.SampledFrom([]int{1, 63, 64, 257, 512, 700, 2048, 2049, 4500}).Draw(t, "in")
		x := normal(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), n*in, 1)
		want.set(k, pool, x, n, in)
		got.setFrom(k, pool, &copied{x, in}, n, in)
		sameRows(t, &got, &want)
	})
}

// TestProductsQuantised: a product that is quantised while it is computed is what Set makes of it, whether or not a group's weights fit
// the cache.
func TestProductsQuantised(t *testing.T) {
	pools := []*par.Pool{nil, par.New(2)}
	defer pools[1].Close()
	var x, got, want Rows
	weights := map[[2]int]*Matrix{}
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(kernels()).Draw(t, "kernel")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		n, out := rapid.SampledFrom([]int{1, 2, 14, 15, 30, 130}).Draw(t, "n"), rapid.SampledFrom([]int{1, 40, 256, 300, 576, 840}).Draw(t, "out")
		f, in := rapid.SampledFrom([]Format{Int8, Int4}).Draw(t, "format"), 300
		if k == best() && rapid.IntRange(0, 9).Draw(t, "wide") == 0 {
			in = groupCodes/ActGroup + 64 // of int8 not fused
		}
		key := [2]int{out, in + int(f)}
		if weights[key] == nil {
			weights[key] = QuantizeAbsMax(pools[1], f, normal(r, out*in, 0.02), out, in)
		}
		w := weights[key]
		e := Epilogue{}
		if rapid.Bool().Draw(t, "bias") {
			e.Bias = normal(r, out, 1)
		}
		if rapid.Bool().Draw(t, "then") {
			e.Then = vec.GELUTanh
		}
		x.set(k, nil, normal(r, n*in, 1), n, in)
		y := make([]float32, n*out)
		Mul(nil, y, &x, w, e)
		want.set(k, nil, y, n, out)
		e.Rows = &got
		Mul(rapid.SampledFrom(pools).Draw(t, "pool"), y, &x, w, e)
		sameRows(t, &got, &want)
	})
}

// TestStoppedProduct: items that begin after Stop says so are left out.
func TestStoppedProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	pool := par.New(2)
	defer pool.Close()
	p := randomProduct(r, Int8, 30, 2048, 64)
	p.e.Base = nil
	for _, at := range []int64{0, 1, 5} {
		var asked, computed atomic.Int64
		p.e.Stop = func() bool { return asked.Add(1) > at }
		p.e.Then = func(y, x []float32) { computed.Add(1) }
		p.run(best(), pool)
		if all, n := asked.Load(), computed.Load(); n != at*30 || all <= at {
			t.Errorf("stopped at item %d of %d: %d rows finished, expected 30 of each before", at, all, n)
		}
	}
}
