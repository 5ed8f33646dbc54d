package graph

import (
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/ref"
	"autodev/internal/rng"
)

// TestFoldSums: no sum is left but those that no product is behind; the larger product of a module with an adapter adds the other's
// result, which may add the residual stream; evaluation has none either; and the bits are the same with and without checkpointing.
func TestFoldSums(t *testing.T) {
	const rank = 2 // of the variants' adapters
	for _, v := range variants() {
		net := v.network(t)
		values := randomParams(net, 1)
		batch := randomBatch(rng.New(2, "batch"), v.cfg.Batch, v.cfg.Seq, v.cfg.Model.Vocab)
		var plain outcome
		for _, v.cfg.Checkpointing = range []bool{false, true} {
			tr := start(t, v.cfg, net, hostDevice{kernels: ref.Kernels{}, work: 192, keeps: true, folds: true}, values)
			got := planned(t, tr, batch)
			if !v.cfg.Checkpointing {
				plain = got
			}
			sameBits(t, v.name, got, plain)
			for _, p := range tr.Plans() {
				if err := checkArena(p.Plan); err != nil {
					t.Errorf("%s: %s plan: %v", v.name, p.Name, err)
				}
			}
			dropped := v.cfg.ModelDropout // between products and the residual stream
			for _, calls := range [][]compute.Call{tr.step.Calls, tr.eval.Calls} {
				for i := range calls {
					c := &calls[i]
					if c.Kernel == compute.Add && !(dropped && c.Name == "residual") {
						t.Errorf("%s, checkpointing %v: call %d, %s, is a sum", v.name, v.cfg.Checkpointing, i, c.Name)
					}
					if s := baseSlot(c.Kernel); s >= 0 && s < len(c.In) && c.In[s].Space != compute.None && slices.Contains(c.In[1].Shape, rank) && !strings.HasSuffix(c.Name, "c_proj.lora_B") {
						t.Errorf("%s: %s, a small product, adds", v.name, c.Name)
					}
				}
			}
		}
	}
}

// TestFoldSumsKeeps: what else reads a product, or is computed after what would add it, keeps a sum apart.
func TestFoldSumsKeeps(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *program)
		folds  bool
	}{
		"as it is":                       {func(*program) {}, true},
		"its base is read too":           {func(p *program) { p.code[4].in[1] = p.code[1].out[0] }, false},
		"the product is read too":        {func(p *program) { p.code[4].in[0] = p.code[2].out[0] }, false},
		"no base":                        {func(p *program) { p.code[2].in[3] = nil }, true},
		"no base, the sum's other later": {func(p *program) { p.code[2].in[3] = nil; p.code[0], p.code[2] = p.code[2], p.code[0] }, true},
		"its base is computed first":     {func(p *program) { p.code[0], p.code[1] = p.code[1], p.code[0] }, false},
		"the same twice":                 {func(p *program) { p.code[3].in[0] = p.code[3].in[1] }, false},
		"a base that is no product's":    {func(p *program) { p.code[2].in[3] = p.code[0].in[0] }, false},
		"another phase":                  {func(p *program) { p.code[2].phase = backward }, false},
	} {
		v := func(fixed bool) *value {
			return &value{fixed: fixed, buf: compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{4, 4}}}
		}
		x, w, norm, low, y, sum, z := v(true), v(true), v(false), v(false), v(false), v(false), v(false)
		linear := compute.Call{Kernel: compute.Linear, Attr: compute.Attr{Alpha: 1}}
		p := &program{code: []*instr{
			{call: compute.Call{Kernel: compute.LayerNorm}, in: []*value{x, w, w}, out: []*value{norm}},
			{call: linear, in: []*value{x, w, nil, nil}, out: []*value{low}},
			{call: linear, in: []*value{x, w, nil, low}, out: []*value{y}},
			{call: compute.Call{Kernel: compute.Add}, in: []*value{norm, y}, out: []*value{sum}},
			{call: linear, in: []*value{sum, w, nil, nil}, out: []*value{z}},
		}}
		c.change(p)
		q := p.foldSums()
		sums := slices.ContainsFunc(q.code, func(c *instr) bool { return c.call.Kernel == compute.Add })
		if sums == c.folds {
			t.Errorf("%s: the sum is folded: %v", name, !sums)
		}
		if err := q.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
