package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

// feed puts sequences of tokens through a cache, steps[i] new tokens of each at a time (as many as are left, possibly none), and
// returns attention's output of each sequence.
func feed(t testing.TB, d *Device, c cachedCall, qkv [][]float32, steps []int) (ys [][]float32, err error) {
	t.Helper()
	width, out := (c.Heads+2*c.KVHeads)*c.HeadDim, c.Heads*c.HeadDim
	c.sequences, c.most = len(qkv), slices.Max(steps)
	ys = make([][]float32, len(qkv))
	err = d.Do(func(q *Queue) error {
		words := func(n int) int { return n * c.store.Size() / 2 }
		rows := c.sequences * c.most
		x, y := alloc[uint16](t, q, words(rows*width)), alloc[uint16](t, q, words(rows*out))
		// Pages lie in no order; the last belongs to nobody.
		table := make([]int32, c.sequences*c.pages)
		for i := range table {
			table[i] = int32((i*7 + 3) % len(table))
		}
		for len(table)%7 == 0 {
			t.Fatal("a table whose length 7 divides")
		}
		o := cachedOperands{
			pages: alloc[uint8](t, q, len(table)*int(c.pageBytes())), table: upload(t, q, table), first: alloc[int32](t, q, c.sequences+1),
			length: alloc[int32](t, q, c.sequences), work: alloc[uint8](t, q, int(c.workBytes())),
		}
		put, err := appendCache(q, x, c, o)
		if err != nil {
			return err
		}
		launches, err := attendCached(q, y, x, c, o)
		if err != nil {
			return err
		}
		done := make([]int, c.sequences)
		for step := 0; ; step++ {
			var batch []float32
			first, length := []int32{0}, make([]int32, c.sequences)
			for b := range qkv {
				n := min(steps[(step+b)%len(steps)], len(qkv[b])/width-done[b])
				batch = append(batch, qkv[b][done[b]*width:(done[b]+n)*width]...)
				done[b] += n
				first = append(first, first[b]+int32(n))
				length[b] = int32(done[b])
			}
			if len(batch) == 0 {
				return nil
			}
			if err := errors.Join(Write(q, x, encode(batch, c.store)), Write(q, o.first, first), Write(q, o.length, length)); err != nil {
				return err
			}
			for _, l := range append(Sequence{put}, launches...) {
				if err := l.Enqueue(q); err != nil {
					return err
				}
			}
			if err := q.Sync(); err != nil {
				return err
			}
			got := decode(download[uint16](t, q, y, words(int(first[c.sequences])*out)), c.store)
			for b := range qkv {
				ys[b] = append(ys[b], got[int(first[b])*out:int(first[b+1])*out]...)
			}
		}
	})
	return ys, err
}

func cachedProblem(heads, kv, dim int, s Store, lengths ...int) (c cachedCall, qkv [][]float32) {
	c = cachedCall{Attr: compute.Attr{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: 1 / math.Sqrt(float64(dim))}, store: s, pages: 5}
	for i, n := range lengths {
		qkv = append(qkv, random(uint64(20+i), n*(heads+2*kv)*dim, s))
	}
	return c, qkv
}

func (c cachedCall) checkFed(t *testing.T, ys, qkv [][]float32) {
	t.Helper()
	tolerance, _ := attentionProblem{store: c.store}.tolerance()
	for b := range qkv {
		a := c.Attr
		a.Seq = len(ys[b]) / (c.Heads * c.HeadDim)
		want := make([]float32, len(ys[b]))
		if err := ref.Attention(want, qkv[b], make([]int32, a.Seq), [2]int32{}, a); err != nil {
			t.Fatal(err)
		}
		cudatest.Close(t, fmt.Sprintf("%v, %d/%d heads of %d, sequence %d of %d tokens", c.store, c.Heads, c.KVHeads, c.HeadDim, b, a.Seq), ys[b], want, tolerance, 0x1p-7)
	}
}

func TestCachedAttention(t *testing.T) {
	c, qkv := cachedProblem(16, 1, 64, BF16, 200, 129, 1)
	eachSeed(t, func(t *testing.T, d *Device) {
		ys, err := feed(t, d, c, qkv, []int{40, 1, 8})
		if err != nil {
			t.Fatal(err)
		}
		c.checkFed(t, ys, qkv)
	})
}

// A token's bits depend neither on how many come at a time, nor on other sequences, nor on the room there is.
func TestCachedAttentionBits(t *testing.T) {
	d := openAny(t, 2)
	for _, s := range []Store{BF16, F32} {
		c, qkv := cachedProblem(6, 2, 32, s, 150, 70)
		want, err := feed(t, d, c, qkv, []int{64})
		if err != nil {
			t.Fatal(err)
		}
		c.checkFed(t, want, qkv)
		c.pages = 3
		for _, steps := range [][]int{{7, 3}, {50, 1, 2}} {
			got, err := feed(t, d, c, qkv[:1], steps)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got[0], want[0]) {
				t.Errorf("%v: fed by %d tokens, other bits than by 64 beside another sequence", s, steps)
			}
		}
	}
}

func TestCachedAttentionShapes(t *testing.T) {
	d := openAny(t, 3)
	for _, p := range []struct {
		heads, kv, dim int
		store          Store
	}{{16, 1, 128, BF16}, {3, 3, 80, F16}, {20, 2, 16, BF16}, {2, 1, 256, BF16}, {4, 2, 20, F32}, {2, 1, 130, F16}, {2, 2, 12, BF16}} {
		c, qkv := cachedProblem(p.heads, p.kv, p.dim, p.store, 140, 17)
		ys, err := feed(t, d, c, qkv, []int{70, 5})
		if err != nil {
			t.Fatal(err)
		}
		c.checkFed(t, ys, qkv)
	}
}
