package cpu

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"autodev/compute"
	"autodev/compute/ref"
)

// cachedOutputs feeds tokens in pieces of the given length and returns the outputs.
func cachedOutputs(t rapid.TB, k Kernels, c *Cache, first, step int, qkv []float32, a compute.Attr, length int) []float32 {
	t.Helper()
	p := packedLayout(a)
	n := len(qkv) / p.width
	y := make([]float32, n*a.Heads*a.HeadDim)
	work := make([]float32, k.AttendCachedWork(length, a))
	for i := range work {
		work[i] = float32(math.NaN())
	}
	for at := 0; at < n; at += step {
		m := min(step, n-at)
		c.Grow(first + at + m)
		call := Cached{Y: y[at*a.Heads*a.HeadDim:][:m*a.Heads*a.HeadDim], QKV: qkv[at*p.width:][:m*p.width], Cache: c, First: first + at}
		if err := k.AttendCached([]Cached{call}, length, a, work); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

// begin makes c, which is empty, begin with the first tokens of another cache: it shares whole blocks and copies the rest.
func (c *Cache) begin(from *Cache, tokens int) {
	whole := tokens / BlockTokens
	for j := range whole {
		c.Add(from.Block(j))
	}
	if rest := tokens % BlockTokens; rest > 0 {
		c.Grow(tokens)
		c.CopyTokens(whole, from.Block(whole), rest)
	}
}

// In every format a token has the same bits however the sequence was cut, whatever the threads, and after going back.
func TestCacheFormatsKeepTokensBits(t *testing.T) {
	one, three := New(Options{Threads: 1}), New(Options{Threads: 3})
	defer one.Close()
	defer three.Close()
	rapid.Check(t, func(t *rapid.T) {
		kv := rapid.IntRange(1, 2).Draw(t, "key heads")
		a := compute.Attr{KVHeads: kv, Heads: kv * rapid.SampledFrom([]int{1, 3, 16}).Draw(t, "group"), HeadDim: rapid.SampledFrom([]int{1, 7, 33, 64}).Draw(t, "head dimension")}
		a.Scale = 1 / math.Sqrt(float64(a.HeadDim))
		n := rapid.SampledFrom([]int{1, 31, 257, 290}).Draw(t, "tokens")
		qkv := normal(rapid.Uint64().Draw(t, "seed"), n*packedLayout(a).width)
		for f := range cacheFormatEnd {
			whole := NewCache(f, a.KVHeads, a.HeadDim)
			want := cachedOutputs(t, one.Kernels(), whole, 0, n, qkv, a, n)
			cut := NewCache(f, a.KVHeads, a.HeadDim)
			k := rapid.SampledFrom([]*Device{one, three}).Draw(t, "device").Kernels()
			step := rapid.SampledFrom([]int{1, 2, 5, 33, 100}).Draw(t, "step")
			if got := cachedOutputs(t, k, cut, 0, step, qkv, a, n+300); !equalBits(got, want) {
				t.Fatalf("%v: pieces of %d tokens differ from %d at once", f, step, n)
			}
			// Half of it again, over what is there, and the same in a copy of the prefix.
			back := rapid.IntRange(0, n).Draw(t, "prefix")
			width, out := packedLayout(a).width, a.Heads*a.HeadDim
			fork := NewCache(f, a.KVHeads, a.HeadDim)
			fork.begin(cut, back)
			for name, c := range map[string]*Cache{"after going back": cut, "after a copied prefix": fork} {
				if got := cachedOutputs(t, k, c, back, step, qkv[back*width:], a, n); !equalBits(got, want[back*out:]) {
					t.Fatalf("%v: tokens from %d on differ %s", f, back, name)
				}
			}
		}
	})
}

// The formats' errors against float64, for keys and values of very different sizes.
func TestCacheFormatsAgainstReference(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	for _, a := range []compute.Attr{{Heads: 8, KVHeads: 1, HeadDim: 128}, {Heads: 6, KVHeads: 2, HeadDim: 40}, {Heads: 3, KVHeads: 3, HeadDim: 64}} {
		a.Seq, a.Scale = 280, 1/math.Sqrt(float64(a.HeadDim))
		p := packedLayout(a)
		qkv := normal(7, a.Seq*p.width)
		for i := range qkv {
			if i%p.width >= (a.Heads+a.KVHeads)*a.HeadDim {
				qkv[i] *= float32(math.Pow(2, float64(i/p.width%9)-4)) // values of a token are large or small together
			}
		}
		want := make([]float32, a.Seq*a.Heads*a.HeadDim)
		if err := ref.Attention(want, qkv, make([]int32, a.Seq), [2]int32{}, a); err != nil {
			t.Fatal(err)
		}
		for f, limit := range map[CacheFormat]float64{CacheF32: 2e-6, CacheBF16: 1e-2, CacheInt8: 2e-2} {
			got := cachedOutputs(t, d.Kernels(), NewCache(f, a.KVHeads, a.HeadDim), 0, 100, qkv, a, a.Seq)
			var off, size float64
			for i := range got {
				off += math.Pow(float64(got[i]-want[i]), 2)
				size += math.Pow(float64(want[i]), 2)
			}
			if e := math.Sqrt(off / size); !(e < limit) {
				t.Errorf("%d heads, %d key heads of %d: %v: relative error %.2g, expected below %g", a.Heads, a.KVHeads, a.HeadDim, f, e, limit)
			} else {
				t.Logf("%d heads, %d key heads of %d: %v: relative error %.2g", a.Heads, a.KVHeads, a.HeadDim, f, e)
			}
		}
	}
}

func TestCacheBytes(t *testing.T) {
	for f, perToken := range map[CacheFormat]int{CacheF32: 2 * 128 * 4, CacheBF16: 2 * 128 * 2, CacheInt8: 2 * (128 + 4)} {
		c := NewCache(f, 1, 128)
		if c.Bytes() != 0 || c.BytesPerToken() != perToken {
			t.Errorf("%v: %d bytes, %d a token; expected none and %d", f, c.Bytes(), c.BytesPerToken(), perToken)
		}
		c.Grow(300)
		if c.Bytes() != 512*perToken || c.Capacity() != 512 {
			t.Errorf("%v: %d bytes for %d tokens, expected %d for 512", f, c.Bytes(), c.Capacity(), 512*perToken)
		}
		if parsed, err := ParseCacheFormat(f.String()); err != nil || parsed != f {
			t.Errorf("%v is parsed as %v, %v", f, parsed, err)
		}
	}
	if _, err := ParseCacheFormat("int2"); err == nil {
		t.Error("int2 is a format")
	}
}

// A prefix may be copied while its owner appends: under the race detector this is the test of it.
func TestPrefixIsCopiedWhileTheSequenceGrows(t *testing.T) {
	a := compute.Attr{Heads: 2, KVHeads: 1, HeadDim: 34, Scale: 0.2}
	p := packedLayout(a)
	qkv := normal(3, 100*p.width)
	for f := range cacheFormatEnd {
		for _, prefix := range []int{1, 33, 40} {
			k := NewKernels(nil)
			c, copied := NewCache(f, 1, a.HeadDim), NewCache(f, 1, a.HeadDim)
			c.Grow(100)
			want := cachedOutputs(t, k, NewCache(f, 1, a.HeadDim), 0, 100, qkv, a, 100)
			cachedOutputs(t, k, c, 0, prefix, qkv[:prefix*p.width], a, 100)
			var wait sync.WaitGroup
			wait.Go(func() { copied.begin(c, prefix) })
			cachedOutputs(t, k, c, prefix, 7, qkv[prefix*p.width:], a, 100)
			wait.Wait()
			out := a.Heads * a.HeadDim
			if got := cachedOutputs(t, k, copied, prefix, 1, qkv[prefix*p.width:], a, 100); !equalBits(got, want[prefix*out:]) {
				t.Errorf("%v: a copied prefix of %d tokens is another", f, prefix)
			}
		}
	}
}

// Integers are the nearest to the number over its scale, and extremes survive.
func TestQuantize(t *testing.T) {
	for _, c := range []struct {
		in    []float32
		scale float32
		want  []int8
	}{
		{[]float32{0, 0}, 0, []int8{0, 0}},
		{[]float32{127, -127, 63.5, 0.49}, 1, []int8{127, -127, 64, 0}},
		{[]float32{-2, 1, 0.5}, 2.0 / 127, []int8{-127, 64, 32}},
		{[]float32{1e-38, 0}, 0, []int8{0, 0}},
		{[]float32{math.MaxFloat32, -math.MaxFloat32}, math.MaxFloat32 / 127, []int8{127, -127}},
	} {
		got := make([]int8, len(c.in))
		if scale := (layout{CacheInt8, len(c.in)}).quantize(got, c.in, func(d int) int { return d }); scale != c.scale || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v: %v times %v, expected %v times %v", c.in, got, scale, c.want, c.scale)
		}
	}
}

// What attention gives in bfloat16 is what float64 gives on rounded operands, but for the rounding of probabilities.
func TestAttentionInBFloat16AgainstReference(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	k := d.Kernels()
	for _, a := range []compute.Attr{
		{Heads: 4, KVHeads: 1, HeadDim: 64, Seq: 270}, {Heads: 3, KVHeads: 3, HeadDim: 20, Seq: 290, Drop: 0.1}, {Heads: 16, KVHeads: 1, HeadDim: 9, Seq: 37}, {Heads: 6, KVHeads: 2, HeadDim: 33, Seq: 1, Drop: 0.2},
	} {
		a.Scale, a.BF16 = 1/math.Sqrt(float64(a.HeadDim)), true
		p := packedLayout(a)
		const batch = 2
		n, o := batch*a.Seq, a.Heads*a.HeadDim
		qkv, dy, starts, key := normal(1, n*p.width), normal(2, n*o), make([]int32, n), [2]int32{3, 4}
		for i := range starts {
			starts[i] = int32(i % a.Seq / 3)
		}
		y, wantY := make([]float32, n*o), make([]float32, n*o)
		dqkv, want := make([]float32, len(qkv)), make([]float32, len(qkv))
		if err := ref.Attention(wantY, qkv, starts, key, a); err != nil {
			t.Fatal(err)
		}
		if err := ref.AttentionGrad(want, dy, qkv, starts, key, a); err != nil {
			t.Fatal(err)
		}
		if err := k.Attention(y, nil, qkv, starts, key, a, make([]float32, k.AttentionWork(a))); err != nil {
			t.Fatal(err)
		}
		if err := k.AttentionGrad(dqkv, dy, qkv, starts, key, a, make([]float32, k.AttentionGradWork(n, a))); err != nil {
			t.Fatal(err)
		}
		for name, pair := range map[string][2][]float32{"output": {y, wantY}, "gradient": {dqkv, want}} {
			var off, size float64
			for i := range pair[0] {
				off += math.Pow(float64(pair[0][i]-pair[1][i]), 2)
				size += math.Pow(float64(pair[1][i]), 2)
			}
			if e := math.Sqrt(off / size); !(e < 4e-3) {
				t.Errorf("%+v: %s: relative error %.2g", a, name, e)
			}
		}
	}
}

// FuzzCache cuts sequences of any shape into any pieces.
func FuzzCache(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint8(2), uint8(8), uint16(300), uint8(1))
	f.Add(uint64(2), uint8(3), uint8(1), uint8(33), uint16(20), uint8(7))
	f.Fuzz(func(t *testing.T, seed uint64, kv, group, dim uint8, tokens uint16, step uint8) {
		a := compute.Attr{KVHeads: 1 + int(kv%4), HeadDim: 1 + int(dim%80), Scale: 0.25}
		a.Heads = a.KVHeads * (1 + int(group%20))
		n, s := 1+int(tokens%600), 1+int(step)
		qkv := normal(seed, n*packedLayout(a).width)
		k := NewKernels(nil)
		for format := range cacheFormatEnd {
			want := cachedOutputs(t, k, NewCache(format, a.KVHeads, a.HeadDim), 0, n, qkv, a, n)
			if got := cachedOutputs(t, k, NewCache(format, a.KVHeads, a.HeadDim), 0, s, qkv, a, n); !equalBits(got, want) {
				t.Fatalf("%v: pieces of %d tokens differ", format, s)
			}
		}
	})
}

