package vec

import "math"

// KeepMask sets keep[4·i+j] to 0 where word j of Philox4x32-10 block first+i (key, salt) is below threshold, else to factor:
// the dropout factors of consecutive elements (compute.DropWords). The length of keep is a multiple of 4.
func KeepMask(keep []float32, key [2]uint32, salt uint32, first uint64, threshold uint32, factor float32) {
	keepMaskGeneric(keep, key, salt, first, threshold, factor)
}

// keepMaskGeneric computes two blocks at a time: one block's rounds are a chain of multiplications that leaves the processor
// idle.
func keepMaskGeneric(keep []float32, key [2]uint32, salt uint32, first uint64, threshold uint32, factor float32) {
	for ; len(keep) > 0; first += 2 {
		second := first + 1
		a0, a1, a2, a3 := uint32(first), uint32(first>>32), salt, uint32(0)
		b0, b1, b2, b3 := uint32(second), uint32(second>>32), salt, uint32(0)
		k0, k1 := key[0], key[1]
		for range 10 {
			const m0, m1, w0, w1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
			ap, aq := m0*uint64(a0), m1*uint64(a2)
			bp, bq := m0*uint64(b0), m1*uint64(b2)
			a0, a1, a2, a3 = uint32(aq>>32)^a1^k0, uint32(aq), uint32(ap>>32)^a3^k1, uint32(ap)
			b0, b1, b2, b3 = uint32(bq>>32)^b1^k0, uint32(bq), uint32(bp>>32)^b3^k1, uint32(bp)
			k0 += w0
			k1 += w1
		}
		words := [8]uint32{a0, a1, a2, a3, b0, b1, b2, b3}
		n := min(len(keep), len(words))
		for i, w := range words[:n] {
			dropped := uint32((int64(w) - int64(threshold)) >> 63) // all ones or none: a branch would be mispredicted
			keep[i] = math.Float32frombits(math.Float32bits(factor) &^ dropped)
		}
		keep = keep[n:]
	}
}
