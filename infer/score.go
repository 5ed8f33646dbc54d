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
	err := s.extend(ctx, ids[:len(ids)-1], from-1, func(first, n int, logits []float32) error {
		m.pool.Run(n, func(i int) {
			row := logits[i*m.rows:][:m.vocab]
			nll[first+1-from+i] = logSumExp(row) - float64(row[ids[first+1+i]])
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nll, nil
}
