package cpu

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute"
	"autodev/internal/rng"
)

func normal(seed uint64, n int) []float32 {
	r := rng.New(seed, "normal")
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func equalBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// Tokens fed in any cutting, to any number of threads, with other sequences beside them, give the bits of Attention over the
// whole sequence. Sequences reach beyond gemm.KC keys, where products over keys are cut.
func TestCachedAttentionIsAttention(t *testing.T) {
	devices := []*Device{New(Options{Threads: 1}), New(Options{Threads: 3}), New(Options{Threads: 8})}
	for _, d := range devices {
		defer d.Close()
	}
	rapid.Check(t, func(t *rapid.T) {
		kv := rapid.IntRange(1, 2).Draw(t, "key heads")
		a := compute.Attr{KVHeads: kv, Heads: kv * rapid.SampledFrom([]int{1, 3, 16}).Draw(t, "group"), HeadDim: rapid.IntRange(1, 20).Draw(t, "head dimension")}
		a.Scale = 1 / math.Sqrt(float64(a.HeadDim))
		a.Seq = rapid.SampledFrom([]int{1, 2, 17, 64, 300, 700, 1100}).Draw(t, "tokens")
		format := rapid.SampledFrom([]CacheFormat{CacheF32, CacheBF16}).Draw(t, "format")
		a.BF16 = format == CacheBF16
		p := packedLayout(a)
		qkv := normal(rapid.Uint64().Draw(t, "seed"), a.Seq*p.width)
		d := devices[0].Kernels()
		want := make([]float32, a.Seq*a.Heads*a.HeadDim)
		if err := d.Attention(want, nil, qkv, make([]int32, a.Seq), [2]int32{}, a, make([]float32, d.AttentionWork(a))); err != nil {
			t.Fatal(err)
		}
		k := rapid.SampledFrom(devices).Draw(t, "device").Kernels()
		length := a.Seq + rapid.IntRange(0, 2000).Draw(t, "room")
		work := make([]float32, k.AttendCachedWork(length, a))
		type sequence struct {
			y     []float32
			cache *Cache
			done  int
		}
		sequences := make([]sequence, rapid.IntRange(1, 2).Draw(t, "sequences"))
		for i := range sequences {
			sequences[i] = sequence{make([]float32, len(want)), NewCache(format, kv, a.HeadDim), 0}
		}
		step := rapid.IntRange(1, max(1, a.Seq/4)).Draw(t, "step")
		for sequences[len(sequences)-1].done < a.Seq {
			var calls []Cached
			for i := range sequences {
				s := &sequences[i]
				m := min(a.Seq-s.done, rapid.SampledFrom([]int{1, step, step + 7*i}).Draw(t, "new tokens"))
				if m == 0 {
					continue
				}
				s.cache.Grow(s.done + m)
				skip := 0
				if rapid.IntRange(0, 3).Draw(t, "some without output") == 0 {
					skip = rapid.IntRange(0, m).Draw(t, "skip")
				}
				width := a.Heads * a.HeadDim
				copy(s.y[s.done*width:][:skip*width], want[s.done*width:])
				calls = append(calls, Cached{Y: s.y[(s.done+skip)*width:][:(m-skip)*width], QKV: qkv[s.done*p.width:][:m*p.width], Cache: s.cache, First: s.done, Skip: skip})
				s.done += m
			}
			if err := k.AttendCached(calls, length, a, work); err != nil {
				t.Fatal(err)
			}
		}
		for i, s := range sequences {
			for j := range s.y[:s.done*a.Heads*a.HeadDim] {
				if math.Float32bits(s.y[j]) != math.Float32bits(want[j]) {
					t.Fatalf("sequence %d, token %d: %v, expected the bits of %v", i, j/(a.Heads*a.HeadDim), s.y[j], want[j])
				}
			}
		}
	})
}

func TestCachedAttentionRefusesWhatDoesNotFit(t *testing.T) {
	k := NewKernels(nil)
	a := compute.Attr{Heads: 2, KVHeads: 1, HeadDim: 2, Scale: 1}
	call := func(tokens, first, capacity, y int) Cached {
		c := NewCache(CacheF32, 1, 2)
		c.Grow(capacity)
		return Cached{Y: make([]float32, y), QKV: make([]float32, 8*tokens), Cache: c, First: first}
	}
	skip := func(n int, c Cached) Cached { c.Skip = n; return c }
	for want, c := range map[string]Cached{
		"tokens 3 to 4, expected them within the cache's 0 and the agreed 9":   call(2, 3, 0, 8),
		"tokens 8 to 9, expected them within the cache's 256 and the agreed 9": call(2, 8, 12, 8),
		"a cache of 2 key heads of 4, expected 1 of 2":                         {Cache: NewCache(CacheBF16, 2, 4)},
		"tokens -1 to 0":          call(2, -1, 4, 8),
		"and 7 of output":         call(2, 0, 4, 7),
		"times 4, less 1":         skip(1, call(2, 0, 4, 8)),
		"times 4, less 3":         skip(3, call(2, 0, 4, 0)),
		"times 4, less -1":        skip(-1, call(2, 0, 4, 12)),
		"sequence 1: 15 elements": {Y: make([]float32, 4), QKV: make([]float32, 15), Cache: call(1, 0, 4, 0).Cache},
	} {
		if err := k.AttendCached([]Cached{call(1, 0, 1, 4), c}, 9, a, make([]float32, k.AttendCachedWork(9, a))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, expected …%s…", err, want)
		}
	}
}

// Sequences beyond one block of keys and queries, which the drawn examples do not reach.
func TestLongAttentionAgainstReference(t *testing.T) {
	if testing.Short() {
		t.Skip("slow reference")
	}
	d := New(Options{Threads: 2})
	defer d.Close()
	r := rng.New(1, "long")
	for _, c := range []struct {
		name              string
		heads, kv, d, seq int
		drop              float64
	}{{"MQA", 4, 1, 8, 700, 0}, {"MHA", 2, 2, 16, 600, 0.1}, {"GQA", 6, 2, 4, 530, 0}} {
		t.Run(c.name, func(t *testing.T) {
			a := compute.Attr{Heads: c.heads, KVHeads: c.kv, HeadDim: c.d, Seq: c.seq, Scale: 1 / math.Sqrt(float64(c.d)), Drop: c.drop}
			w, o := (c.heads+2*c.kv)*c.d, c.heads*c.d
			starts := make([]int32, c.seq)
			for i := c.seq * 4 / 5; i < c.seq; i++ {
				starts[i] = int32(c.seq*4/5) - int32(i%3)*100 // the visible range goes back and forth
			}
			e := build(r, compute.Attention, a, []compute.Buffer{floats(c.seq, w), ints(c.seq), ints(2)}, []compute.Buffer{floats(c.seq, o)}, map[int][]int32{1: starts, 2: {1, 2}})
			e.abs = 2e-5
			e.near(t, e.do(t, d), e.expected(t))
			g := build(r, compute.AttentionGrad, a, []compute.Buffer{floats(c.seq, o), floats(c.seq, w), ints(c.seq), ints(2)}, []compute.Buffer{floats(c.seq, w)}, map[int][]int32{2: starts, 3: {1, 2}})
			g.abs, g.rel = 2e-4, 1e-4
			g.near(t, g.do(t, d), g.expected(t))
		})
	}
}

// A sequence's output and gradient have the same bits alone and in a batch.
func TestAttentionSequencesAreIndependent(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	k := d.Kernels()
	a := compute.Attr{Heads: 6, KVHeads: 2, HeadDim: 5, Seq: 90, Scale: 0.4}
	p := packedLayout(a)
	const batch = 3
	n, o := batch*a.Seq, a.Heads*a.HeadDim
	qkv, dy := normal(1, n*p.width), normal(2, n*o)
	starts := docStarts(rng.New(3, "starts"), n, a.Seq)
	run := func(first, count int) (y, dqkv []float32) {
		m := count * a.Seq
		y, dqkv = make([]float32, m*o), make([]float32, m*p.width)
		at := first * a.Seq
		if err := k.Attention(y, nil, qkv[at*p.width:][:m*p.width], starts[at:][:m], [2]int32{}, a, make([]float32, k.AttentionWork(a))); err != nil {
			t.Fatal(err)
		}
		if err := k.AttentionGrad(dqkv, dy[at*o:][:m*o], qkv[at*p.width:][:m*p.width], starts[at:][:m], [2]int32{}, a, make([]float32, k.AttentionGradWork(m, a))); err != nil {
			t.Fatal(err)
		}
		return y, dqkv
	}
	y, dqkv := run(0, batch)
	for s := range batch {
		one, grad := run(s, 1)
		if !equalBits(one, y[s*a.Seq*o:][:a.Seq*o]) || !equalBits(grad, dqkv[s*a.Seq*p.width:][:a.Seq*p.width]) {
			t.Errorf("sequence %d differs from itself in a batch", s)
		}
	}
}

// One row of every kernel that maps rows to rows has the same bits alone and among others.
func TestRowsAreIndependent(t *testing.T) {
	d := New(Options{Threads: 3})
	defer d.Close()
	k := d.Kernels()
	const n, in, out = 37, 601, 83
	x, dy, w, gain, bias, base := normal(1, n*in), normal(2, n*out), normal(3, out*in), normal(4, in), normal(5, out), normal(6, n*out)
	dyIn := normal(7, n*in)
	targets := ids(rng.New(8, "targets"), n, out)
	for name, c := range map[string]struct {
		width int
		run   func(y []float32, lo, hi int)
	}{
		"Linear": {out, func(y []float32, lo, hi int) {
			k.Linear(y, x[lo*in:hi*in], w, bias, base[lo*out:hi*out], hi-lo, in, out, 0.5, nil)
		}},
		"LinearGradX": {in, func(y []float32, lo, hi int) { k.LinearGradX(y, dy[lo*out:hi*out], w, nil, hi-lo, in, out, 2, nil) }},
		"LayerNorm":   {in, func(y []float32, lo, hi int) { k.LayerNorm(y, x[lo*in:hi*in], gain, gain, hi-lo, in, 1e-5) }},
		"LayerNormGrad": {in, func(y []float32, lo, hi int) {
			k.LayerNormGrad(y, dyIn[lo*in:hi*in], x[lo*in:hi*in], gain, hi-lo, in, 1e-5)
		}},
		"Activation":     {in, func(y []float32, lo, hi int) { k.Activation(y, x[lo*in:hi*in], compute.GELUTanh) }},
		"ActivationGrad": {in, func(y []float32, lo, hi int) { k.ActivationGrad(y, dyIn[lo*in:hi*in], x[lo*in:hi*in], compute.GELUErf) }},
		"TokenNLL": {1, func(y []float32, lo, hi int) {
			if err := k.TokenNLL(y, x[lo*in:hi*in], w, targets[lo:hi], in, out, make([]float32, TokenNLLWork(hi-lo, in, out))); err != nil {
				t.Error(err)
			}
		}},
	} {
		all := make([]float32, n*c.width)
		c.run(all, 0, n)
		for _, part := range [][2]int{{0, 1}, {n - 1, n}, {5, 12}, {3, n}} {
			some := make([]float32, (part[1]-part[0])*c.width)
			c.run(some, part[0], part[1])
			if !equalBits(some, all[part[0]*c.width:part[1]*c.width]) {
				t.Errorf("%s: rows %v differ from themselves among %d", name, part, n)
			}
		}
	}
}

// BenchmarkAttention has the attention of training's cases (a) and (b) and of SantaCoder.
func BenchmarkAttention(b *testing.B) {
	for _, threads := range []int{1, 2} {
		for _, c := range []struct {
			name  string
			a     compute.Attr
			batch int
		}{
			{"MQA4x64x512", compute.Attr{Heads: 4, KVHeads: 1, HeadDim: 64, Seq: 512, Scale: 0.125}, 8},
			{"MHA12x64x512", compute.Attr{Heads: 12, KVHeads: 12, HeadDim: 64, Seq: 512, Scale: 0.125}, 4},
			{"MQA16x128x2048", compute.Attr{Heads: 16, KVHeads: 1, HeadDim: 128, Seq: 2048, Scale: 0.088}, 1},
		} {
			for _, bf16 := range []bool{false, true} {
				a := c.a
				a.BF16 = bf16
				d := New(Options{Threads: threads})
				k, p, n := d.Kernels(), packedLayout(a), a.Seq*c.batch
				qkv, y, starts := normal(1, n*p.width), normal(2, n*a.Heads*a.HeadDim), make([]int32, n)
				// Multiplications and additions of the products below the diagonal.
				flops := 2 * 2 * float64(a.Heads*a.HeadDim) * float64(n) * float64(a.Seq+1) / 2
				name := fmt.Sprintf("%s/%v/threads=%d", c.name, operandFormat(a), threads)
				b.Run("forward/"+name, func(b *testing.B) {
					work := make([]float32, k.AttentionWork(a))
					for b.Loop() {
						if err := k.Attention(y, nil, qkv, starts, [2]int32{}, a, work); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
				b.Run("backward/"+name, func(b *testing.B) {
					work, dqkv := make([]float32, k.AttentionGradWork(n, a)), make([]float32, len(qkv))
					for b.Loop() {
						if err := k.AttentionGrad(dqkv, y, qkv, starts, [2]int32{}, a, work); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(2.5*flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
				d.Close()
			}
		}
	}
}

// filledCache returns a cache of random tokens.
func filledCache(k Kernels, f CacheFormat, a compute.Attr, tokens int) *Cache {
	c, p := NewCache(f, a.KVHeads, a.HeadDim), packedLayout(a)
	c.Grow(tokens)
	call := cachedCall{packed: p, sequences: []Cached{{QKV: normal(2, tokens*p.width), Cache: c}}, most: tokens}
	call.put(k)
	return c
}

func BenchmarkAttendCached(b *testing.B) {
	for _, m := range []struct {
		name string
		a    compute.Attr
	}{
		{"MQA16x128", compute.Attr{Heads: 16, KVHeads: 1, HeadDim: 128, Scale: 0.088}},
		{"MHA12x64", compute.Attr{Heads: 12, KVHeads: 12, HeadDim: 64, Scale: 0.125}},
	} {
		p := packedLayout(m.a)
		for f := range cacheFormatEnd {
			for _, threads := range []int{1, 2} {
				for _, c := range []struct{ before, tokens int }{{1300, 1}, {512, 128}, {1172, 128}} {
					b.Run(fmt.Sprintf("%s/%v/before=%d/tokens=%d/threads=%d", m.name, f, c.before, c.tokens, threads), func(b *testing.B) {
						d := New(Options{Threads: threads})
						defer d.Close()
						k, length := d.Kernels(), 2048
						calls := []Cached{{Y: make([]float32, c.tokens*m.a.Heads*m.a.HeadDim), QKV: normal(1, c.tokens*p.width), Cache: filledCache(k, f, m.a, length), First: c.before}}
						work := make([]float32, k.AttendCachedWork(length, m.a))
						for b.Loop() {
							if err := k.AttendCached(calls, length, m.a, work); err != nil {
								b.Fatal(err)
							}
						}
						flops := 4 * float64(m.a.Heads*m.a.HeadDim*c.tokens) * (float64(c.before) + float64(c.tokens)/2)
						b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
					})
				}
			}
		}
	}
}

// A token's output does not depend on which documents its neighbours in a block belong to: reductions are anchored to
// absolute keys, beyond gemm.KC too.
func TestAttentionIgnoresNeighboursDocuments(t *testing.T) {
	d := New(Options{Threads: 1})
	defer d.Close()
	k := d.Kernels()
	a := compute.Attr{Heads: 2, KVHeads: 1, HeadDim: 4, Seq: 1200, Scale: 0.5}
	p := packedLayout(a)
	qkv := normal(1, a.Seq*p.width)
	r := rng.New(2, "neighbours")
	run := func(starts []int32) []float32 {
		y := make([]float32, a.Seq*a.Heads*a.HeadDim)
		if err := k.Attention(y, nil, qkv, starts, [2]int32{}, a, make([]float32, k.AttentionWork(a))); err != nil {
			t.Fatal(err)
		}
		return y
	}
	starts, others := make([]int32, a.Seq), make([]int32, a.Seq)
	for i := range starts {
		starts[i] = int32(r.IntN(i + 1))
		others[i] = starts[i]
		if i%2 == 1 {
			others[i] = int32(r.IntN(i + 1))
		}
	}
	y, z, o := run(starts), run(others), a.Heads*a.HeadDim
	for i := 0; i < a.Seq; i += 2 {
		if !equalBits(y[i*o:(i+1)*o], z[i*o:(i+1)*o]) {
			t.Fatalf("token %d, which sees %d to itself, changed with its neighbours", i, starts[i])
		}
	}
}

// Scores far beyond what e^x can hold give the probabilities of their differences.
func TestAttentionOfLargeScores(t *testing.T) {
	d := New(Options{Threads: 1})
	defer d.Close()
	r := rng.New(1, "large")
	a := compute.Attr{Heads: 4, KVHeads: 2, HeadDim: 8, Seq: 20, Scale: 1}
	w, o := (a.Heads+2*a.KVHeads)*a.HeadDim, a.Heads*a.HeadDim
	large := func(x []float32) {
		for i := range x { // queries and keys; scores up to about ±2,000
			if i%w < (a.Heads+a.KVHeads)*a.HeadDim {
				x[i] = float32(math.Round(float64(x[i]) * 10)) // products and their sums are exact
			}
		}
	}
	starts := make([]int32, a.Seq)
	e := build(r, compute.Attention, a, []compute.Buffer{floats(a.Seq, w), ints(a.Seq)}, []compute.Buffer{floats(a.Seq, o)}, map[int][]int32{1: starts})
	large(e.in[0].F32)
	e.near(t, e.do(t, d), e.expected(t))
	g := build(r, compute.AttentionGrad, a, []compute.Buffer{floats(a.Seq, o), floats(a.Seq, w), ints(a.Seq)}, []compute.Buffer{floats(a.Seq, w)}, map[int][]int32{2: starts})
	large(g.in[1].F32)
	g.abs, g.rel = 1e-4, 1e-4
	g.near(t, g.do(t, d), g.expected(t))
}
