package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cudaplan"
	"autodev/compute/ref"
)

// attentionProblem is a call and its operands.
type attentionProblem struct {
	compute.Attr
	n        int
	store    Store
	enough   int // what attentionTiles of gradients is told, unless it is 0
	qkv, dy  []float32
	docStart []int32
}

var attentionKey = [2]int32{7, -9}

func newAttentionProblem(batch, seq, heads, kv, dim int, drop float64, s Store) attentionProblem {
	p := attentionProblem{Attr: compute.Attr{Heads: heads, KVHeads: kv, HeadDim: dim, Seq: seq, Scale: 1 / math.Sqrt(float64(dim)), Drop: drop, Salt: 5}, n: batch * seq, store: s}
	p.qkv = random(11, p.n*(heads+2*kv)*dim, s)
	p.dy = random(12, p.n*heads*dim, s)
	p.docStart = make([]int32, p.n)
	r := rand.New(rand.NewPCG(uint64(seq), 3))
	for i := range p.docStart {
		switch t := i % seq; {
		case t == 0: // 0
		case r.IntN(60) == 0:
			p.docStart[i] = int32(t)
		default:
			p.docStart[i] = p.docStart[i-1]
		}
	}
	return p
}

func (p attentionProblem) String() string {
	return fmt.Sprintf("%v %d×%d tokens, %d/%d heads of %d, drop %v", p.store, p.n/p.Seq, p.Seq, p.Heads, p.KVHeads, p.HeadDim, p.Drop)
}

// run returns y and dqkv of the device.
func (p attentionProblem) run(t testing.TB, d *Device) (y, dqkv []float32, err error) {
	t.Helper()
	err = d.Do(func(q *Queue) error {
		words := func(n int) int { return n * p.store.Size() / 2 }
		qkv, dy := upload(t, q, encode(p.qkv, p.store)), upload(t, q, encode(p.dy, p.store))
		docStart, key := upload(t, q, p.docStart), upload(t, q, attentionKey[:])
		out, lse, grad := alloc[uint16](t, q, words(len(p.dy))), alloc[float32](t, q, p.n*p.Heads), alloc[uint16](t, q, words(len(p.qkv)))
		dtype := compute.BF16
		if p.store == F32 {
			dtype = compute.F32
		}
		buffer := func(d compute.DType, shape ...int) compute.Buffer {
			return compute.Buffer{Space: compute.Arena, DType: d, Shape: shape}
		}
		width := (p.Heads + 2*p.KVHeads) * p.HeadDim
		call := compute.Call{Kernel: compute.AttentionGrad, Attr: p.Attr, Out: []compute.Buffer{buffer(dtype, p.n, width)},
			In: []compute.Buffer{buffer(dtype, p.n, p.Heads*p.HeadDim), buffer(dtype, p.n, width), buffer(compute.I32, p.n), buffer(compute.I32, 2)}}
		if err := call.Check(); err != nil {
			return err
		}
		work := alloc[uint8](t, q, int(cudaplan.WorkBytes(&call)))
		forward, err := attention(q, out, lse, qkv, docStart, key, p.n, p.Attr, p.store)
		if err != nil {
			return err
		}
		backward, err := attentionGrad(q, grad, dy, out, lse, qkv, docStart, key, work, p.n, p.Attr, p.store)
		if p.enough > 0 && err == nil {
			var c attentionCall
			if c, err = newAttentionCall(q, p.n, p.Attr, p.store); err == nil {
				if c.takesWarpgroups(q) {
					c = c.warpgroupGradients()
				}
				c.tiles.enough = p.enough
				backward, err = c.gradients(q, grad, dy, out, lse, qkv, docStart, key, work)
			}
		}
		if err != nil {
			return err
		}
		for _, l := range append(Sequence{forward}, backward...) {
			if err := l.Enqueue(q); err != nil {
				return err
			}
		}
		if err := q.Sync(); err != nil {
			return err
		}
		y = decode(download[uint16](t, q, out, words(len(p.dy))), p.store)
		dqkv = decode(download[uint16](t, q, grad, words(len(p.qkv))), p.store)
		return nil
	})
	return y, dqkv, err
}

