package infer

import (
	"context"
	"fmt"

	"autodev/compute/cuda"
)

// cardSequence is a sequence on a card.
type cardSequence struct {
	c      *card
	held   []*block
	pages  []int32 // of held
	logits cardLogits
	alone  [1]*span
}

func (c *card) sequence(m *Model) sequence { return &cardSequence{c: c, logits: cardLogits{m: m}} }

func (s *cardSequence) capacity() int { return len(s.pages) * cuda.PageTokens }

func (s *cardSequence) blocks() []*block { return s.held }

func (s *cardSequence) share(b *block) { s.add(b.hold()) }

func (s *cardSequence) add(b *block) {
	s.held, s.pages = append(s.held, b), append(s.pages, b.page)
}

func (s *cardSequence) replace(i int, b *block) {
	s.held[i].drop()
	s.held[i], s.pages[i] = b.hold(), b.page
}

func (s *cardSequence) reserve(n int) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	more := pagesFor(n) - len(s.pages)
	if more > len(c.free) {
		return fmt.Errorf("%s: keys and values of %d tokens more: %d pages of %d tokens are free, expected %d: fewer sequences at a time fit", c.d.Name(), n-s.capacity(), len(c.free), cuda.PageTokens, more)
	}
	if more > 0 {
		rest := len(c.free) - more
		for _, page := range c.free[rest:] {
			b := &block{home: c, page: page}
			s.add(b.hold())
		}
		c.free = c.free[:rest]
	}
	return nil
}

func (c *card) takeBack(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free = append(c.free, b.page)
}

func (s *cardSequence) free() {
	s.park()
	for _, b := range s.held {
		b.drop()
	}
	s.held, s.pages = nil, nil
}

// park gives the memory for logits back.
func (s *cardSequence) park() { s.logits.free() }

// copyTokens copies the whole page; what is behind n in it is not used.
func (s *cardSequence) copyTokens(i int, from *block, _ int) error {
	c := s.c
	layers, _ := c.layerPages(c.store)
	return c.d.Do(func(q *cuda.Queue) error {
		for layer, size := range layers {
			page := func(i int32) cuda.Ptr { return c.at.cache[layer] + cuda.Ptr(int64(i)*size) }
			if err := q.Copy(page(s.pages[i]), page(from.page), size); err != nil {
				return err
			}
		}
		return q.Sync()
	})
}

// run evaluates no more tokens at a time than have their logits shown: other sequences use the same registers.
func (s *cardSequence) run(sp *span) error {
	if sp.visit == nil {
		return s.evaluate(sp)
	}
	if sp.from > 0 {
		if err := s.evaluate(&span{ctx: sp.ctx, kv: s, ids: sp.ids[:sp.from], at: sp.at, from: sp.from}); err != nil {
			return err
		}
	}
	for first := sp.from; first < len(sp.ids); first += headTokens {
		n := min(headTokens, len(sp.ids)-first)
		part := span{ctx: sp.ctx, kv: s, ids: sp.ids[first:][:n], at: sp.at + first}
		if err := s.evaluate(&part); err != nil {
			return err
		}
		if err := sp.visit(first, n, part.logits); err != nil {
			return err
		}
	}
	return nil
}

// evaluate evaluates a span without visit.
func (s *cardSequence) evaluate(sp *span) error {
	s.alone[0] = sp
	if err := s.c.run(s.alone[:], &s.logits); err != nil {
		return err
	}
	return sp.err
}

func (s *cardSequence) score(ctx context.Context, ids []int32, at, from int, targets []int32, nll []float64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if _, err := s.logits.rows(0); err != nil {
		return err
	}
	got := make([]float32, len(targets))
	err := s.c.score(&span{kv: s, ids: ids, at: at, from: len(ids)}, from, targets, got)
	if err != nil {
		return err
	}
	for i, v := range got {
		if err := s.c.overflow(v); err != nil {
			return err
		}
		nll[i] = float64(v)
	}
	return nil
}