// TestAttendCachedAllocatesNothing: neither one more token nor a part of a prompt allocates, but for memory that later calls use
// again; nor does any other kernel that a token needs.
func TestAttendCachedAllocatesNothing(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	k := d.Kernels()
	for _, a := range []compute.Attr{{Heads: 4, KVHeads: 1, HeadDim: 40, Scale: 0.15}, {Heads: 12, KVHeads: 12, HeadDim: 16, Scale: 0.25}} {
		p := packedLayout(a)
		work := make([]float32, k.AttendCachedWork(700, a))
		for f := range cacheFormatEnd {
			cache := filledCache(k, f, a, 700)
			for _, n := range []int{1, 70} {
				calls := []Cached{{Y: make([]float32, n*a.Heads*a.HeadDim), QKV: normal(1, n*p.width), Cache: cache, First: 600}}
				perRun := testing.AllocsPerRun(50, func() {
					if err := k.AttendCached(calls, 700, a, work); err != nil {
						t.Error(err)
					}
				})
				// A collection in between may empty what is kept.
				if perRun > 1 {
					t.Errorf("%v, %d key heads, %d tokens: %v allocations", f, a.KVHeads, n, perRun)
				}
			}
		}
	}
	x, gain := normal(3, 2*64), normal(4, 64)
	perRun := testing.AllocsPerRun(50, func() {
		k.LayerNorm(x, x, gain, gain, 2, 64, 1e-5)
		k.Add(x, x, x)
		k.Activation(x, x, compute.GELUTanh)
	})
	if perRun > 0 {
		t.Errorf("LayerNorm, Add and Activation: %v allocations", perRun)
	}
}