// want returns y and dqkv of the yardstick.
func (p attentionProblem) want(t testing.TB) (y, dqkv []float32) {
	t.Helper()
	y, dqkv = make([]float32, len(p.dy)), make([]float32, len(p.qkv))
	if err := errors.Join(ref.Attention(y, p.qkv, p.docStart, attentionKey, p.Attr), ref.AttentionGrad(dqkv, p.dy, p.qkv, p.docStart, attentionKey, p.Attr)); err != nil {
		t.Fatal(err)
	}
	return y, dqkv
}

// tolerance is that of y and of dqkv, each absolute; values are around 1 and probabilities are rounded once on their way.
func (p attentionProblem) tolerance() (y, dqkv float64) {
	switch p.store {
	case BF16:
		return 0x1p-6, 0x1p-4
	case F16:
		return 0x1p-9, 0x1p-7
	}
	return 3e-6, 2e-5
}

// check runs the problem, compares and returns what the device gave.
func (p attentionProblem) check(t *testing.T, d *Device) (y, dqkv []float32) {
	t.Helper()
	y, dqkv, err := p.run(t, d)
	if err != nil {
		t.Fatal(p, err)
	}
	wantY, wantGrad := p.want(t)
	tolY, tolGrad := p.tolerance()
	unit := map[Store]float64{F32: 0x1p-24, BF16: 0x1p-8, F16: 0x1p-11}[p.store]
	cudatest.Close(t, fmt.Sprint(p, ": y"), y, wantY, tolY, 2*unit)
	cudatest.Close(t, fmt.Sprint(p, ": dqkv"), dqkv, wantGrad, tolGrad, 4*unit)
	return y, dqkv
}

// eachAttention runs f under each schedule on a device with kernels of compute capability 9.0, where it has them, and on one without.
func eachAttention(t *testing.T, f func(t *testing.T, d *Device)) {
	t.Helper()
	for _, no := range []bool{false, true} {
		t.Run(fmt.Sprint("warpgroups ", !no), func(t *testing.T) {
			cudatest.Seeds(t, func(t *testing.T, cuda, cublas string) {
				f(t, openDevice(t, Options{CUDA: cuda, CublasLt: cublas, NoWarpgroups: no}))
			})
		})
	}
}

// The results are near the yardstick's and have the same bits under all schedules.
func TestAttention(t *testing.T) {
	problems := []attentionProblem{
		newAttentionProblem(2, 63, 4, 1, 64, 0, BF16),
		newAttentionProblem(1, 200, 2, 1, 128, 0, BF16),
		newAttentionProblem(1, 65, 3, 1, 32, 0.1, F32),
	}
	first := map[bool][][2][]float32{false: make([][2][]float32, len(problems)), true: make([][2][]float32, len(problems))}
	eachAttention(t, func(t *testing.T, d *Device) {
		first := first[d.options.NoWarpgroups]
		for i, p := range problems {
			y, dqkv := p.check(t, d)
			if first[i][0] == nil {
				first[i] = [2][]float32{y, dqkv}
			}
			if !slices.Equal(y, first[i][0]) || !slices.Equal(dqkv, first[i][1]) {
				t.Errorf("%v: other bits than under the first schedule", p)
			}
		}
	})
}

// Cards without tensor cores for the store run the scalar kernels.
func TestAttentionOnOldCards(t *testing.T) {
	d, _ := onStandin(t, "", map[string]int64{"capability": 70})
	newAttentionProblem(1, 65, 2, 1, 64, 0, F16).check(t, d)
	c, qkv := cachedProblem(2, 1, 64, F16, 70)
	ys, err := feed(t, d, c, qkv, []int{30})
	if err != nil {
		t.Fatal(err)
	}
	c.checkFed(t, ys, qkv)
}

