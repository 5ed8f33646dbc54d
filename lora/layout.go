package lora

import (
	"strings"

	"autodev/model"
)

const (
	cAttn  = ".attn.c_attn"
	qAttn  = ".attn.q_attn"
	kvAttn = ".attn.kv_attn"
)

// splitModules returns the module names of SantaCoder as first published, where queries (q_attn) and the one key and value
// head (kv_attn) were modules of their own; ok is false for models without that form.
func splitModules(c model.Config) (_ []linear, ok bool) {
	if c.Architecture != model.GPTBigCode || c.KVHeads != 1 {
		return nil, false
	}
	var ls []linear
	for _, l := range linears(c) {
		if h, ok := strings.CutSuffix(l.name, cAttn); ok {
			ls = append(ls, linear{h + qAttn, l.in, c.Embed}, linear{h + kvAttn, l.in, l.out - c.Embed})
		} else {
			ls = append(ls, l)
		}
	}
	return ls, true
}

// factors are the two matrices of a module as a file has them.
type factors struct {
	module Module
	a, b   []float32
}

// fuse makes one adapter of c_attn out of those of q_attn and kv_attn, either of which may be absent: the rows of A one below
// the other, B block diagonal. c_attn's rows are queries first, then key and value.
func fuse(l linear, q, kv *factors) factors {
	rank, scale := 0, 0.0
	for _, p := range []*factors{q, kv} {
		if p != nil {
			rank += p.module.Rank
			if p.module.Scale != 0 {
				scale = p.module.Scale
			}
		}
	}
	f := factors{module: Module{Name: l.name, In: l.in, Out: l.out, Rank: rank, Scale: scale}, b: make([]float32, l.out*rank)}
	row, column := 0, 0
	for i, p := range []*factors{q, kv} {
		if i == 1 && p != nil {
			row = l.out - p.module.Out
		}
		if p == nil {
			continue
		}
		f.a = append(f.a, p.a...)
		// One scale for both halves: B takes the quotient where its own is another.
		ratio := 1.0
		if scale != 0 {
			ratio = p.module.Scale / scale
		}
		for o := range p.module.Out {
			for r := range p.module.Rank {
				v := p.b[o*p.module.Rank+r]
				if ratio != 1 {
					v = float32(float64(v) * ratio)
				}
				f.b[(row+o)*rank+column+r] = v
			}
		}
		column += p.module.Rank
	}
	return f
}

// groupedByHead reports whether the files of c keep the rows of module's output per head (query, key, value of head 0, then
// of head 1, …), as GPTBigCode without multi-query does, while the canonical order is all queries, all keys, all values.
func groupedByHead(c model.Config, module string) bool {
	return c.Architecture == model.GPTBigCode && c.KVHeads == c.Heads && c.Heads > 1 && strings.HasSuffix(module, cAttn)
}

// regroup copies the rows of B [out, rank] between the two orders.
func regroup(c model.Config, b []float32, rank int, toFile bool) []float32 {
	d := c.HeadDim()
	out := make([]float32, len(b))
	for part := range 3 {
		for h := range c.Heads {
			for i := range d {
				canonical := ((part*c.Heads+h)*d + i) * rank
				file := ((h*3+part)*d + i) * rank
				if toFile {
					copy(out[file:file+rank], b[canonical:canonical+rank])
				} else {
					copy(out[canonical:canonical+rank], b[file:file+rank])
				}
			}
		}
	}
	return out
}
