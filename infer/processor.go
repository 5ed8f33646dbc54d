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

	// What a pass over this sequence alone takes.
	batch batch
	span  span
	alone [1]*span // &span
}

func newProcessor(m *Model) *processor {
	s := &processor{m: m, kv: make([]*cpu.Cache, m.program.layers)}
	s.alone[0] = &s.span
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
		s.work, s.batch, s.span = nil, batch{}, span{}
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

// scratch sees to it that there is scratch memory.
func (s *processor) scratch() (err error) {
	if s.work == nil {
		s.work, err = s.m.workspace()
	}
	return err
}

// forward looks at ctx before every kernel.
func (s *processor) forward(ctx context.Context, ids []int32, at, from int) ([]float32, error) {
	s.span = span{ctx: ctx, kv: s, ids: ids, at: at, from: from}
	if err := s.evaluate(); err != nil {
		return nil, err
	}
	return s.span.logits, nil
}

func (s *processor) extend(ctx context.Context, ids []int32, at, from int, visit func(first, n int, logits []float32) error) error {
	s.span = span{ctx: ctx, kv: s, ids: ids, at: at, from: from, visit: visit}
	return s.evaluate()
}

// evaluate runs s.span alone.
func (s *processor) evaluate() error {
	if err := s.scratch(); err != nil {
		return err
	}
	s.batch.begin(s.m, s.work, s.alone[:])
	if err := s.batch.run(); err != nil {
		return err
	}
	return s.span.err
}

// step runs one kernel for ids at positions from at on.
func (s *processor) step(st *step, out, x, y []float32, ids []int32, at int) error {
	s.span = span{ctx: context.Background(), kv: s, ids: ids, at: at}
	s.batch.begin(s.m, s.work, s.alone[:])
	return s.batch.step(st, out, x, y)
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