func TestAttentionRefuses(t *testing.T) {
	d := openAny(t, 0)
	good := compute.Attr{Heads: 4, KVHeads: 2, HeadDim: 64, Seq: 8, Scale: 1}
	for name, change := range map[string]func(a *compute.Attr){
		"heads":     func(a *compute.Attr) { a.Heads = 3 },
		"dimension": func(a *compute.Attr) { a.HeadDim = 264 },
		"scale":     func(a *compute.Attr) { a.Scale = 0 },
		"sequence":  func(a *compute.Attr) { a.Seq = 5 },
		"dropout":   func(a *compute.Attr) { a.Drop = 1 },
		"key":       func(a *compute.Attr) { a.Drop = 0.5 },
		"length":    func(a *compute.Attr) { a.Heads, a.Seq = 1<<24, 16 },
	} {
		t.Run(name, func(t *testing.T) {
			a := good
			change(&a)
			err := d.Do(func(q *Queue) error {
				_, err := attention(q, 64, 0, 64, 64, 0, 16, a, BF16)
				return err
			})
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
		})
	}
}

// Every width of tiles, lengths around the tiles' ends, all ways in which heads share keys, documents that begin within tiles.
func TestAttentionShapes(t *testing.T) {
	d := openAny(t, 1)
	for _, p := range []attentionProblem{
		newAttentionProblem(2, 1, 2, 2, 64, 0, BF16),
		newAttentionProblem(1, 17, 16, 1, 128, 0, F16),
		newAttentionProblem(1, 65, 6, 2, 80, 0.25, BF16),
		newAttentionProblem(1, 200, 3, 1, 32, 0, F16),
		newAttentionProblem(2, 65, 2, 1, 64, 0.5, BF16),
		newAttentionProblem(1, 65, 2, 1, 256, 0, BF16),
		newAttentionProblem(1, 33, 3, 3, 144, 0.1, F16),
		newAttentionProblem(2, 72, 6, 3, 256, 0.3, BF16),
		newAttentionProblem(1, 100, 8, 1, 128, 0.5, F16),
		newAttentionProblem(1, 17, 12, 1, 48, 0, BF16),
		newAttentionProblem(1, 65, 4, 2, 20, 0.25, F32),
		newAttentionProblem(2, 33, 2, 1, 130, 0, F32),
		newAttentionProblem(1, 40, 12, 1, 12, 0, BF16),
	} {
		p.check(t, d)
	}
}

// openAny returns a device of the stand-in under a schedule, or the GPU.
func openAny(t *testing.T, seed int64) *Device {
	t.Helper()
	if cudatest.GPU() {
		return openDevice(t, Options{})
	}
	d, _ := onStandin(t, "", map[string]int64{"seed": seed})
	return d
}

// Planted bugs must show as wrong results under most schedules: barriers taken out, fragments loaded from wrong columns.
func TestAttentionBugsAreCaught(t *testing.T) {
	tensor := newAttentionProblem(1, 200, 2, 1, 64, 0, BF16)
	scalar := newAttentionProblem(1, 65, 2, 1, 32, 0, F32)
	c, qkv := cachedProblem(16, 1, 64, BF16, 200)
	cached := func(t *testing.T, d *Device) bool {
		ys, err := feed(t, d, c, qkv, []int{50})
		if err != nil {
			t.Fatal(err)
		}
		a := c.Attr
		a.Seq = 200
		want := make([]float32, len(ys[0]))
		if err := ref.Attention(want, qkv[0], make([]int32, a.Seq), [2]int32{}, a); err != nil {
			t.Fatal(err)
		}
		_, differs := cudatest.Differs(ys[0], want, 0x1p-5, 0x1p-6)
		return differs
	}
	uncached := func(p attentionProblem) func(*testing.T, *Device) bool {
		wantY, wantGrad := p.want(t)
		return func(t *testing.T, d *Device) bool {
			y, dqkv, err := p.run(t, d)
			if err != nil {
				t.Fatal(err)
			}
			tolY, tolGrad := p.tolerance()
			_, wrongY := cudatest.Differs(y, wantY, 2*tolY, 0x1p-6)
			_, wrongGrad := cudatest.Differs(dqkv, wantGrad, 2*tolGrad, 0x1p-6)
			return wrongY || wrongGrad
		}
	}
	usual := []int64{0, 1, 2, 3, 4}
	ahead := []int64{2, 3, 5, 6, 8} // newest first and warp by warp: a warp runs as far ahead of the others as barriers let it
	for _, bug := range []struct {
		plant  string
		seeds  []int64
		caught func(t *testing.T, d *Device) bool
	}{
		{"attention64.cu:attention_barrier", usual, uncached(tensor)},
		{"attention64.cu:attention_values_barrier", ahead, uncached(tensor)},
		{"attention64.cu:attention_fragment", usual, uncached(tensor)},
		{"attention64.cu:attention_grad_barrier", usual, uncached(tensor)},
		{"attention64.cu:attention_grad_keys_barrier", usual, uncached(tensor)},
		{"attention_scalar.cu:attention_scalar_barrier", usual, uncached(scalar)},
		{"attention_cached_tensor.cu:attention_cached_barrier", usual, cached},
	} {
		t.Run(bug.plant, func(t *testing.T) {
			cudatest.Library(t, bug.plant) // skips where there is no stand-in
			caught := 0
			for _, seed := range bug.seeds {
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					if d, _ := onStandin(t, bug.plant, map[string]int64{"seed": seed, "capability": 80}); bug.caught(t, d) {
						caught++
					}
				})
			}
			if caught < 4 {
				t.Errorf("%d of 5 schedules caught it, expected at least 4", caught)
			}
		})
	}
}

