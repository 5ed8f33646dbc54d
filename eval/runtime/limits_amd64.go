//go:build !noasm

package runtime

import "golang.org/x/sys/cpu"

// limitLoops returns the instruction loops of this processor's limits, with the operations of a round.
func limitLoops() (l loops) {
	x := &cpu.X86
	if !x.HasAVX512F {
		return l
	}
	const instructions, floats = 28, 16
	l.fma = loop{repeatFMA, instructions * floats * 2}
	if x.HasAVX512BF16 {
		l.bf16 = loop{repeatBF16, instructions * floats * 4}
	}
	if x.HasAVX512VNNI {
		l.int8 = loop{repeatInt8, instructions * floats * 8}
	}
	return l
}

// readBytes loads all of b, whose length is a multiple of 256, and does nothing with it.
func readBytes(b []byte) {
	if cpu.X86.HasAVX512F {
		readLines(len(b), &b[0])
	} else {
		readWords(b)
	}
}
