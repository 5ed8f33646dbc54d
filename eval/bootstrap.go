package eval

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"autodev/internal/rng"
)

// Resamples is the number of bootstrap resamples behind every interval.
const Resamples = 10000

// Interval is a 95 % confidence interval.
type Interval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Bootstrap resamples clusters with replacement (Efron 1979; percentile intervals) and returns the interval of each result's
// perplexity and of its ratio to the first result's. The ratio is paired: each resample draws the same clusters for all
// results, so all must have been scored on the same clusters. The error is ctx's.
func Bootstrap(ctx context.Context, seed uint64, results []Result) (perplexities, ratios []Interval, err error) {
	n := len(results[0].Clusters)
	ppl := make([][]float64, len(results))
	ratio := make([][]float64, len(results))
	weight := make([]int32, n)
	for r := range Resamples {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		clear(weight)
		g := rng.New(seed, "bootstrap", uint64(r))
		for range n {
			weight[g.IntN(n)]++
		}
		for i, res := range results {
			ppl[i] = append(ppl[i], perplexity(res.Protocol, res.Clusters, weight))
			ratio[i] = append(ratio[i], ppl[i][r]/ppl[0][r])
		}
	}
	for i := range results {
		perplexities = append(perplexities, percentiles(ppl[i]))
		ratios = append(ratios, percentiles(ratio[i]))
	}
	return perplexities, ratios, nil
}

func percentiles(xs []float64) Interval {
	// A resample of documents that are all too short to be scored says nothing.
	xs = slices.DeleteFunc(xs, math.IsNaN)
	slices.Sort(xs)
	return Interval{stat.Quantile(0.025, stat.LinInterp, xs, nil), stat.Quantile(0.975, stat.LinInterp, xs, nil)}
}
