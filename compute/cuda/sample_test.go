package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// sampleCase is rows of logits, and how their tokens are drawn.
type sampleCase struct {
	vocab, stride int
	logits        []float32
	masked        []uint8
	draws         []Draw
}

func (c sampleCase) run(b workbench) []int32 {
	b.t.Helper()
	n := len(c.draws)
	words := make([]int32, n*DrawWords)
	for i, d := range c.draws {
		d.Put(words[i*DrawWords:])
	}
	choices, logits, masked, draws := b.empty(4*n), put(b, c.logits), put(b, c.masked), put(b, words)
	b.run(func(q *Queue) (Op, error) { return sample(q, choices, logits, masked, draws, n, c.vocab, c.stride) })
	return get[int32](b, choices, n)
}

func (c sampleCase) row(i int) []float32 { return c.logits[i*c.stride:][:c.vocab] }

// check compares a choice with the definition in float64. exact says that it is the same token; otherwise it is one next to it, where rounding
// decides, or err is not nil. Without topK and topP tokens are drawn in their order, else in that of their logits.
func (d Draw) check(logits []float32, masked []uint8, got int32) (exact bool, err error) {
	var ids []int
	for id, l := range logits {
		if masked[id] == 0 && l == l && !math.IsInf(float64(l), -1) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		if got != NoToken {
			return false, fmt.Errorf("token %d of no logits", got)
		}
		return true, nil
	}
	byLogit := slices.Clone(ids)
	slices.SortStableFunc(byLogit, func(a, b int) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return 0
	})
	top := float64(logits[byLogit[0]])
	p := func(id int) float64 {
		if float64(logits[id]) == top {
			return 1
		}
		return math.Exp((float64(logits[id]) - top) / d.Temperature)
	}
	first := d.TopK > 0 || d.TopP > 0 && d.TopP < 1
	if first {
		ids = byLogit
	}
	if d.TopK > 0 {
		ids = ids[:min(d.TopK, len(ids))]
	}
	all := 0.0
	for _, id := range ids {
		all += p(id)
	}
	// The largest and the smallest of what rounding may leave; a token is among the first or not, and so are all before it.
	const unit = 3e-6
	left := func(topP, minP float64) (n int, total float64) {
		for _, id := range ids {
			if first && (total > 0 && topP < 1 && total >= topP*all || p(id) < minP) {
				break
			}
			if n++; p(id) >= minP {
				total += p(id)
			}
		}
		return n, total
	}
	topP := d.TopP
	if topP == 0 {
		topP = 1
	}
	n, total := left(topP, d.MinP)
	_, least := left(topP-unit, d.MinP*(1+unit))
	_, most := left(min(topP+unit, math.Nextafter(1, 0)), d.MinP*(1-unit))
	if topP == 1 {
		_, most = left(1, d.MinP*(1-unit))
	}
	at := 0.0
	for i, id := range ids {
		if !first && p(id) < d.MinP*(1-unit) {
			continue
		}
		next := at + p(id)
		if int32(id) == got {
			if d.Place*total >= at && d.Place*total < next && i < n {
				return true, nil
			}
			if d.Place*most < at-unit*all || d.Place*least > next+unit*all {
				return false, fmt.Errorf("token %d, which is %.7f to %.7f of %.7f (%.7f to %.7f), drawn at %.7f", got, at, next, total, least, most, d.Place*total)
			}
			return false, nil
		}
		at = next
	}
	return false, fmt.Errorf("token %d is none of %d that are left", got, n)
}

func randomDraw(r *rand.Rand) Draw {
	pick := func(all ...float64) float64 { return all[r.IntN(len(all))] }
	return Draw{Temperature: pick(0.2, 0.8, 1, 1.7), TopK: int(pick(0, 0, 1, 3, 40, 2000)), TopP: pick(0, 0, 0.1, 0.5, 0.95, 0.999, 1), MinP: pick(0, 0, 0.05, 0.5, 1), Place: r.Float64()}
}

