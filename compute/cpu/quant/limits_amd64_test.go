//go:build !noasm

package quant

// peakDot runs dot products in registers and returns the operations done.
func peakDot(rounds int) int {
	if best().level != "avx512" {
		return 0
	}
	peak512(rounds)
	return rounds * 28 * 64 * 2
}

func readAll(b []byte) {
	if best().level == "avx512" {
		read512(len(b)&^255, &b[0])
	} else {
		readGeneric(b)
	}
}
