package infer

import (
	"errors"

	"autodev/compute/cuda"
)

// wideHead is the head's weights of codes, widened for scoring.
type wideHead struct {
	at      cuda.Ptr
	refused bool // there was no memory for them
}

// score evaluates a span of which no logits are wanted, and sets nll[i] to −ln p(targets[i]) after its token from+i.
func (c *card) score(s *span, from int, targets []int32, nll []float32) error {
	return c.d.Do(func(q *cuda.Queue) error {
		var b cardPass
		b.takes(s, c.chunk)
		w, err := c.scoringHead(q)
		if err != nil {
			return err
		}
		parts, err := c.begin(q, &b)
		if err != nil {
			return err
		}
		if err := cuda.Write(q, c.at.targets, targets); err != nil {
			return err
		}
		head, row := c.program.head(), from
		if p := parts[ofLong]; p != nil {
			row += p.first
		} else if err := parts[ofShort].norm.Enqueue(q); err != nil {
			return err
		}
		for first := 0; first < len(targets); first += scoreRows {
			n := min(scoreRows, len(targets)-first)
			ops, err := c.operations(q).NLL(c.at.nll+cuda.Ptr(4*first), c.hidden(row+first), w, c.at.targets+cuda.Ptr(4*first), c.at.logits, n, head.in, c.vocab)
			if err == nil {
				err = ops.Enqueue(q)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(cuda.Read(q, nll, c.at.nll), q.Sync())
	})
}

// scoringHead returns the head's weights. Those of codes would be widened anew for every scoreRows tokens, which costs more than the product with them: they
// are widened once, when the first tokens are scored, and stay so, if they take no more than nine tenths of the memory that is free then.
func (c *card) scoringHead(q *cuda.Queue) (cuda.Weight, error) {
	head := c.program.head()
	w := c.at.matrices[head]
	if w.Bits == 0 || c.wide.refused {
		return w, nil
	}
	if c.wide.at == 0 {
		free, _, err := q.MemInfo()
		if err != nil {
			return w, err
		}
		bytes := int64(c.store.Size()) * int64(head.in) * int64(head.out)
		if c.wide.refused = bytes > free*9/10; c.wide.refused {
			return w, nil
		}
		if c.wide.at, err = q.Alloc(bytes); err != nil {
			return w, err
		}
		ops, err := c.operations(q).Widen(c.wide.at, w, head.in, head.out)
		if err == nil {
			err = ops.Enqueue(q)
		}
		if err != nil {
			return w, err
		}
	}
	return cuda.Weight{At: c.wide.at}, nil
}
