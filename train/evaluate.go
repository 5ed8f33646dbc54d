package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"autodev/data/pack"
)

// evaluate measures the loss on the evaluation documents: every token of a document but its first, end-of-text included, with
// the document's part in a window of the training sequence as context, without FIM and dropout. It belongs to step n.
func (j *job) evaluate(ctx context.Context, n int) (r EvalResult, err error) {
	s, err := pack.NewStream(ctx, j.eval, j.tok, pack.Evaluation(j.sequence, j.sentinel))
	if err != nil {
		return r, fmt.Errorf("evaluation: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var sum float64
	for more := true; more; {
		var windows []pack.Window
		for len(windows) < j.recipe.Train.MicroBatch {
			w, err := s.Next(ctx)
			if errors.Is(err, io.EOF) {
				more = false
				break
			}
			if err != nil {
				return r, &dataError{n, fmt.Errorf("evaluation: %w", err)}
			}
			windows = append(windows, w)
			r.Tokens += w.Scored()
		}
		if len(windows) == 0 {
			break
		}
		// The plan has a fixed number of windows: the last ones repeat, unscored.
		for len(windows) < j.recipe.Train.MicroBatch {
			w := windows[0]
			w.Targets = slices.Repeat([]int32{pack.NotScored}, j.sequence)
			windows = append(windows, w)
		}
		nll, err := j.plans.NLL(ctx, batch(windows))
		if err != nil {
			return r, err
		}
		for _, v := range nll {
			sum += float64(v)
		}
	}
	r.Documents = int(s.Stats().Documents)
	if r.Tokens == 0 {
		return r, errors.New("evaluation: the documents have no token to score")
	}
	r.Loss = sum / float64(r.Tokens)
	r.Perplexity = math.Exp(r.Loss)
	if math.IsNaN(r.Perplexity) || math.IsInf(r.Perplexity, 0) {
		return r, fmt.Errorf("evaluation: the loss is %v: training has diverged", r.Loss)
	}
	return r, nil
}
