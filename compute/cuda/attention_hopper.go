package cuda

import (
	"fmt"
	"log/slog"
)

// The tiles of attention_hopper.h and attention_hopper_grad.h.
const (
	warpgroupRows   = 128 // of queries, or of keys that a block of grad_keys owns
	warpgroupKeys   = 128
	warpgroupStage  = 64 // rows of a stage's tiles in gradients
	warpgroupStages = 4
)

// onWarpgroups reports whether the device runs the kernel named, which is made for products of warpgroups (compute capability 9.0), and the options let
// it. Should its module not load, kernels for older cards take the place of all such, and the log says so once.
func (q *Queue) onWarpgroups(name string) bool {
	d := q.d
	e := d.entries[name]
	if e == nil || d.options.NoWarpgroups {
		return false
	}
	if err := q.load(e); err != nil && d.lost == nil {
		slog.Warn("cuda: kernels for compute capability 9.0 do not load; those for 8.0 run in their place, more slowly", "device", d.properties.Name, "kernel", name, "error", err)
		d.options.NoWarpgroups = true
		return false
	}
	return true
}

// warpgroupForward prepares compute.Attention by products of warpgroups, nil where there are no such kernels for the call: heads wider than 128,
// dropout and other cards.
func (c *attentionCall) warpgroupForward(q *Queue, fold int, pointers []Ptr) (*Launch, error) {
	name := fmt.Sprintf("attention_hopper%d_%v", c.width, c.store)
	if c.width == 0 || c.Drop > 0 || !q.onWarpgroups(name) {
		return nil, nil
	}
	sequences := c.n / c.Seq
	tiles := (c.Heads >> fold) * sequences * ceilDiv(c.Seq, warpgroupRows>>fold)
	shared := 1024 + 2*c.width*(2*warpgroupRows+4*warpgroupKeys) // queries and outputs; keys and values in two stages
	grid := Grid{Blocks: Dim{min(tiles, q.d.properties.Multiprocessors)}, Threads: Dim{384}, Shared: shared}
	return q.Prepare(name, grid, c.arguments(fold, pointers, []any{sequences}, c.scale(), c.keep())...)
}

// onWarpgroups returns the call with gradients by products of warpgroups, or as it is where there are no such kernels.
func (c attentionCall) onWarpgroups(q *Queue) attentionCall {
	name := fmt.Sprint("attention_hopper", c.width)
	if c.width == 0 || c.Drop > 0 || !q.onWarpgroups(name+"_grad_keys_"+c.store.String()) {
		return c
	}
	shared := 1024 + 2*c.width*(2*warpgroupRows+warpgroupStages*2*warpgroupStage) // what a block owns, then the stages
	c.name = name
	c.tiles = attentionTiles{queries: warpgroupRows, gradRows: warpgroupStage, keys: warpgroupRows, columns: 1, enough: 256, threads: 384, fold: c.tiles.fold,
		shared: [3]int{0, shared, shared}}
	return c
}
