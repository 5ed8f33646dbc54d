package calibrate

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"autodev/internal/rng"
)

// SampleOptions say how much text Sample takes.
type SampleOptions struct {
	Tokens int // in all, at least 1
	Window int // of one document, at least 1
	Seed   uint64
}

// Sample draws documents at random, cuts a window of tokens out of each at a random place, and returns windows of o.Tokens in
// all, fewer when there is no more text. Which documents depends on the seed and their number alone.
func Sample(ctx context.Context, texts iter.Seq2[string, error], encode func(string) []int32, o SampleOptions) ([][]int32, error) {
	type candidate struct {
		key  uint64
		text string
	}
	// Those with the smallest keys, sorted. Most documents fill a window.
	var drawn []candidate
	limit := 4*(o.Tokens/o.Window+1) + 64
	i := uint64(0)
	for text, err := range texts {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		c := candidate{rng.NewSource(o.Seed, "calibration document", i).Uint64(), text}
		i++
		if text == "" || len(drawn) == limit && c.key >= drawn[limit-1].key {
			continue
		}
		at, _ := slices.BinarySearchFunc(drawn, c, func(a, b candidate) int { return cmp.Compare(a.key, b.key) })
		drawn = slices.Insert(drawn, at, c)
		drawn = drawn[:min(len(drawn), limit)]
	}
	var windows [][]int32
	left := o.Tokens
	for i, c := range drawn {
		if left == 0 {
			break
		}
		ids := encode(c.text)
		if extra := len(ids) - o.Window; extra > 0 {
			ids = ids[rng.New(o.Seed, "calibration window", uint64(i)).IntN(extra+1):][:o.Window]
		}
		ids = ids[:min(len(ids), left)]
		if len(ids) > 0 {
			windows = append(windows, ids)
			left -= len(ids)
		}
	}
	return windows, nil
}
