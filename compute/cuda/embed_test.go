package cuda

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func randomIDs(seed uint64, n, limit int) []int32 {
	r := rand.New(rand.NewPCG(seed, 3))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(min(r.IntN(limit), r.IntN(limit))) // some are frequent
	}
	return ids
}

func TestEmbed(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, shape := range []struct{ n, rows, places, width int }{{1, 1, 1, 1}, {5, 9, 4, 24}, {300, 40, 8, 13}, {9, 7, 9, 520}} {
				table, places := random(1, shape.rows*shape.width, s.store), random(2, shape.places*shape.width, s.store)
				ids, positions := randomIDs(3, shape.n, shape.rows), randomIDs(4, shape.n, shape.places)
				if shape.n > 4 { // outside of their tables
					ids[1], positions[2], ids[4] = int32(shape.rows), -1, -1<<31
				}
				want := make([]float32, shape.n*shape.width)
				for i := range ids {
					for j := range shape.width {
						v := round(nan, s.store)
						if id, p := int(ids[i]), int(positions[i]); id >= 0 && id < shape.rows && p >= 0 && p < shape.places {
							v = round(table[id*shape.width+j]+places[p*shape.width+j], s.store)
						}
						want[i*shape.width+j] = v
					}
				}
				y, pt, pp, pi, pq := b.empty(len(want)*s.store.Size()), b.floats(table, s.store), b.floats(places, s.store), put(b, ids), put(b, positions)
				b.run(func(q *Queue) (Op, error) {
					return embed(q, y, pt, pp, pi, pq, shape.n, shape.rows, shape.places, shape.width, s.store)
				})
				got := b.read(y, len(want), s.store)
				for i := range want {
					if got[i] != want[i] && (got[i] == got[i] || want[i] == want[i]) {
						b.t.Fatalf("%v %v: element %d is %v, expected %v", s.store, shape, i, got[i], want[i])
					}
				}
			}
		}
	})
}

// embedGradient returns the table's gradient on the device, and as it is defined: rows summed in token order, then added.
func embedGradient(b workbench, n, rows, width int, ids []int32, s Store) (got, want []float32) {
	dy := random(5, n*width, s)
	want = random(6, rows*width, F32)
	table := put(b, want)
	want = slices.Clone(want)
	for row := range rows {
		for j := range width {
			sum, found := float32(0), false
			for i, id := range ids {
				if int(id) == row {
					sum, found = sum+dy[i*width+j], true
				}
			}
			if found {
				want[row*width+j] += sum
			}
		}
	}
	pdy, pids, work := b.floats(dy, s), put(b, ids), b.empty(2*4*n)
	b.run(func(q *Queue) (Op, error) { return embedGrad(q, table, pdy, pids, work, n, rows, width, s) })
	return get[float32](b, table, len(want)), want
}

func TestEmbedGrad(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range stores {
			for _, shape := range [][3]int{{1, 1, 1}, {7, 5, 24}, {128, 3, 8}, {300, 40, 13}, {131, 9, 520}} {
				ids := randomIDs(uint64(shape[0]), shape[0], shape[1])
				if shape[0] > 100 { // outside of the table: left out
					ids[5], ids[50], ids[90] = -1, int32(shape[1]), -1<<31
				}
				got, want := embedGradient(b, shape[0], shape[1], shape[2], ids, s.store)
				sameBits(b.t, fmt.Sprint(s.store, shape), got, want)
			}
		}
	})
}

func TestEmbedGradWithoutBarrierIsCaught(t *testing.T) {
	planted(t, "embed.cu:embed_order_barrier", 4, func(b workbench) bool {
		got, want := embedGradient(b, 400, 50, 8, randomIDs(1, 400, 50), F32)
		return !slices.Equal(got, want)
	})
}
