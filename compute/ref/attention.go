package ref

import (
	"math"

	"autodev/compute"
)

// Attention sets y [n,H·D] to causal soft-max attention over qkv [n,(H+2·KV)·D] (Vaswani et al. 2017; grouped key heads:
// Ainslie et al. 2023). a gives heads, sequence length, scale and dropout; key is read when a.Drop > 0. With
// a.BF16 what enters a product (queries and keys, dropped probabilities and values) is rounded.
func Attention[T Float](y, qkv []T, docStart []int32, key [2]int32, a compute.Attr) error {
	if err := compute.CheckDocStart(docStart, a.Seq); err != nil {
		return err
	}
	d, width := a.HeadDim, (a.Heads+2*a.KVHeads)*a.HeadDim
	qkv = operandsOf(qkv, a.BF16)
	round := rounding(a.BF16)
	for i := range docStart {
		for h := range a.Heads {
			p, keep := probabilities(qkv, docStart, key, a, i, h)
			for j := range d {
				sum := 0.0
				for u := range p {
					sum += round(p[u]*keep[u]) * float64(qkv[(i/a.Seq*a.Seq+u)*width+valueColumn(a, h)+j])
				}
				y[(i*a.Heads+h)*d+j] = T(sum)
			}
		}
	}
	return nil
}

// LogSumExp sets lse [n,H] to the logarithms of Attention's soft-max sums. Document starts must be in range.
func LogSumExp[T Float](lse, qkv []T, docStart []int32, a compute.Attr) {
	qkv = operandsOf(qkv, a.BF16)
	for i := range docStart {
		for h := range a.Heads {
			x, largest := scores(qkv, docStart, a, i, h)
			sum := 0.0
			for u := int(docStart[i]); u < len(x); u++ {
				sum += math.Exp(x[u] - largest)
			}
			lse[i*a.Heads+h] = T(largest + math.Log(sum))
		}
	}
}

// AttentionGrad sets dqkv to the gradient of Attention with respect to qkv.
func AttentionGrad[T Float](dqkv, dy, qkv []T, docStart []int32, key [2]int32, a compute.Attr) error {
	if err := compute.CheckDocStart(docStart, a.Seq); err != nil {
		return err
	}
	d, width := a.HeadDim, (a.Heads+2*a.KVHeads)*a.HeadDim
	qkv, dy = operandsOf(qkv, a.BF16), operandsOf(dy, a.BF16)
	round := rounding(a.BF16)
	grad := make([]float64, len(dqkv))
	for i := range docStart {
		for h := range a.Heads {
			p, keep := probabilities(qkv, docStart, key, a, i, h)
			query := i*width + h*d
			dp, mean := make([]float64, len(p)), 0.0
			for u := range p {
				value := (i/a.Seq*a.Seq+u)*width + valueColumn(a, h)
				for j := range d {
					g := float64(dy[(i*a.Heads+h)*d+j])
					dp[u] += g * float64(qkv[value+j]) * keep[u]
					grad[value+j] += round(p[u]*keep[u]) * g
				}
				mean += p[u] * dp[u]
			}
			for u := range p {
				ds := round(p[u]*(dp[u]-mean)) * a.Scale
				keyAt := (i/a.Seq*a.Seq+u)*width + keyColumn(a, h)
				for j := range d {
					grad[query+j] += ds * float64(qkv[keyAt+j])
					grad[keyAt+j] += ds * float64(qkv[query+j])
				}
			}
		}
	}
	for i, g := range grad {
		dqkv[i] = T(g)
	}
	return nil
}

func keyColumn(a compute.Attr, h int) int {
	return (a.Heads + h/(a.Heads/a.KVHeads)) * a.HeadDim
}

func valueColumn(a compute.Attr, h int) int { return keyColumn(a, h) + a.KVHeads*a.HeadDim }

// probabilities returns, for the query of token i in head h, the soft-max over tokens 0..t of its sequence (0 before the
// document's start) and the factor that dropout gives each of them.
func probabilities[T Float](qkv []T, docStart []int32, key [2]int32, a compute.Attr, i, h int) (p, keep []float64) {
	sequence, t := i/a.Seq, i%a.Seq
	p, largest := scores(qkv, docStart, a, i, h)
	keep = make([]float64, t+1)
	sum := 0.0
	for u := int(docStart[i]); u <= t; u++ {
		p[u] = math.Exp(p[u] - largest)
		sum += p[u]
	}
	for u := int(docStart[i]); u <= t; u++ {
		p[u] /= sum
		keep[u] = kept(key, a.Salt, a.Drop, ((uint64(sequence)*uint64(a.Heads)+uint64(h))*uint64(a.Seq)+uint64(t))*uint64(a.Seq)+uint64(u))
	}
	return p, keep
}

// scores returns the scaled products of the query of token i in head h with the keys it sees, by token of its sequence, and the largest.
func scores[T Float](qkv []T, docStart []int32, a compute.Attr, i, h int) (x []float64, largest float64) {
	d, width := a.HeadDim, (a.Heads+2*a.KVHeads)*a.HeadDim
	sequence, t := i/a.Seq, i%a.Seq
	x, largest = make([]float64, t+1), math.Inf(-1)
	for u := int(docStart[i]); u <= t; u++ {
		for j := range d {
			x[u] += float64(qkv[i*width+h*d+j]) * float64(qkv[(sequence*a.Seq+u)*width+keyColumn(a, h)+j])
		}
		x[u] *= a.Scale
		largest = max(largest, x[u])
	}
	return x, largest
}
