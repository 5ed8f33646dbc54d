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

// takesWarpgroups reports whether the call is done by kernels for products of warpgroups: on compute capability 9.0, for heads of up to 128 without
// dropout, unless the options forbid it. Such kernels are compared with those for 8.0 when they are first asked for: should they not load or not
// agree, those for 8.0 take their place, and the log says so once.
func (c *attentionCall) takesWarpgroups(q *Queue) bool {
	d, name := q.d, fmt.Sprintf("attention_hopper%d_%v", c.width, c.store)
	if c.width == 0 || c.Drop > 0 || d.entries[name] == nil || d.options.NoWarpgroups {
		return false
	}
	if d.options.Unchecked || d.agree[name] {
		return true
	}
	err := q.compareAttention(c.width, c.store)
	if err != nil && d.lost == nil {
		slog.Warn("cuda: attention for compute capability 9.0 does not run; that for 8.0 takes its place, more slowly", "device", d.properties.Name, "kernels", name, "error", err)
		d.options.NoWarpgroups = true
		return false
	}
	d.agree[name] = true
	return true
}

// warpgroupForward prepares compute.Attention by products of warpgroups.
func (c *attentionCall) warpgroupForward(q *Queue, fold int, pointers []Ptr) (*Launch, error) {
	sequences := c.n / c.Seq
	tiles := (c.Heads >> fold) * sequences * ceilDiv(c.Seq, warpgroupRows>>fold)
	shared := 1024 + 2*c.width*(2*warpgroupRows+4*warpgroupKeys) // queries and outputs; keys and values in two stages
	grid := Grid{Blocks: Dim{min(tiles, q.d.properties.Multiprocessors)}, Threads: Dim{384}, Shared: shared}
	return q.Prepare(fmt.Sprintf("attention_hopper%d_%v", c.width, c.store), grid, c.arguments(fold, pointers, []any{sequences}, c.scale(), c.keep())...)
}

// warpgroupGradients returns the call with gradients by products of warpgroups.
func (c attentionCall) warpgroupGradients() attentionCall {
	shared := 1024 + 2*c.width*(2*warpgroupRows+warpgroupStages*2*warpgroupStage) // what a block owns, then the stages
	c.name = fmt.Sprint("attention_hopper", c.width)
	c.tiles = attentionTiles{queries: warpgroupRows, gradRows: warpgroupStage, keys: warpgroupRows, columns: 1, enough: 256, threads: 384, fold: c.tiles.fold,
		shared: [3]int{0, shared, shared}}
	return c
}
