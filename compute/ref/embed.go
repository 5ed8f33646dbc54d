package ref

import "autodev/compute"

// Embed sets row i of y [n,width] to row ids[i] of table plus row positions[i] of positionsTable.
func Embed[T Float](y, table, positionsTable []T, ids, positions []int32, width int) error {
	if err := compute.CheckIDs("ids", ids, len(table)/width); err != nil {
		return err
	}
	if err := compute.CheckIDs("positions", positions, len(positionsTable)/width); err != nil {
		return err
	}
	for i := range ids {
		for j := range width {
			y[i*width+j] = table[int(ids[i])*width+j] + positionsTable[int(positions[i])*width+j]
		}
	}
	return nil
}

// EmbedGrad adds to each row of dtable the sum of the rows of dy [n,width] whose id it is.
func EmbedGrad[T Float](dtable, dy []T, ids []int32, width int) error {
	if err := compute.CheckIDs("ids", ids, len(dtable)/width); err != nil {
		return err
	}
	for row := range len(dtable) / width {
		for j := range width {
			sum, any := 0.0, false
			for i, id := range ids {
				if int(id) == row {
					sum, any = sum+float64(dy[i*width+j]), true
				}
			}
			if any {
				dtable[row*width+j] += T(sum)
			}
		}
	}
	return nil
}
