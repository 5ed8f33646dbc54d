package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
)

// peak512 and read512 are the yardsticks of the benchmarks.
func peak512() {
	TEXT("peak512", NOSPLIT, "func(rounds int)")
	Doc("peak512 issues 28 independent VPDPBUSD a round and nothing else.")
	n := param("rounds")
	for _, z := range zmm {
		VPXORD(z, z, z)
	}
	alignLoop()
	Label("loop")
	for _, z := range zmm[:28] {
		VPDPBUSD(zmm[30], zmm[31], z)
	}
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func read512() {
	TEXT("read512", NOSPLIT, "func(n int, p *byte)")
	Pragma("noescape")
	Doc("read512 loads n bytes, a multiple of 256, asking ahead for them as the kernels do.")
	n, p := param("n"), param("p")
	alignLoop()
	Label("loop")
	for i := range 4 {
		PREFETCHT0(at(p, 64*i+ahead))
		VPORD(at(p, 64*i), zmm[i], zmm[i])
	}
	ADDQ(operand.U32(256), p)
	SUBQ(operand.U32(256), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}
