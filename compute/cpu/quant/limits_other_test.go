//go:build !amd64 || noasm

package quant

// peakDot returns 0: there is no instruction for it.
func peakDot(int) int { return 0 }

func readAll(b []byte) { readGeneric(b) }
