package infer

import (
	"context"
	"fmt"
)

// NLL returns the negative log-probability in nats, −ln p(ids[i] | ids[:i]), of every i from max(1, from) on: one element per
// scored token. Padding rows of the vocabulary have no probability. ids must fit the context.
func (m *Model) NLL(ctx context.Context, ids []int32, from int) ([]float64, error) {
	from = max(1, from)
	if len(ids) <= from {
		return nil, ctx.Err()
	}
	for i, id := range ids {
		if id < 0 || int(id) >= m.vocab {
			return nil, fmt.Errorf("token %d: found id %d, expected 0 to %d", i, id, m.vocab-1)
		}
	}
	s := m.NewSession()
	defer s.Close()
	nll := make([]float64, len(ids)-from)
	err := s.chunks(ids[:len(ids)-1], func(begin, end int) error {
		first := min(max(begin, from-1), end) // whose successor is scored
		return s.kv.score(ctx, ids[begin:end], s.Len(), first-begin, ids[first+1:end+1], nll[max(0, first+1-from):max(0, end+1-from)])
	})
	if err != nil {
		return nil, err
	}
	return nll, nil
}
