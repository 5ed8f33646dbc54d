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
// returns attention's output of each sequence. Every other time attention puts the tokens into the cache itself.
func feed(t testing.TB, d *Device, c cachedCall, qkv [][]float32, steps []int) (ys [][]float32, err error) {
	t.Helper()
	width, out, sequences := (c.Heads+2*c.KVHeads)*c.HeadDim, c.Heads*c.HeadDim, len(qkv)
	c.rows = sequences*slices.Max(steps) + 3
	c.tiles = c.rows
	ys = make([][]float32, sequences)
	err = d.Do(func(q *Queue) error {
		words := func(n int) int { return n * c.store.Size() / 2 }
		x, y := alloc[uint16](t, q, words(c.rows*width)), alloc[uint16](t, q, words(c.rows*out))
		// Pages lie in no order.
		table := make([]int32, sequences*c.pages)
		for i := range table {
			table[i] = int32((i*7 + 3) % len(table))
		}
		for len(table)%7 == 0 {
			t.Fatal("a table whose length 7 divides")
		}
		o := cachedOperands{
			pages: alloc[uint8](t, q, len(table)*int(c.pageBytes())), table: upload(t, q, table), sequence: alloc[int32](t, q, c.rows),
			position: alloc[int32](t, q, c.rows), tiles: alloc[int32](t, q, 2*c.tiles), work: alloc[uint8](t, q, int(c.workBytes())), counts: alloc[uint8](t, q, int(c.countBytes())),
		}
		if err := q.Fill(o.counts, 0, c.countBytes()); err != nil {
			return err
		}
		put, err := appendCache(q, x, c, o)
		if err != nil {
			return err
		}
		launches, err := attendCached(q, y, x, c, o)
		if err != nil {
			return err
		}
		starts := alloc[int32](t, q, c.rows)
		o.starts = starts
		together, err := attendCached(q, y, x, c, o)
		if err != nil {
			return err
		}
		done := make([]int, sequences)
		for step := 0; ; step++ {
			// A row before the first and those behind the last are none.
			batch, sequence, position, begins, tiles := make([]float32, width), []int32{-1}, []int32{0}, []int32{0}, make([]int32, 0, 2*c.tiles)
			first := make([]int, sequences)
			for i := range qkv {
				b := (i + step) % sequences
				first[b] = len(sequence)
				n := min(steps[(step+b)%len(steps)], len(qkv[b])/width-done[b])
				batch = append(batch, qkv[b][done[b]*width:(done[b]+n)*width]...)
				for j := range n {
					if j%c.tileRows() == 0 {
						tiles = append(tiles, int32(len(sequence)), int32(min(c.tileRows(), n-j)))
					}
					sequence, position, begins = append(sequence, int32(b)), append(position, int32(done[b]+j)), append(begins, int32(first[b]))
				}
				done[b] += n
			}
			n := len(sequence)
			if n == 1 {
				return nil
			}
			for len(sequence) < c.rows {
				sequence, position, begins = append(sequence, -1), append(position, 0), append(begins, int32(len(begins)))
			}
			tiles = tiles[:cap(tiles)]
			if err := errors.Join(Write(q, x, encode(batch, c.store)), Write(q, o.sequence, sequence), Write(q, o.position, position), Write(q, o.tiles, tiles), Write(q, starts, begins)); err != nil {
				return err
			}
			run := append(Sequence{put}, launches...)
			if step%2 == 1 {
				run = together
			}
			if err := errors.Join(run.Enqueue(q), q.Sync()); err != nil {
				return err
			}
			got := decode(download[uint16](t, q, y, words(c.rows*out)), c.store)
			for i := range got {
				if row := i / out; sequence[row] < 0 && got[i] != 0 {
					t.Fatalf("row %d, which is no token, is %v", row, got[i])
				}
			}
			for b := range qkv {
				n := done[b]*out - len(ys[b])
				ys[b] = append(ys[b], got[first[b]*out:][:n]...)
			}
		}
	})
	return ys, err
}

// cachedProblem has room for 5 pages a sequence.
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

// A row that reads another sequence's pages is seen.
func TestCachedAttentionPlantedBug(t *testing.T) {
	c, qkv := cachedProblem(4, 1, 16, F32, 40, 30)
	want := make([]float32, 30*c.Heads*c.HeadDim)
	a := c.Attr
	a.Seq = 30
	if err := ref.Attention(want, qkv[1], make([]int32, a.Seq), [2]int32{}, a); err != nil {
		t.Fatal(err)
	}
	planted(t, "attention_cached.cu:cache_table_row", 5, func(b workbench) bool {
		ys, err := feed(b.t, b.d, c, qkv, []int{20})
		if err != nil {
			return true
		}
		_, differs := cudatest.Differs(ys[1], want, 1e-4, 0)
		return differs
	})
}

// A block that takes itself for the last, and threads that read parts before they are there, are seen.
func TestCachedAttentionMergePlantedBug(t *testing.T) {
	c, qkv := cachedProblem(16, 1, 64, BF16, 300)
	want := make([]float32, 300*c.Heads*c.HeadDim)
	a := c.Attr
	a.Seq = 300
	if err := ref.Attention(want, qkv[0], make([]int32, a.Seq), [2]int32{}, a); err != nil {
		t.Fatal(err)
	}
	for _, bug := range []string{"attention_cached_last", "attention_cached_merge_barrier"} {
		planted(t, "attention_cached_tensor.cu:"+bug, 3, func(b workbench) bool {
			ys, err := feed(b.t, b.d, c, qkv, []int{60})
			if err != nil {
				return true
			}
			_, differs := cudatest.Differs(ys[0], want, 0x1p-7, 0x1p-6)
			return differs
		})
	}
}
