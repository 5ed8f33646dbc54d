// Command limitsgen writes the assembly of package runtime, the loops whose speed is the machine's limit:
//
//	go run . -pkg runtime -out ../limits_amd64.s -stubs ../limits_stubs_amd64.go
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

var zmm = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

func main() {
	ConstraintExpr("!noasm")
	repeat("repeatFMA", "VFMADD231PS", func(sum reg.VecPhysical) { VFMADD231PS(reg.Z30, reg.Z31, sum) })
	repeat("repeatBF16", "VDPBF16PS", vdpbf16ps)
	repeat("repeatInt8", "VPDPBUSD", func(sum reg.VecPhysical) { VPDPBUSD(reg.Z30, reg.Z31, sum) })
	read()
	Generate()
}

// repeat writes a loop of independent instructions on zeros.
func repeat(name, instruction string, emit func(sum reg.VecPhysical)) {
	TEXT(name, NOSPLIT, "func(rounds int)")
	Doc(name + " issues 28 independent " + instruction + " of 512 bits a round and nothing else.")
	n := Load(Param("rounds"), GP64())
	for _, z := range zmm {
		VPXORD(z, z, z)
	}
	Label("loop")
	for _, z := range zmm[:28] {
		emit(z)
	}
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// vdpbf16ps writes VDPBF16PS sum, Z31, Z30, which neither avo nor the Go assembler knows: EVEX.512.F3.0F38.W0 52 /r (Intel SDM,
// volume 2, section 2.7).
func vdpbf16ps(sum reg.VecPhysical) {
	d := byte(sum.PhysicalIndex())
	// R and R' are bits 3 and 4 of the sum's number, inverted; of Z30, X is 0 (bit 4) and B is 0 (bit 3); vvvv is 15 and V' 1, inverted.
	p0 := ^d>>3&1<<7 | ^d>>4&1<<4 | 2
	const p1, p2 = 4 | 2, 2 << 5
	word := func(opcode string, value operand.Op) {
		Instruction(&ir.Instruction{Opcode: opcode, Operands: []operand.Op{value}})
	}
	word("LONG", operand.U32(p2<<24|p1<<16|uint32(p0)<<8|0x62))
	word("WORD", operand.U16(uint16(3<<6|d&7<<3|30&7)<<8|0x52))
}

func read() {
	TEXT("readLines", NOSPLIT, "func(n int, p *byte)")
	Pragma("noescape")
	Doc("readLines loads n bytes, a multiple of 256, asking for them 2 KiB ahead.")
	n, p := Load(Param("n"), GP64()), Load(Param("p"), GP64())
	Label("loop")
	for i := range 4 {
		PREFETCHT0(operand.Mem{Base: p, Disp: 64*i + 2048})
		VPORD(operand.Mem{Base: p, Disp: 64 * i}, zmm[i], zmm[i])
	}
	ADDQ(operand.U32(256), p)
	SUBQ(operand.U32(256), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}
