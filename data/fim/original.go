package fim

import "autodev/data/numpyrng"

// Permute is the token-level transform of santacoder-finetuning and the original. It draws, in this order: whether to
// transform at all, two cuts in 0 … len(ids), PSM or SPM. The result has three tokens more, and no EOT; without
// transform it is ids itself.
func Permute(ids []int32, r *numpyrng.RandomState, rate, spmRate float64, s Sentinels) Example {
	if r.Bernoulli(rate) == 0 {
		return Example{IDs: ids}
	}
	a, b := r.Randint(len(ids)+1), r.Randint(len(ids)+1)
	a, b = min(a, b), max(a, b)
	t := Transformer{sentinels: s, opts: Options{Scope: Document}}
	return t.arrange(ids[:a], ids[a:b], ids[b:], r.Bernoulli(spmRate) == 1)
}
