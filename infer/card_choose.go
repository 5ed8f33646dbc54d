package infer

import (
	"errors"

	"autodev/compute/cuda"
)

// chooser is what chooses a token from each of a number of rows of logits.
type chooser struct{ greedy, sample cuda.Sequence }

// chooser returns that of n rows of logits of short or of long spans.
func (c *card) chooser(q *cuda.Queue, which, n int) (by chooser, err error) {
	k, row := c.operations(q), which*cuda.FewRows
	choices := c.at.choices + cuda.Ptr(4*row)
	if by.greedy, err = k.Greedy(choices, c.logits(row), c.at.masked, n, c.vocab, c.rows); err != nil {
		return by, err
	}
	by.sample, err = k.Sample(choices, c.logits(row), c.at.masked, c.at.draws+cuda.Ptr(4*row*cuda.DrawWords), n, c.vocab, c.rows)
	return by, err
}

// logits is the address of a row of them.
func (c *card) logits(row int) cuda.Ptr { return c.at.logits + cuda.Ptr(4*row*c.rows) }

// choose has the device choose from the rows of logits of a pass's short or long spans.
func (c *card) choose(q *cuda.Queue, b *cardPass, which, rows int, by chooser) error {
	first, drawn := which*cuda.FewRows, false
	draws := words(c.draws)[first*cuda.DrawWords:][:rows*cuda.DrawWords]
	for r := range rows {
		cuda.Draw{Temperature: 1, TopK: 1}.Put(draws[r*cuda.DrawWords:])
	}
	for i, s := range b.spans[which] {
		if s.choices == nil || s.sampling == nil {
			continue
		}
		drawn = true
		for k := range s.wanted() {
			c.draw(s, k).Put(draws[(b.logitsRow(which, i)-first+k)*cuda.DrawWords:])
		}
	}
	op := by.greedy
	if drawn {
		op = by.sample
		if err := cuda.Write(q, c.at.draws+cuda.Ptr(4*first*cuda.DrawWords), draws); err != nil {
			return err
		}
	}
	return errors.Join(op.Enqueue(q), cuda.Read(q, words(c.chosen)[first:][:rows], c.at.choices+cuda.Ptr(4*first)))
}

// draw is how the span's token k is drawn, at the place where the host would.
func (c *card) draw(s *span, k int) cuda.Draw {
	o := s.sampling
	d := cuda.Draw{Temperature: o.Temperature, TopK: o.TopK, TopP: o.TopP, MinP: o.MinP, Place: o.place(s.next + k)}
	if d.TopK >= c.vocab {
		d.TopK = 0
	}
	return d
}

// chosenOf sets the choices of a span from what the device chose of the rows of logits from row on. Where that leaves it to the host, it is the host's.
func (c *card) chosenOf(q *cuda.Queue, s *span, row int) error {
	copy(s.choices, words(c.chosen)[row:][:s.wanted()])
	for k, id := range s.choices {
		switch id {
		case cuda.NoToken:
			s.choices[k] = 0
			if c.store == cuda.F16 {
				s.err = errOverflow
			}
		case cuda.NotChosen:
			logits := make([]float32, c.vocab)
			if err := cuda.Read(q, logits, c.logits(row+k)); err != nil {
				return err
			}
			s.choices[k] = newSampler(*s.sampling, c.masked).next(logits, s.next+k, false)
		}
	}
	return nil
}
