package cuda

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"autodev/compute"
)

// decoder is two layers as decoding has them, which share their buffers: norm and product, attention, product and sum.
type decoder struct {
	bits  int // of the weights
	steps int // tokens that are decoded
}

// run decodes tokens one after the other, launch by launch or as a graph, and returns what comes of each.
func (c decoder) run(b workbench, graph bool) (all []float32, err error) {
	const heads, dim, width, layers, epsilon = 6, 16, 96, 2, 1e-5
	const wide = (heads + 2) * dim
	call := cachedCall{Attr: compute.Attr{Heads: heads, KVHeads: 1, HeadDim: dim, Scale: 1 / math.Sqrt(dim)}, store: BF16, rows: 1, tiles: 1, pages: 3}
	weights := func(seed, in, out int) (Ptr, quantised) {
		p := gemvProblem{in: in, out: out, store: BF16}
		if c.bits == 16 {
			return b.floats(random(uint64(seed), in*out, BF16), BF16), quantised{}
		}
		m, _ := p.quantised(b.t, c.bits)
		return 0, b.quantised(m, c.bits)
	}
	product := func(q *Queue, y, x, w Ptr, codes quantised, base Ptr, norm normed, in, out int) (*Launch, error) {
		if c.bits != 16 {
			return gemvQuant(q, y, x, codes, 0, base, norm, 1, false, BF16, BF16)
		}
		return gemv(q, y, x, w, 0, base, norm, 1, in, out, false, BF16, BF16)
	}
	x, wideX, y := b.empty(2*width), b.empty(2*wide), b.empty(2*heads*dim)
	table, sequence, tiles, starts, position := put(b, []int32{2, 0, 1}), put(b, []int32{0}), put(b, []int32{0, 1}), put(b, []int32{0}), put(b, []int32{0})
	work, counts := b.empty(int(call.workBytes())), put(b, make([]int32, call.countBytes()/4))
	var seq Sequence
	for layer := range layers {
		w1, codes1 := weights(10+layer, width, wide)
		w2, codes2 := weights(20+layer, heads*dim, width)
		norm := normed{b.floats(random(5, width, BF16), BF16), b.floats(random(6, width, BF16), BF16), epsilon}
		pages := b.empty(3 * int(call.pageBytes()))
		b.do(func(q *Queue) error {
			first, err := product(q, wideX, x, w1, codes1, 0, norm, width, wide)
			if err != nil {
				return err
			}
			attend, err := attendCached(q, y, wideX, call, cachedOperands{pages: pages, table: table, sequence: sequence, position: position, tiles: tiles, starts: starts, work: work, counts: counts})
			if err != nil {
				return err
			}
			second, err := product(q, x, y, w2, codes2, x, normed{}, heads*dim, width)
			seq = append(append(append(seq, first), attend...), second)
			return err
		})
	}
	err = b.d.Do(func(q *Queue) error {
		all := Op(seq)
		if graph {
			g, err := q.Capture(func() error { return seq.Enqueue(q) })
			if err != nil {
				return err
			}
			defer g.Free(q)
			all = g
		}
		run := func(at int) error {
			return errors.Join(Write(q, x, encode(random(uint64(100+at), width, BF16), BF16)), Write(q, position, []int32{int32(at)}), all.Enqueue(q), q.Sync())
		}
		for at := range c.steps {
			if err := run(at); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b.read(x, width, BF16), nil
}

// differs reports whether graphs, whose launches are early, give another result than launches one after the other.
func (c decoder) differs(b workbench) bool {
	want, err := c.run(b, false)
	if err != nil {
		b.t.Fatal(err)
	}
	got, err := c.run(b, true)
	return err != nil || !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
}

var decoders = []decoder{{bits: 16, steps: 131}, {bits: 8, steps: 3}, {bits: 4, steps: 3}}

func TestEarlyLaunches(t *testing.T) {
	onBench(t, func(b workbench) {
		if !b.d.launchesEarly() {
			b.t.Skipf("SKIPPED: %s launches nothing early", b.d.Name())
		}
		for _, c := range decoders {
			if c.differs(b) {
				b.t.Errorf("%+v: early launches have another result", c)
			}
		}
	})
}

// What is read before the wait is what was there before the kernels before have run.
func TestEarlyLaunchesPlantedBug(t *testing.T) {
	for bug, c := range map[string]decoder{"gemv.cu:gemv_wait": {16, 2}, "gemv_quant.cu:gemv_quant_wait": {8, 2}, "attention_cached_tensor.cu:attention_cached_wait": {16, 2}} {
		planted(t, bug, 3, c.differs)
	}
}

// A thread that does not wait is seen, whatever the results are.
func TestEarlyLaunchesAllWait(t *testing.T) {
	planted(t, "gemv.cu:gemv_no_wait", 4, func(b workbench) bool {
		_, err := decoder{16, 2}.run(b, true)
		return err != nil
	})
}

// Launches are early in captures alone, behind another launch, where the card and the driver have them and nobody refuses them.
func TestEarlyLaunchesWhere(t *testing.T) {
	for _, p := range []struct {
		capability, driver int64
		inTurn, early      bool
	}{{90, 13000, false, true}, {90, 13000, true, false}, {90, 12020, false, false}, {80, 13000, false, false}} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			d, l := onStandin(t, "", map[string]int64{"capability": p.capability, "driver": p.driver})
			if p.inTurn {
				d = openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt, InTurn: true})
			}
			if got := d.launchesEarly(); got != p.early {
				t.Errorf("early launches %v, expected %v", got, p.early)
			}
			if _, err := (decoder{16, 1}).run(workbench{t, d}, true); err != nil {
				t.Error(err)
			}
		})
	}
}