// sampleCases have rows of random numbers, some with many equal ones, NaNs and infinities.
func sampleCases() (all []sampleCase) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, vocab := range []int{1, 5, 33, 1000, 4099, 9001} {
		c := sampleCase{vocab: vocab, stride: vocab + 3, masked: make([]uint8, vocab)}
		if vocab > 5 {
			c.masked[7], c.masked[vocab-2] = 1, 1
		}
		row := func(d Draw, logit func(i int) float64) {
			for i := range c.stride {
				x := 100.0 // beside the row
				if i < vocab {
					x = logit(i)
				}
				c.logits = append(c.logits, float32(x))
			}
			c.draws = append(c.draws, d)
		}
		for range 24 {
			spread := []float64{0.5, 3, 10}[r.IntN(3)]
			d := randomDraw(r)
			switch r.IntN(4) {
			case 0: // equal ones
				row(d, func(int) float64 { return math.Round(spread * r.NormFloat64()) })
			case 1: // numbers and others
				row(d, func(int) float64 {
					return []float64{math.NaN(), math.Inf(-1), spread * r.NormFloat64()}[r.IntN(3)]
				})
			default:
				row(d, func(int) float64 { return spread * r.NormFloat64() })
			}
		}
		row(randomDraw(r), func(int) float64 { return math.NaN() })
		row(randomDraw(r), func(int) float64 { return math.Inf(-1) })
		row(Draw{Temperature: 1}, func(i int) float64 { return []float64{math.Inf(1), 3}[i%2] })
		row(Draw{Temperature: 1e-42, Place: 0.5}, func(i int) float64 { return float64(-i) })
		row(Draw{Temperature: 1, TopP: 0.5, Place: math.Nextafter(1, 0)}, func(int) float64 { return spreadOf(r) })
		row(Draw{Temperature: 1, Place: math.Nextafter(1, 0)}, func(int) float64 { return spreadOf(r) })
		all = append(all, c)
	}
	return all
}

func spreadOf(r *rand.Rand) float64 { return 4 * r.NormFloat64() }

func TestSample(t *testing.T) {
	onBench(t, func(b workbench) {
		rows, same, host := 0, 0, 0
		for _, c := range sampleCases() {
			for i, got := range c.run(b) {
				if rows++; got == NotChosen {
					host++
					continue
				}
				exact, err := c.draws[i].check(c.row(i), c.masked, got)
				if err != nil {
					b.t.Errorf("%d tokens, row %d, %+v: %v", c.vocab, i, c.draws[i], err)
				}
				if exact {
					same++
				}
			}
		}
		if same+host < rows*98/100 || host > rows/10 {
			b.t.Errorf("of %d rows %d are as in float64, %d are left to the host", rows, same, host)
		}
	})
}

// TestSampleLeaves: where more tokens than can be sorted may be left, the choice is the host's; a token less is enough.
func TestSampleLeaves(t *testing.T) {
	onBench(t, func(b workbench) {
		c := sampleCase{vocab: 6000, stride: 6000, masked: make([]uint8, 6000), draws: []Draw{
			{Temperature: 1, TopK: 4096, Place: 0.99999}, {Temperature: 1, TopK: 4096, Place: 0.99999}, {Temperature: 1, TopP: 0.9}, {Temperature: 1, Place: 0.99999},
		}}
		for row := range c.draws {
			for i := range c.vocab {
				l := float32(0)
				if row == 0 && i >= 4096 {
					l = -5
				}
				c.logits = append(c.logits, l)
			}
		}
		if got, want := c.run(b), []int32{4095, NotChosen, NotChosen, 5999}; !slices.Equal(got, want) {
			b.t.Errorf("chosen %v, expected %v", got, want)
		}
	})
}

// TestSamplePlantedBugs: without a barrier tokens are others.
func TestSamplePlantedBugs(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for bug, d := range map[string]Draw{
		"sample.cu:sample_barrier":      {Temperature: 1},
		"sample.cu:sample_sort_barrier": {Temperature: 1, TopK: 700},
	} {
		c := sampleCase{vocab: 2000, stride: 2000, masked: make([]uint8, 2000)}
		for row := range 8 {
			d.Place = r.Float64()
			c.draws = append(c.draws, d)
			for i := range c.vocab {
				x := r.NormFloat64()
				if d.TopK == 0 && i == 250*row+3 { // all but certain
					x = 40
				}
				c.logits = append(c.logits, float32(x))
			}
		}
		planted(t, bug, 3, func(b workbench) bool {
			for i, got := range c.run(b) {
				if _, err := c.draws[i].check(c.row(i), c.masked, got); err != nil {
					return true
				}
			}
			return false
		})
	}
}

func TestSampleRefuses(t *testing.T) {
	d := openAny(t, 1)
	for _, sizes := range [][3]int{{0, 8, 8}, {1, 0, 8}, {1, 9, 8}} {
		if err := d.Do(func(q *Queue) error {
			_, err := sample(q, 256, 256, 256, 256, sizes[0], sizes[1], sizes[2])
			return err
		}); err == nil {
			t.Errorf("%v was prepared", sizes)
		}
	}
}
