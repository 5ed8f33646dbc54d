package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Neither avo nor the Go assembler knows AVX512_BF16: its instructions are written as bytes.

// vdpbf16ps adds to the float32 of sum the products of the pairs of bf16 of a and b: first those of the upper halves, then
// those of the lower ones, each by one fused multiply-add.
func vdpbf16ps(b, a, sum reg.VecPhysical) { evex(2, 0x52, sum, a, b) }

// vcvtne2ps2bf16 rounds the float32 of low into the lower half of dst and those of high into its upper half.
func vcvtne2ps2bf16(low, high, dst reg.VecPhysical) { evex(3, 0x72, dst, high, low) }

// evex writes a 512-bit instruction of map 0F38 with mandatory prefix pp (2: F3, 3: F2), W0, no mask and three registers
// (Intel SDM, volume 2, section 2.7).
func evex(pp, opcode byte, dst, src1, src2 reg.VecPhysical) {
	d, s1, s2 := byte(dst.PhysicalIndex()), byte(src1.PhysicalIndex()), byte(src2.PhysicalIndex())
	inverted := func(id byte, from, to uint) byte { return ^id >> from & 1 << to }
	p0 := inverted(d, 3, 7) | inverted(s2, 4, 6) | inverted(s2, 3, 5) | inverted(d, 4, 4) | 2
	p1 := ^s1&15<<3 | 4 | pp
	p2 := 2<<5 | inverted(s1, 4, 3)
	modrm := 3<<6 | d&7<<3 | s2&7
	word := func(opcode string, value operand.Op) {
		Instruction(&ir.Instruction{Opcode: opcode, Operands: []operand.Op{value}})
	}
	word("LONG", operand.U32(uint32(p2)<<24|uint32(p1)<<16|uint32(p0)<<8|0x62))
	word("WORD", operand.U16(uint16(modrm)<<8|uint16(opcode)))
}
