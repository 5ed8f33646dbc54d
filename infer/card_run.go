package infer

import (
	"context"

	"autodev/compute/cuda"
)

// cardPass is which spans a pass on a card evaluates.
type cardPass struct {
	spans  [2][]*span // ofShort, ofLong
	rows   [2]int
	wanted int // rows of logits of the long ones
}

// takes adds a span if the pass has room for it.
func (b *cardPass) takes(s *span, chunk int) bool {
	which, most, wanted := ofShort, cuda.FewRows, 0
	if len(s.ids) > cuda.FewRows {
		which, most, wanted = ofLong, chunk, s.wanted()
	}
	if b.rows[which]+len(s.ids) > most || b.wanted+wanted > cuda.FewRows {
		return false
	}
	b.spans[which] = append(b.spans[which], s)
	b.rows[which] += len(s.ids)
	b.wanted += wanted
	return true
}

// run evaluates spans, as many at a time as fit a pass, and those with a visit alone. It looks at their contexts before each. What comes of a span is as
// batch.run leaves it, or in choices; logits are in memory, valid until the next call with it.
func (c *card) run(all []*span, memory *cardLogits) error {
	wanted, spans := 0, make([]*span, 0, len(all))
	for _, s := range all {
		s.logits, s.err = nil, nil
		if s.visit != nil {
			s.err = s.kv.run(s)
			continue
		}
		spans = append(spans, s)
		if c.store == cuda.F16 {
			s.choices = nil // whether activations were beyond its range is seen in the logits
		}
		if s.choices == nil {
			wanted += s.wanted()
		}
	}
	logits, err := memory.rows(wanted)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if s.choices == nil {
			n := s.wanted() * c.rows
			s.logits, logits = logits[:n:n], logits[n:]
		}
	}
	for rest := spans; len(rest) > 0; {
		var b cardPass
		var later []*span
		for _, s := range rest {
			if s.err = context.Cause(s.ctx); s.err == nil && !b.takes(s, c.chunk) {
				later = append(later, s)
			}
		}
		rest = later
		if b.rows == [2]int{} {
			break
		}
		if err := c.d.Do(func(q *cuda.Queue) error { return c.evaluate(q, &b) }); err != nil {
			return err
		}
	}
	return nil
}

// begin gives a pass over the spans to the device, and returns its parts: nil where there are no spans.
func (c *card) begin(q *cuda.Queue, b *cardPass) (parts [2]*pass, err error) {
	for which, spans := range b.spans {
		if len(spans) == 0 {
			continue
		}
		fresh := true
		for _, s := range spans {
			fresh = fresh && s.at == 0
		}
		p, err := c.pass(q, b.rows[which], which == ofShort, fresh)
		if err != nil {
			return parts, err
		}
		if err := cuda.Write(q, c.at.inputs[which], p.fill(words(c.inputs[which]), spans)); err != nil {
			return parts, err
		}
		parts[which] = p
	}
	switch short, long := parts[ofShort], parts[ofLong]; {
	case long == nil:
		return parts, short.enqueue(q)
	case short == nil:
		return parts, long.enqueue(q)
	default:
		return parts, enqueueBeside(q, short, long)
	}
}

// evaluate runs a pass and waits for what comes of it.
func (c *card) evaluate(q *cuda.Queue, b *cardPass) error {
	parts, err := c.begin(q, b)
	if err != nil {
		return err
	}
	var long *ending
	if b.wanted > 0 {
		if long, err = c.gather(q, b, parts[ofLong].first); err != nil {
			return err
		}
	}
	rows := [2]int{ofLong: b.wanted}
	endings := [2]*ending{ofLong: long}
	if p := parts[ofShort]; p != nil {
		rows[ofShort], endings[ofShort] = b.rows[ofShort], &p.end
	}
	for which, spans := range b.spans {
		choose := false
		for i, s := range spans {
			if s.choices != nil {
				choose = choose || s.wanted() > 0
			} else if err := cuda.Read(q, s.logits, c.logits(b.logitsRow(which, i))); err != nil {
				return err
			}
		}
		if choose {
			if err := c.choose(q, b, which, rows[which], endings[which].chooser); err != nil {
				return err
			}
		}
	}
	if err := q.Sync(); err != nil {
		return err
	}
	for which, spans := range b.spans {
		for i, s := range spans {
			if s.choices != nil {
				if err := c.chosenOf(q, s, b.logitsRow(which, i)); err != nil {
					return err
				}
			}
			for row := 0; row < len(s.logits) && s.err == nil; row += c.rows {
				s.err = c.overflow(s.logits[row])
			}
		}
	}
	return nil
}

// logitsRow returns the row of a card's logits and choices at which those that a span wants begin.
func (b *cardPass) logitsRow(which, i int) int {
	row := which * cuda.FewRows
	for _, s := range b.spans[which][:i] {
		if which == ofShort {
			row += len(s.ids)
		} else {
			row += s.wanted()
		}
	}
	if which == ofShort {
		row += b.spans[which][i].from
	}
	return row
}

// gather computes the logits that the long spans want: what the head reads of them is brought together before.
func (c *card) gather(q *cuda.Queue, b *cardPass, row int) (*ending, error) {
	e, err := c.ending(q, b.wanted)
	if err != nil {
		return nil, err
	}
	width, to := c.program.head().in*c.store.Size(), c.at.gathered
	for _, s := range b.spans[ofLong] {
		if n := s.wanted(); n > 0 {
			if err := q.Copy(to, c.hidden(row+s.from), int64(n*width)); err != nil {
				return nil, err
			}
			to += cuda.Ptr(n * width)
		}
		row += len(s.ids)
	}
	return e, e.logits.Enqueue(q)
}

// hidden is the address of a row of what the head reads.
func (c *card) hidden(row int) cuda.Ptr {
	st := &c.program.steps[len(c.program.steps)-1]
	return c.at.registers[st.x] + cuda.Ptr(row*st.weight.in*c.store.Size())
}