// BenchmarkAttention times SantaCoder's attention on a GPU: 16 sequences of 2048 tokens, 16 heads that share one key head of 128, with kernels of
// compute capability 9.0, where the card has them, and without. A causal product has half the operations of a full one: 2·n·Seq·H·D forward,
// two and a half times as many backward.
func BenchmarkAttention(b *testing.B) {
	if !cudatest.GPU() {
		b.Skip("SKIPPED: the stand-in's times mean nothing, set AUTODEV_TEST_GPU")
	}
	for _, drop := range []float64{0, 0.1} {
		p := attentionProblem{Attr: compute.Attr{Heads: 16, KVHeads: 1, HeadDim: 128, Seq: 2048, Scale: 1 / math.Sqrt(128), Drop: drop, Salt: 5}, n: 16 * 2048, store: BF16}
		some := random(11, 1<<20, BF16)
		p.qkv = slices.Repeat(some, p.n*18*128>>20)
		p.dy = slices.Repeat(some, p.n*16*128>>20)
		p.docStart = make([]int32, p.n)
		for _, no := range []bool{false, true} {
			d := openDevice(b, Options{NoWarpgroups: no})
			for _, direction := range []string{"forward", "backward"} {
				b.Run(fmt.Sprintf("%s/drop %v/warpgroups %v", direction, drop, !no), func(b *testing.B) { p.time(b, d, direction == "backward") })
			}
		}
	}
}

// time reports the rate of one direction, the best of b.N times 20 runs.
func (p attentionProblem) time(b *testing.B, d *Device, backward bool) {
	const times = 20
	operations := 2 * float64(p.n) * float64(p.Seq) * float64(p.Heads*p.HeadDim)
	best := math.Inf(1)
	err := d.Do(func(q *Queue) error {
		qkv, dy := upload(b, q, encode(p.qkv, p.store)), upload(b, q, encode(p.dy, p.store))
		docStart, key := upload(b, q, p.docStart), upload(b, q, attentionKey[:])
		y, lse, grad := alloc[uint16](b, q, len(p.dy)), alloc[float32](b, q, p.n*p.Heads), alloc[uint16](b, q, len(p.qkv))
		forward, err := attention(q, y, lse, qkv, docStart, key, p.n, p.Attr, p.store)
		if err != nil {
			return err
		}
		launches := Sequence{forward}
		if backward {
			if err := forward.Enqueue(q); err != nil {
				return err
			}
			work := alloc[float32](b, q, p.n*p.Heads+cudaplan.HeadSplits(p.Attr)*p.n*2*p.KVHeads*p.HeadDim)
			if launches, err = attentionGrad(q, grad, dy, y, lse, qkv, docStart, key, work, p.n, p.Attr, p.store); err != nil {
				return err
			}
			operations *= 2.5
		}
		for range b.N {
			took, err := q.Time(func() error {
				for range times {
					for _, l := range launches {
						if err := l.Enqueue(q); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			best = min(best, took.Seconds()/times)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(operations/best/1e12, "TFLOP/s")
}
