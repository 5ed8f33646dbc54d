package infer

import (
	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cpu/vec"
)

// step runs one kernel for ids.
func (s *Session) step(st *step, out, x, y []float32, ids []int32) error {
	m, w, n := s.m, s.work, len(ids)
	switch st.op {
	case opEmbed:
		width := m.program.widths[st.out]
		if n <= headTokens {
			for i, id := range ids {
				st.embed(out[i*width:][:width], id, s.Len()+i)
			}
			break
		}
		m.pool.Run(n, func(i int) { st.embed(out[i*width:][:width], ids[i], s.Len()+i) })
	case opLayerNorm:
		m.kernels.LayerNorm(out, x, st.gain, st.bias, n, m.program.widths[st.x], st.epsilon)
	case opLinear:
		e := epilogue{bias: st.bias, base: y}
		if st.fused {
			e.then = activation(st.act)
		}
		m.linear(w, out, x, n, st.weight, e, st.same)
	case opAttention:
		a := attributes(st.spec)
		if need := m.kernels.AttendCachedWork(m.Context(), a); len(w.attention) < need {
			w.attention = make([]float32, need)
		}
		w.sequence[0] = cpu.Cached{Y: out, QKV: x, Cache: s.kv[st.layer], First: s.Len()}
		return m.kernels.AttendCached(w.sequence[:], m.Context(), a, w.attention)
	case opActivate:
		m.kernels.Activation(out, x, st.act)
	case opAdd:
		m.kernels.Add(out, x, y)
	}
	return nil
}

// embed sets row to the embedding of a token at a position.
func (st *step) embed(row []float32, id int32, position int) {
	st.weight.row(row, int(id))
	vec.Add(row, row, st.positions[position*len(row):][:len(row)])
}

// head returns the logits [n, Model.rows] of n rows of hidden from first on.
func (s *Session) head(hidden []float32, first, n int) []float32 {
	w := s.m.program.steps[len(s.m.program.steps)-1].weight
	if len(s.work.logits) < n*w.out {
		s.work.logits = make([]float32, n*w.out)
	}
	logits := s.work.logits[:n*w.out]
	s.m.linear(s.work, logits, hidden[first*w.in:(first+n)*w.in], n, w, epilogue{}, false)
	return logits
}

// activation returns the function of rows.
func activation(act compute.Act) func(y, x []float32) {
	switch act {
	case compute.GELUErf:
		return vec.GELUErf
	case compute.ReLU:
		return vec.ReLU
	}
	return vec.GELUTanh
}
