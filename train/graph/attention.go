package graph

import "autodev/compute"

// keepAttention returns the program with the output of every attention, and the logarithms of its soft-max's sums, kept for its gradient:
// without them the gradient would have to go over all scores once more before it could begin (Dao 2023, FlashAttention-2,
// arXiv 2307.08691, section 3.1.2).
func (p *program) keepAttention() *program {
	q := &program{code: make([]*instr, len(p.code))}
	forward := map[int]*instr{} // of operations
	for i, c := range p.code {
		d := *c
		q.code[i] = &d
		switch c.call.Kernel {
		case compute.Attention:
			forward[c.of] = &d
		case compute.AttentionGrad:
			f := forward[c.of]
			lse := &value{buf: compute.Buffer{Space: compute.Arena, DType: compute.F32, Shape: []int{f.in[0].buf.Shape[0], f.call.Attr.Heads}}}
			if f.out[0].buf.DType == compute.F64 {
				lse.buf.DType = compute.F64
			}
			f.out = []*value{f.out[0], lse}
			d.in = append(append(make([]*value, 0, compute.MaxOperands), c.in[:3]...), nil)
			if len(c.in) > 3 {
				d.in[3] = c.in[3]
			}
			d.in = append(d.in, f.out...)
		}
	}
	return q
}
