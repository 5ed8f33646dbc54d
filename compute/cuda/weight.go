package cuda

import "fmt"

// Weight is a matrix [out,in] of Inference's operations on the device. With Bits 0 it is in their Store at At. With 8 or 4 it is in the stored form of package
// compute/cpu/quant, codes at At and Scales, which are multiples of 16; in is a multiple of 4 then.
type Weight struct {
	At, Scales Ptr
	Bits       int
}

func (w Weight) quantised(in, out int) quantised {
	return quantised{codes: w.At, scales: w.Scales, bits: w.Bits, in: in, out: out}
}

// mostWide bounds the memory that weights of codes are widened in: products of parts of this size are as fast as whole ones.
const mostWide = 64 << 20

// WideBytes returns the memory that products of more than FewRows rows with weights [out,in] of codes want for Widening.
func (s Store) WideBytes(in, out int) int64 {
	panel := int64(s.Size()) * int64(in) * quantPanel
	return panel * min(int64(ceilDiv(out, quantPanel)), max(1, mostWide/panel))
}

// Widening returns the operations with memory at which weights of codes are brought into the Store, a part of WideBytes or fewer at a time, before they are
// multiplied with more than FewRows rows. It is in use while such a product runs.
func (k Inference) Widening(at Ptr, bytes int64) Inference {
	k.wide, k.wideBytes = at, bytes
	return k
}

// part returns how many outputs' weights are widened at a time: parts are about equal.
func (k Inference) part(in, out int) (int, error) {
	most := k.wideBytes / (int64(k.s.Size()) * int64(in) * quantPanel)
	if k.wide == 0 || most < 1 {
		return 0, fmt.Errorf("cuda: %d bytes to widen weights in, expected at least %d", k.wideBytes, int64(k.s.Size())*int64(in)*quantPanel)
	}
	panels := int64(ceilDiv(out, quantPanel))
	parts := (panels + most - 1) / most
	return int((panels+parts-1)/parts) * quantPanel, nil
}

// Widen prepares y [out,in] in the Store = the weights w [out,in] of codes.
func (k Inference) Widen(y Ptr, w Weight, in, out int) (Sequence, error) {
	return sequence(widenQuant(k.q, y, w.quantised(in, out), k.s))
}
