package cpu

import (
	"slices"

	"autodev/compute"
	"autodev/compute/cpu/vec"
)

// Embed is compute.Embed for tables of rows of the given width. Ids and positions out of range are a *compute.RangeError.
func (k Kernels) Embed(y, table, positionsTable []float32, ids, positions []int32, width int) error {
	if err := compute.CheckIDs("ids", ids, len(table)/width); err != nil {
		return err
	}
	if err := compute.CheckIDs("positions", positions, len(positionsTable)/width); err != nil {
		return err
	}
	k.rows(len(ids), width, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			row, position := int(ids[i])*width, int(positions[i])*width
			vec.Add(y[i*width:(i+1)*width], table[row:row+width], positionsTable[position:position+width])
		}
	})
	return nil
}

// EmbedGradWork returns the scratch of EmbedGrad for n tokens.
func EmbedGradWork(n int) int { return 2 * n }

// EmbedGrad is compute.EmbedGrad for dy [len(ids),width]. Ids out of range are a *compute.RangeError.
func (k Kernels) EmbedGrad(dtable, dy []float32, ids []int32, width int, work []float32) error {
	if err := compute.CheckIDs("ids", ids, len(dtable)/width); err != nil {
		return err
	}
	// Tokens sorted by id, then by place: each id's tokens are a run in token order.
	order := uint64s(work)[:len(ids)]
	for i, id := range ids {
		order[i] = uint64(id)<<32 | uint64(i)
	}
	slices.Sort(order)
	k.spans(len(order), 64, func(lo, hi int) {
		// A piece handles the runs that start inside it.
		for lo > 0 && lo < hi && order[lo]>>32 == order[lo-1]>>32 {
			lo++
		}
		for lo < hi {
			end := lo + 1
			for end < len(order) && order[end]>>32 == order[lo]>>32 {
				end++
			}
			addRows(dtable[int(order[lo]>>32)*width:][:width], dy, order[lo:end])
			lo = end
		}
	})
	return nil
}

// addRows adds the sum of dy's rows (places in the low half of the elements of tokens) to row.
func addRows(row, dy []float32, tokens []uint64) {
	const columns = 256
	for c := 0; c < len(row); c += columns {
		part := row[c:min(c+columns, len(row))]
		var sum [columns]float32
		acc := sum[:len(part)]
		for _, t := range tokens {
			at := int(uint32(t))*len(row) + c
			vec.Add(acc, acc, dy[at:at+len(part)])
		}
		vec.Add(part, part, acc)
	}
}
