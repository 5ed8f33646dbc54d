package ref

import (
	"math"

	"autodev/compute"
)

// CrossEntropy sets loss[0] to scale·Σ nll of x's rows [n,width] under the head w [V,width], dx to its gradient with respect
// to x, and adds that with respect to w to dw, which may be nil. Rows with a negative target are not scored; rows of w from
// a.Vocab on are masked out. With a.BF16 the operands of the three products (x, w, the logits' gradient) are rounded.
func CrossEntropy[T Float](loss, dx, dw, x, w []T, targets []int32, scale T, width int, a compute.Attr) error {
	if err := compute.CheckTargets(targets, a.Vocab); err != nil {
		return err
	}
	x, w = operandsOf(x, a.BF16), operandsOf(w, a.BF16)
	round := rounding(a.BF16)
	total := 0.0
	gradX, gradW := make([]float64, len(dx)), make([]float64, len(dw))
	for i, target := range targets {
		if target < 0 {
			continue
		}
		p, nll := distribution(x[i*width:(i+1)*width], w, int(target), a.Vocab)
		total += nll
		for v := range p {
			g := p[v]
			if v == int(target) {
				g--
			}
			g = round(g * float64(scale))
			for j := range width {
				gradX[i*width+j] += g * float64(w[v*width+j])
				if dw != nil {
					gradW[v*width+j] += g * float64(x[i*width+j])
				}
			}
		}
	}
	loss[0] = T(float64(scale) * total)
	for i, g := range gradX {
		dx[i] = T(g)
	}
	for i, g := range gradW {
		dw[i] += T(g)
	}
	return nil
}

// TokenNLL sets nll[i] to −log of the probability of targets[i], 0 where it is negative.
func TokenNLL[T Float](nll, x, w []T, targets []int32, width int, a compute.Attr) error {
	if err := compute.CheckTargets(targets, a.Vocab); err != nil {
		return err
	}
	x, w = operandsOf(x, a.BF16), operandsOf(w, a.BF16)
	for i, target := range targets {
		nll[i] = 0
		if target >= 0 {
			_, value := distribution(x[i*width:(i+1)*width], w, int(target), a.Vocab)
			nll[i] = T(value)
		}
	}
	return nil
}

// distribution returns the soft-max of the logits row·wᵀ over the first vocab rows of w, and −log of the target's share.
func distribution[T Float](row, w []T, target, vocab int) (p []float64, nll float64) {
	p = make([]float64, vocab)
	largest := math.Inf(-1)
	for v := range p {
		for j := range row {
			p[v] += float64(row[j]) * float64(w[v*len(row)+j])
		}
		largest = max(largest, p[v])
	}
	logit, sum := p[target], 0.0
	for v := range p {
		p[v] = math.Exp(p[v] - largest)
		sum += p[v]
	}
	for v := range p {
		p[v] /= sum
	}
	return p, math.Log(sum) + largest - logit
}
