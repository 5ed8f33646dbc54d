package infer

import (
	"context"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cpu/vec"
)

// processor is a sequence on the processor.
type processor struct {
	m    *Model
	kv   []*cpu.Cache // by layer
	work *workspace   // nil between park and the next use
	// What the head reads: the register of the last forward.
	hidden []float32
}

func newProcessor(m *Model) *processor {
	s := &processor{m: m, kv: make([]*cpu.Cache, m.program.layers)}
	for i := range m.program.steps {
		if st := &m.program.steps[i]; st.op == opAttention {
			s.kv[st.layer] = cpu.NewCache(m.cache, st.spec.KVHeads, st.spec.HeadDim)
		}
	}
	return s
}

func (s *processor) reserve(n int) error {
	for _, c := range s.kv {
		c.Grow(n)
	}
	return nil
}

func (s *processor) capacity() int {
	if len(s.kv) == 0 {
		return s.m.Context()
	}
	return s.kv[0].Capacity()
}

func (s *processor) bytes() (n int64) {
	for _, c := range s.kv {
		n += int64(c.Bytes())
	}
	return n
}

func (s *processor) copyPrefix(from sequence, n int) error {
	for i := range s.kv {
		s.kv[i].CopyPrefix(from.(*processor).kv[i], n)
	}
	return nil
}

func (s *processor) park() {
	if s.work != nil {
		s.m.release(s.work)
		s.work, s.hidden = nil, nil
	}
}

func (s *processor) free() { s.park() }

// tokenBytes returns the memory of a token's keys and values.
func (s *processor) tokenBytes() (n int64) {
	for _, c := range s.kv {
		n += int64(c.BytesPerToken())
	}
	return n
}

// scratch sees to it that there is scratch memory for n tokens.
func (s *processor) scratch(n int) (err error) {
	if s.work == nil {
		if s.work, err = s.m.workspace(); err != nil {
			return err
		}
	}
	s.work.grow(s.m, n)
	return nil
}

// forward looks at ctx before every kernel.
func (s *processor) forward(ctx context.Context, ids []int32, at, from, n int) ([]float32, error) {
	if err := s.scratch(len(ids)); err != nil {
		return nil, err
	}
	w, widths := s.work, s.m.program.widths
	for i := range s.m.program.steps {
		st := &s.m.program.steps[i]
		var x, y, out []float32
		if st.x >= 0 {
			x = w.registers[st.x][:len(ids)*widths[st.x]]
		}
		if st.op == opHead {
			s.hidden = x
			break
		}
		if st.y >= 0 {
			y = w.registers[st.y][:len(ids)*widths[st.y]]
		}
		if st.out >= 0 {
			out = w.registers[st.out][:len(ids)*widths[st.out]]
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if err := s.step(st, out, x, y, ids, at); err != nil {
			return nil, err
		}
	}
	if n == 0 {
		return nil, nil
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return s.head(from, n), nil
}

// step runs one kernel for ids at positions from at on.
func (s *processor) step(st *step, out, x, y []float32, ids []int32, at int) error {
	m, w, n := s.m, s.work, len(ids)
	switch st.op {
	case opEmbed:
		width := m.program.widths[st.out]
		if n <= headTokens {
			for i, id := range ids {
				st.embed(out[i*width:][:width], id, at+i)
			}
			break
		}
		m.pool.Run(n, func(i int) { st.embed(out[i*width:][:width], ids[i], at+i) })
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
		w.sequence[0] = cpu.Cached{Y: out, QKV: x, Cache: s.kv[st.layer], First: at}
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

// head returns the logits [n, Model.rows] of n rows of what the last forward left, from the first on.
func (s *processor) head(first, n int) []float32 {
	w := s.m.program.head()
	if len(s.work.logits) < n*w.out {
		s.work.logits = make([]float32, n*w.out)
	}
	logits := s.work.logits[:n*w.out]
	s.m.linear(s.work, logits, s.hidden[first*w.in:(first+n)*w.in], n, w, epilogue{}, false)
	return logits
}

func (s *processor) extend(ctx context.Context, ids []int32, at, from int, visit func(first, n int, logits []float32) error) error {
	if _, err := s.forward(ctx, ids, at, 0, 0); err != nil {
		return err
	}
	for row := from; row < len(ids); row += headTokens {
		n := min(headTokens, len(ids)-row)
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := visit(row, n, s.head(row, n)); err != nil {
			return err
		}
	}
	return nil
}

func (s *processor) score(ctx context.Context, ids []int32, at, from int, targets []int32, nll []float64) error {
	return s.extend(ctx, ids, at, from, func(first, n int, logits []float32) error {
		s.m.pool.Run(n, func(i int) {
			row := logits[i*s.m.rows:][:s.m.vocab]
			nll[first-from+i] = logSumExp(row) - float64(row[targets[first-from+i]])
		})
		return nil
	})
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
