package infer

import (
	"context"
	"fmt"
	"slices"
)

// Prompts are evaluated chunkTokens at a time and logits computed for headTokens at a time. Neither changes a result.
const (
	chunkTokens = 128
	headTokens  = 32
)

// ContextError says that a sequence would become longer than the model's positions.
type ContextError struct{ Tokens, Limit int }

func (e *ContextError) Error() string {
	return fmt.Sprintf("sequence: found %d tokens, expected at most the model's %d positions", e.Tokens, e.Limit)
}

// Session is one sequence of tokens with its keys and values. It is for one goroutine at a time; Close gives its scratch
// memory back to the model.
type Session struct {
	m    *Model
	k, v [][]float32 // by layer, [tokens, Model.program.kv]
	n    int         // tokens
	work *workspace
}

// NewSession returns an empty sequence.
func (m *Model) NewSession() *Session {
	return &Session{m: m, k: make([][]float32, m.program.layers), v: make([][]float32, m.program.layers), work: m.workspace()}
}

// Close ends the session, which must not be used afterwards.
func (s *Session) Close() {
	if s.work != nil {
		s.m.release(s.work)
		s.work = nil
	}
}

// Len returns the number of tokens in the sequence.
func (s *Session) Len() int { return s.n }

// Truncate forgets all tokens from the n-th on.
func (s *Session) Truncate(n int) { s.n = max(0, min(s.n, n)) }

// Append adds ids to the sequence and returns the logits [vocabulary] after the last of them, which are valid until the next
// call. When ctx ends it returns ctx's error within one kernel; the sequence then holds the chunks that were complete.
func (s *Session) Append(ctx context.Context, ids []int32) ([]float32, error) {
	var last []float32
	err := s.AppendAll(ctx, ids, len(ids)-1, func(_ int, logits []float32) error {
		last = logits
		return nil
	})
	return last, err
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
	if len(ids) == 0 {
		return fmt.Errorf("sequence: found no tokens, expected at least one")
	}
	if total := s.n + len(ids); total > s.m.Context() {
		return &ContextError{total, s.m.Context()}
	}
	for i, id := range ids {
		if id < 0 || int(id) >= s.m.rows {
			return fmt.Errorf("sequence: token %d: found id %d, expected 0 to %d", i, id, s.m.rows-1)
		}
	}
	s.reserve(s.n + len(ids))
	for begin := 0; begin < len(ids); begin += chunkTokens {
		end := min(begin+chunkTokens, len(ids))
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
		s.n += end - begin
	}
	return nil
}

// reserve makes room for n tokens of keys and values.
func (s *Session) reserve(n int) {
	width := s.m.program.kv
	if len(s.k) == 0 || n*width <= len(s.k[0]) {
		return
	}
	// Doubling keeps growing cheap; no sequence is longer than the context.
	n = min(max(n, 2*s.n, chunkTokens), s.m.Context())
	for i := range s.k {
		s.k[i] = slices.Grow(s.k[i][:s.n*width], (n-s.n)*width)[:n*width]
		s.v[i] = slices.Grow(s.v[i][:s.n*width], (n-s.n)*width)[:n*width]
	}
}

// forward evaluates ids at the positions after the sequence, up to the head, and returns the register [len(ids), width] that
// the head reads. Keys and values are written behind those of the sequence, whose length it does not change.
func (s *Session) forward(ctx context.Context, ids []int32) ([]float32, error) {
	m, n := s.m, len(ids)
	s.work.grow(m.program, n)
	reg := func(r int) []float32 {
		if r < 0 {
			return nil
		}
		return s.work.registers[r][:n*m.program.widths[r]]
	}
	for i := range m.program.steps {
		st := &m.program.steps[i]
		if st.op == opHead {
			return reg(st.x), nil
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		out, x := reg(st.out), reg(st.x)
		if err := s.step(st, out, x, reg(st.y), ids); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
