package infer

import (
	"context"
	"fmt"
	"slices"

	"autodev/compute/cpu"
)

// headTokens is how many tokens' logits are computed at a time.
const headTokens = 32

// ContextError says that a sequence would become longer than the model's positions.
type ContextError struct{ Tokens, Limit int }

func (e *ContextError) Error() string {
	return fmt.Sprintf("sequence: found %d tokens, expected at most the model's %d positions", e.Tokens, e.Limit)
}

// Session is one sequence of tokens with its keys and values. It is for one goroutine at a time; Close gives its scratch
// memory back to the model.
type Session struct {
	m    *Model
	kv   []*cpu.Cache // by layer
	ids  []int32      // its tokens
	work *workspace   // nil between park and the next use
}

// NewSession returns an empty sequence.
func (m *Model) NewSession() *Session {
	s := &Session{m: m, kv: make([]*cpu.Cache, m.program.layers)}
	for i := range m.program.steps {
		if st := &m.program.steps[i]; st.op == opAttention {
			s.kv[st.layer] = cpu.NewCache(m.cache, st.spec.KVHeads, st.spec.HeadDim)
		}
	}
	return s
}

// Close ends the session, which must not be used afterwards.
func (s *Session) Close() { s.park() }

// park gives the scratch memory back; the tokens and their keys and values stay.
func (s *Session) park() {
	if s.work != nil {
		s.m.release(s.work)
		s.work = nil
	}
}

// Len returns the number of tokens in the sequence.
func (s *Session) Len() int { return len(s.ids) }

// Truncate forgets all tokens from the n-th on.
func (s *Session) Truncate(n int) {
	s.ids = s.ids[:max(0, min(s.Len(), n))]
}

// copyPrefix makes s, which is empty, the sequence ids, which from begins with, by copying their keys and values. Of from it
// reads nothing else, so that from may meanwhile be appended to within what it has reserved.
func (s *Session) copyPrefix(from *Session, ids []int32) {
	s.reserve(len(ids))
	for i := range s.kv {
		s.kv[i].CopyPrefix(from.kv[i], len(ids))
	}
	s.commit(ids)
}

// bytes returns the memory that the session holds.
func (s *Session) bytes() int64 {
	n := 4 * int64(cap(s.ids))
	for _, c := range s.kv {
		n += int64(c.Bytes())
	}
	return n
}

// cacheBytes returns the memory of the keys and values of n tokens.
func (m *Model) cacheBytes(n int) int64 {
	perToken := 0
	for _, c := range m.NewSession().kv {
		perToken += c.BytesPerToken()
	}
	return int64(n) * int64(perToken)
}

// Append adds ids to the sequence and returns the logits [vocabulary] after the last of them, which are valid until the next
// call and may be changed. When ctx ends it returns ctx's error within one kernel; the sequence then holds the chunks that
// were complete.
func (s *Session) Append(ctx context.Context, ids []int32) ([]float32, error) {
	logits, err := s.appendRows(ctx, ids, len(ids)-1)
	if err != nil {
		return nil, err
	}
	return logits[:s.m.vocab:s.m.vocab], nil
}

// appendRows adds ids and returns the logits [len(ids)−from, Model.rows] after ids[from:], which are at most headTokens and all
// in the last chunk. Otherwise it is Append.
func (s *Session) appendRows(ctx context.Context, ids []int32, from int) ([]float32, error) {
	if err := s.check(ids); err != nil {
		return nil, err
	}
	for len(ids) > s.m.chunk {
		n := firstChunk(len(ids), s.m.chunk)
		if _, err := s.forward(ctx, ids[:n]); err != nil {
			return nil, err
		}
		s.commit(ids[:n])
		ids, from = ids[n:], from-n
	}
	hidden, err := s.forward(ctx, ids)
	if err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	logits := s.head(hidden, from, len(ids)-from)
	s.commit(ids)
	return logits, nil
}

// commit makes ids, which forward has evaluated, part of the sequence.
func (s *Session) commit(ids []int32) {
	s.ids = append(s.ids, ids...)
}

// AppendAll adds ids to the sequence and calls visit, in order, with the logits [vocabulary] after ids[i] for every i ≥ from.
// The logits are valid, and may be changed, until visit returns (those of the last token: until the next call).
func (s *Session) AppendAll(ctx context.Context, ids []int32, from int, visit func(i int, logits []float32) error) error {
	rows, vocab := s.m.rows, s.m.vocab
	return s.extend(ctx, ids, from, func(first, n int, logits []float32) error {
		for i := range n {
			if err := visit(first+i, logits[i*rows:i*rows+vocab:i*rows+vocab]); err != nil {
				return err
			}
		}
		return nil
	})
}

// extend is AppendAll with several tokens' logits at a time: visit gets those after ids[first] … ids[first+n−1] as
// [n, Model.rows], padding rows of the vocabulary included.
func (s *Session) extend(ctx context.Context, ids []int32, from int, visit func(first, n int, logits []float32) error) error {
	if err := s.check(ids); err != nil {
		return err
	}
	for begin, end := 0, 0; begin < len(ids); begin = end {
		end = begin + firstChunk(len(ids)-begin, s.m.chunk)
		hidden, err := s.forward(ctx, ids[begin:end])
		if err != nil {
			return err
		}
		for row := max(from, begin); row < end; row += headTokens {
			n := min(headTokens, end-row)
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := visit(row, n, s.head(hidden, row-begin, n)); err != nil {
				return err
			}
		}
		s.commit(ids[begin:end])
	}
	return nil
}

// check reports ids that cannot be added, and makes room for those that can.
func (s *Session) check(ids []int32) error {
	if len(ids) == 0 {
		return fmt.Errorf("sequence: found no tokens, expected at least one")
	}
	if total := s.Len() + len(ids); total > s.m.Context() {
		return &ContextError{total, s.m.Context()}
	}
	for i, id := range ids {
		if id < 0 || int(id) >= s.m.rows {
			return fmt.Errorf("sequence: token %d: found id %d, expected 0 to %d", i, id, s.m.rows-1)
		}
	}
	s.reserve(s.Len() + len(ids))
	return nil
}

// reserve makes room for n tokens of keys and values.
func (s *Session) reserve(n int) {
	if len(s.kv) == 0 || n <= s.kv[0].Capacity() {
		return
	}
	s.ids = slices.Grow(s.ids, n-s.Len())
	for _, c := range s.kv {
		c.Grow(n)
	}
}

// forward evaluates ids at the positions after the sequence, up to the head, and returns the register [len(ids), width] that
// the head reads. Keys and values are written behind those of the sequence, whose length it does not change.
func (s *Session) forward(ctx context.Context, ids []int32) ([]float32, error) {
	m, n := s.m, len(ids)
	if s.work == nil {
		var err error
		if s.work, err = m.workspace(); err != nil {
			return nil, err
		}
	}
	w, widths := s.work, m.program.widths
	w.grow(m, n)
	for i := range m.program.steps {
		st := &m.program.steps[i]
		var x, y, out []float32
		if st.x >= 0 {
			x = w.registers[st.x][:n*widths[st.x]]
		}
		if st.op == opHead {
			return x, nil
		}
		if st.y >= 0 {
			y = w.registers[st.y][:n*widths[st.y]]
		}
		if st.out >= 0 {
			out = w.registers[st.out][:n*widths[st.out]]
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if err := s.step(st, out, x, y, ids); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
