// Command attendgen writes the assembly of package attend for AVX-512 and AVX2:
//
//	go run . -pkg attend -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("!noasm")
	for _, k := range []kind{floats512, pairs512} {
		for rows := 1; rows <= 8; rows++ {
			tile(k, rows, false)
		}
		tile(k, 8, true)
	}
	for _, k := range []kind{floats2, pairs2} {
		for rows := 1; rows <= 4; rows++ {
			tile(k, rows, false)
		}
		tile(k, 4, true)
	}
	transpose512()
	round512()
	interleave512()
	widen512()
	merge512()
	exponentials512()
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

// param loads an argument into a register.
func param(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// words loads a stride given in 32-bit words and turns it into bytes.
func words(name string) reg.GPVirtual {
	r := param(name)
	SHLQ(operand.Imm(2), r)
	return r
}

// pragma and documentation of a function.
func function(name, signature, doc string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

// rawBytes emits an instruction that the assembler does not know.
func rawBytes(bytes ...byte) {
	for _, b := range bytes {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(b)}})
	}
}

// evex emits a 512-bit register-to-register instruction of map 0F38, prefix F3, W0: op dst, first, second in Intel's order.
func evex(opcode byte, dst, first, second reg.VecPhysical) {
	d, v, s := index(dst), index(first), index(second)
	not := func(x, bit int) byte { return byte(^x >> bit & 1) }
	rawBytes(
		0x62,
		not(d, 3)<<7|not(s, 4)<<6|not(s, 3)<<5|not(d, 4)<<4|0x02,
		byte(^v&15)<<3|0x06,
		0x40|not(v, 4)<<3,
		opcode,
		0xc0|byte(d&7)<<3|byte(s&7),
	)
}

func index(r reg.VecPhysical) int { return int(r.PhysicalIndex()) }

// vdpbf16ps adds to each float32 of acc the two products of bfloat16 that stand in the same 32 bits of a and b.
func vdpbf16ps(a, b, acc reg.VecPhysical) { evex(0x52, acc, b, a) }

// vcvtneps2bf16 rounds the 16 float32 of x to 16 bfloat16 in the lower half of y.
func vcvtneps2bf16(x, y reg.VecPhysical) { evex(0x72, y, zmm[0], x) }
