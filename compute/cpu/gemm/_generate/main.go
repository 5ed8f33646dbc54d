// Command gemmgen writes the assembly of package gemm for AVX-512 and AVX2:
//
//	go run . -pkg gemm -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!noasm")
	for rows := 1; rows <= 14; rows++ {
		tile512("tile512", float32s, rows)
		tile512("tileBF16", bf16Dot, rows)
		tile512("tileSpread512", bf16Spread, rows)
	}
	for rows := 1; rows <= 6; rows++ {
		tile2("tile2", float32s, rows)
		tile2("tileSpread2", bf16Spread, rows)
	}
	for rows := 1; rows <= streamRows; rows++ {
		stream512("stream512", float32s, rows)
		stream512("streamBF16", bf16Dot, rows)
		stream512("streamSpread512", bf16Spread, rows)
		stream2("stream2", float32s, rows)
		stream2("streamSpread2", bf16Spread, rows)
	}
	for rows := 1; rows <= 16; rows++ {
		transpose512(rows)
		transposeBF16(rows)
	}
	for _, rows := range []int{6, 8} {
		transpose2(rows)
	}
	copy512()
	pairBF16()
	copyPanels512()
	pairPanelsBF16()
	copy2()
	Generate()
}

// streamRows is the most rows of a stream function.
const streamRows = 4

var (
	zmm = []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	ymm = []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	}
)

// alignLoop starts the next instruction on a cache line.
func alignLoop() {
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []operand.Op{operand.Imm(64)}})
}

// param loads an argument into a register.
func param(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// bytes loads a stride given in elements and turns it into bytes.
func bytes(name string) reg.GPVirtual {
	r := param(name)
	SHLQ(operand.Imm(2), r)
	return r
}

// times3 returns 3·r.
func times3(r reg.GPVirtual) reg.GPVirtual {
	r3 := GP64()
	LEAQ(operand.Mem{Base: r, Index: r, Scale: 2}, r3)
	return r3
}

// row addresses row i, 0 ≤ i < 4, of a matrix with the given stride and three times that stride.
func row(base, stride, stride3 reg.Register, i, disp int) operand.Mem {
	switch i {
	case 1:
		return operand.Mem{Base: base, Index: stride, Scale: 1, Disp: disp}
	case 2:
		return operand.Mem{Base: base, Index: stride, Scale: 2, Disp: disp}
	case 3:
		return operand.Mem{Base: base, Index: stride3, Scale: 1, Disp: disp}
	}
	return operand.Mem{Base: base, Disp: disp}
}
