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
	held []*block     // whose parts are the caches' blocks
	work *workspace   // nil between park and the next use

	adapter spanAdapter // nil: none

	// What a pass over this sequence alone takes.
	batch batch
	alone [1]*span
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

// words returns the size of a block.
func (s *processor) words() (n int) {
	for _, c := range s.kv {
		n += c.BlockWords()
	}
	return n
}

func (s *processor) reserve(n int) error {
	for s.capacity() < n {
		s.add(s.m.spare.get(s.words()))
	}
	return nil
}

func (s *processor) capacity() int { return len(s.held) * cpu.BlockTokens }

func (s *processor) blocks() []*block { return s.held }

func (s *processor) share(b *block) { s.add(b.hold()) }

// add puts the tokens of a block, which the sequence holds from now on, behind those it has.
func (s *processor) add(b *block) {
	at := 0
	for _, c := range s.kv {
		c.Add(b.words[at:][:c.BlockWords()])
		at += c.BlockWords()
	}
	s.held = append(s.held, b)
}

func (s *processor) replace(i int, b *block) {
	at := 0
	for _, c := range s.kv {
		c.Replace(i, b.words[at:][:c.BlockWords()])
		at += c.BlockWords()
	}
	s.held[i].drop()
	s.held[i] = b.hold()
}

func (s *processor) copyTokens(i int, from *block, n int) error {
	at := 0
	for _, c := range s.kv {
		c.CopyTokens(i, from.words[at:][:c.BlockWords()], n)
		at += c.BlockWords()
	}
	return nil
}

func (s *processor) park() {
	if s.work != nil {
		s.m.release(s.work)
		s.work, s.batch, s.alone[0] = nil, batch{}, nil
	}
}

func (s *processor) free() {
	s.park()
	for _, b := range s.held {
		b.drop()
	}
	s.kv, s.held = nil, nil
}

// scratch sees to it that there is scratch memory.
func (s *processor) scratch() (err error) {
	if s.work == nil {
		s.work, err = s.m.workspace()
	}
	return err
}

// run looks at the span's context before every kernel.
func (s *processor) run(sp *span) error {
	sp.kv, sp.adapter = s, s.adapter
	if err := s.scratch(); err != nil {
		return err
	}
	s.begin(sp)
	if _, err := s.batch.run(); err != nil {
		return err
	}
	return sp.err
}

// begin makes a pass over sp alone ready.
func (s *processor) begin(sp *span) {
	s.alone[0] = sp
	s.batch.begin(s.m, s.work, s.alone[:])
}

// step runs one kernel for ids at positions from at on.
func (s *processor) step(st *step, out, x, y []float32, ids []int32, at int) error {
	s.begin(&span{ctx: context.Background(), kv: s, ids: ids, at: at})
	return s.batch.step(st, out, x, y)
}

func (s *processor) score(ctx context.Context, ids []int32, at, from int, targets []int32, nll []float64) error {
	return s.run(&span{ctx: ctx, ids: ids, at: at, from: from, visit: func(first, n int, logits []float32) error {
		s.m.pool.Run(n, func(i int) {
			row := logits[i*s.m.rows:][:s.m.vocab]
			nll[first-from+i] = logSumExp(row) - float64(row[targets[first-from+i]])
		})
		return nil
	}})
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
