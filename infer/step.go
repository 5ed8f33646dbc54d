package infer

import "autodev/compute/cpu"

// step runs one kernel for ids.
func (s *Session) step(st *step, out, x, y []float32, ids []int32) error {
	m, w, n := s.m, s.work, len(ids)
	switch st.op {
	case opEmbed:
		for i := range ids {
			w.positions[i] = int32(s.n + i)
		}
		return m.kernels.Embed(out, st.table, st.positions, ids, w.positions[:n], m.program.widths[st.out])
	case opLayerNorm:
		m.kernels.LayerNorm(out, x, st.gain, st.bias, n, m.program.widths[st.x], st.epsilon)
	case opLinear:
		m.linear(out, x, n, st.weight, st.bias)
	case opAttention:
		a := attributes(st.spec)
		if need := m.kernels.AttendCachedWork(m.Context(), a); len(w.attention) < need {
			w.attention = make([]float32, need)
		}
		w.sequence[0] = cpu.Cached{Y: out, QKV: x, Cache: cpu.Cache{K: s.k[st.layer], V: s.v[st.layer]}, First: s.n}
		return m.kernels.AttendCached(w.sequence[:], m.Context(), a, w.attention)
	case opActivate:
		m.kernels.Activation(out, x, st.act)
	case opAdd:
		m.kernels.Add(out, x, y)
	}
	return nil
}

// head returns the logits [n, Model.rows] of n rows of hidden from first on.
func (s *Session) head(hidden []float32, first, n int) []float32 {
	w := s.m.program.steps[len(s.m.program.steps)-1].weight
	if len(s.work.logits) < n*w.out {
		s.work.logits = make([]float32, n*w.out)
	}
	logits := s.work.logits[:n*w.out]
	s.m.linear(logits, hidden[first*w.in:(first+n)*w.in], n, w, nil)
	return logits
}
