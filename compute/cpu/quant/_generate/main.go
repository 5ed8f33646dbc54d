// Command quantgen writes the assembly of package quant for AVX-512 VNNI and AVX2:
//
//	go run . -pkg quant -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!noasm")
	for _, int4 := range []bool{false, true} {
		for rows := 1; rows <= 14; rows++ {
			multiply512(rows, 1, int4)
		}
		// Tiles of a batch have at least half of 14 rows.
		for rows := 7; rows <= 14; rows++ {
			multiply512(rows, 2, int4)
		}
	}
	for rows := 1; rows <= 2; rows++ {
		multiply2Int8(rows)
		multiply2Int4(rows)
	}
	finish512()
	finish2()
	set512()
	maxBits2()
	quantize2()
	search(true)
	search(false)
	peak512()
	read512()
	Generate()
}

var (
	zmm = []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}
	ymm = []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	}
)

// The offsets of tile's fields.
const (
	tileCodes, tileScales, tileCodeStep, tileScaleStep, tileX = 0, 8, 16, 24, 32
	tileSums, tileScale, tileC, tileLDC, tileIn, tilePanels   = 40, 48, 56, 64, 72, 80
	tileLDY, tileY, tileBase                                  = 88, 96, 104
)

// The offsets of output's fields.
const (
	outputY, outputC, outputBias, outputBase       = 0, 8, 16, 24
	outputLDY, outputLDC, outputRows, outputLength = 32, 40, 48, 56
)

// field loads a field of the struct that t points to.
func field(t reg.Register, offset int) reg.GPVirtual {
	r := GP64()
	MOVQ(operand.Mem{Base: t, Disp: offset}, r)
	return r
}

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// param loads an argument into a register.
func param(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

func copyOf(r reg.GPVirtual) reg.GPVirtual {
	c := GP64()
	MOVQ(r, c)
	return c
}

// alignLoop starts the next instruction on a cache line.
func alignLoop() {
	Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []operand.Op{operand.Imm(64)}})
}

// broadcast32 returns a vector register with v in every 32-bit element.
func broadcast32(v uint32, to reg.VecPhysical) {
	r := GP32()
	MOVL(operand.U32(v), r)
	if to.Size() == 64 {
		VPBROADCASTD(r, to)
		return
	}
	VMOVD(r, to.AsX())
	VPBROADCASTD(to.AsX(), to)
}
