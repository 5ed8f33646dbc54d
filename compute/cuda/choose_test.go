package cuda

import (
	"math"
	"slices"
	"testing"
)

// greedyCase is rows of logits and the tokens that are to be chosen.
type greedyCase struct {
	vocab, stride int
	logits        []float32
	masked        []uint8
	want          []int32
}

// greedyCases have rows whose choice is known: the logits' order is that of random numbers but for what each row is about.
func greedyCases() (all []greedyCase) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, vocab := range []int{1, 5, 1000, 4099, 9001} {
		c := greedyCase{vocab: vocab, stride: vocab + 3, masked: make([]uint8, vocab)}
		row := func(want int, change func(x []float32)) {
			x := random(uint64(len(c.want)), c.stride, F32)
			for i := range x[:vocab] {
				x[i] -= 10
			}
			x[vocab] = 100 // padding
			change(x[:vocab])
			c.logits, c.want = append(c.logits, x...), append(c.want, int32(want))
		}
		for _, at := range []int{0, vocab / 3, vocab - 1} {
			row(at, func(x []float32) { x[at] = 1 })
			row(at, func(x []float32) { // the first of equal ones
				for i := at; i < vocab; i += 1 + (vocab-at)/7 {
					x[i] = 2
				}
			})
			row(at, func(x []float32) { // NaNs are nothing, zeros of both signs are equal
				for i := range x {
					x[i] = nan
				}
				x[at], x[vocab-1] = float32(math.Copysign(0, -1)), 0
			})
		}
		for _, none := range []float32{-inf, nan} {
			row(-1, func(x []float32) {
				for i := range x {
					x[i] = none
				}
			})
		}
		row(vocab-1, func(x []float32) { x[vocab-1] = inf })
		if vocab > 5 {
			c.masked[7], c.masked[vocab-2] = 1, 1
			row(vocab/2, func(x []float32) { x[7], x[vocab-2], x[vocab/2] = 50, inf, 3 })
			row(-1, func(x []float32) {
				for i := range x {
					x[i] = -inf
				}
				x[7] = 1
			})
		}
		all = append(all, c)
	}
	return all
}

func (c greedyCase) run(b workbench) []int32 {
	b.t.Helper()
	n := len(c.want)
	choices, logits, masked := b.empty(4*n), put(b, c.logits), put(b, c.masked)
	b.run(func(q *Queue) (Op, error) { return greedy(q, choices, logits, masked, n, c.vocab, c.stride) })
	return get[int32](b, choices, n)
}

func TestGreedy(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, c := range greedyCases() {
			if got := c.run(b); !slices.Equal(got, c.want) {
				b.t.Errorf("%d tokens: %v, expected %v", c.vocab, got, c.want)
			}
		}
	})
}

func TestGreedyPlantedBug(t *testing.T) {
	all := greedyCases()
	c := all[len(all)-1]
	planted(t, "choose.cu:greedy_barrier", 3, func(b workbench) bool { return !slices.Equal(c.run(b), c.want) })
}

func TestGreedyRefuses(t *testing.T) {
	d := openAny(t, 1)
	for _, sizes := range [][3]int{{0, 8, 8}, {1, 0, 8}, {1, 9, 8}} {
		if err := d.Do(func(q *Queue) error { _, err := greedy(q, 256, 256, 256, sizes[0], sizes[1], sizes[2]); return err }); err == nil {
			t.Errorf("%v was prepared", sizes)
		}
	}
}
