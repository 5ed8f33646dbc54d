package infer

import (
	"context"
	"fmt"
	"slices"
)

// headTokens is how many tokens' logits are computed at a time.
const headTokens = 32

// ContextError says that a sequence would become longer than the model's positions.
type ContextError struct{ Tokens, Limit int }

func (e *ContextError) Error() string {
	return fmt.Sprintf("sequence: found %d tokens, expected at most the model's %d positions", e.Tokens, e.Limit)
}

// Session is one sequence of tokens with its keys and values. It is for one goroutine at a time; Close gives its memory back to
// the model.
type Session struct {
	m    *Model
	kv   sequence
	ids  []int32  // its tokens
	with *adapter // nil: none
	span span     // of its own
}

// sequence is the device's part of a Session: the keys and values of its tokens, and what evaluates more of them. The processor
// has one (processor.go), a card another (card.go).
type sequence interface {
	// reserve makes room for n tokens in all.
	reserve(n int) error
	// capacity returns the tokens there is room for.
	capacity() int
	// run evaluates a span of the sequence, of at most Model.chunk tokens, alone: it puts their keys and values behind those of the tokens before, and
	// leaves what is wanted in the span or shows it to its visit.
	run(sp *span) error
	// score is run for ids at positions at, at+1, …, and sets nll[i] to −ln p(targets[i]) after ids[from+i], to the end of ids.
	score(ctx context.Context, ids []int32, at, from int, targets []int32, nll []float64) error
	// blocks returns what holds the keys and values: block i those of the tokens from i·Model.blockTokens on.
	blocks() []*block
	// share makes room for the tokens of b, which it holds from now on, behind those there is room for.
	share(b *block)
	// replace puts b, which holds the same keys and values, in the place of block i.
	replace(i int, b *block)
	// copyTokens makes the first n tokens of block i those of from.
	copyTokens(i int, from *block, n int) error
	// free gives back everything.
	free()
}

// NewSession returns an empty sequence.
func (m *Model) NewSession() *Session { return m.newSession(nil) }

func (m *Model) newSession(with *adapter) *Session {
	if m.card != nil {
		return &Session{m: m, kv: m.card.sequence(m), with: with}
	}
	if with != nil {
		with.users.Add(1)
	}
	kv := newProcessor(m)
	kv.adapter = with.inPass()
	return &Session{m: m, kv: kv, with: with}
}

// Close ends the session, which must not be used afterwards.
func (s *Session) Close() {
	s.kv.free()
	if s.with != nil {
		s.with.users.Add(-1)
	}
}

// Len returns the number of tokens in the sequence.
func (s *Session) Len() int { return len(s.ids) }

// Truncate forgets all tokens from the n-th on.
func (s *Session) Truncate(n int) {
	s.ids = s.ids[:max(0, min(s.Len(), n))]
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
		if _, err := s.forward(ctx, ids[:n], n); err != nil {
			return nil, err
		}
		s.commit(ids[:n])
		ids, from = ids[n:], from-n
	}
	logits, err := s.forward(ctx, ids, from)
	if err != nil {
		return nil, err
	}
	s.commit(ids)
	return logits, nil
}

// forward evaluates ids and returns the logits [len(ids)−from, Model.rows] after ids[from:]; the session does not hold them before commit.
func (s *Session) forward(ctx context.Context, ids []int32, from int) ([]float32, error) {
	s.span = span{ctx: ctx, kv: s.kv, ids: ids, at: s.Len(), from: from}
	err := s.kv.run(&s.span)
	return s.span.logits, err
}

// commit makes ids, which were evaluated, part of the sequence.
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
	return s.chunks(ids, func(begin, end int) error {
		s.span = span{ctx: ctx, kv: s.kv, ids: ids[begin:end], at: s.Len(), from: min(max(from-begin, 0), end-begin), visit: func(first, n int, logits []float32) error {
			return visit(begin+first, n, logits)
		}}
		return s.kv.run(&s.span)
	})
}

// chunks adds ids to the sequence, chunk by chunk: evaluate evaluates ids[begin:end].
func (s *Session) chunks(ids []int32, evaluate func(begin, end int) error) error {
	if err := s.check(ids); err != nil {
		return err
	}
	for begin, end := 0, 0; begin < len(ids); begin = end {
		end = begin + firstChunk(len(ids)-begin, s.m.chunk)
		if err := evaluate(begin, end); err != nil {
			return err
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
	return s.reserve(s.Len() + len(ids))
}

// reserve makes room for n tokens of keys and values.
func (s *Session) reserve(n int) error {
	if n <= s.kv.capacity() {
		return nil
	}
	s.ids = slices.Grow(s.ids, n-s.Len())
	return s.kv.reserve(n)
}
