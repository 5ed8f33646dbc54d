package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const absMask = 0x7fffffff

func maxBits2() {
	TEXT("maxBits2", NOSPLIT, "func(n int, x *float32) uint32")
	Pragma("noescape")
	Doc("maxBits2 returns the largest of the bits of |x[i]|, i < n, n a multiple of 64.")
	n, x := param("n"), param("x")
	most, mask := ymm[:4], ymm[4]
	broadcast32(absMask, mask)
	for _, m := range most {
		VPXOR(m, m, m)
	}
	Label("loop")
	for i := range 8 {
		VPAND(at(x, 32*i), mask, ymm[5+i])
		VPMAXUD(ymm[5+i], most[i%4], most[i%4])
	}
	ADDQ(operand.U32(256), x)
	SUBQ(operand.Imm(64), n)
	JNZ(operand.LabelRef("loop"))
	VPMAXUD(most[1], most[0], most[0])
	VPMAXUD(most[3], most[2], most[2])
	VPMAXUD(most[2], most[0], most[0])
	r := GP32()
	largest(most[0], most[1], r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// largest sets to to the largest of the eight elements of m, which is then the lowest of m.
func largest(m, t reg.VecPhysical, to reg.GPVirtual) {
	VEXTRACTI128(operand.Imm(1), m.AsY(), t.AsX())
	VPMAXUD(t.AsX(), m.AsX(), m.AsX())
	for _, shuffle := range []uint64{0b01001110, 0b10110001} {
		VPSHUFD(operand.Imm(shuffle), m.AsX(), t.AsX())
		VPMAXUD(t.AsX(), m.AsX(), m.AsX())
	}
	VMOVD(m.AsX(), to)
}

// storeQuads stores the four quads in v stride apart and moves dst behind them.
func storeQuads(v reg.VecPhysical, dst, stride, stride3 reg.GPVirtual) {
	VMOVD(v.AsX(), at(dst, 0))
	VPEXTRD(operand.Imm(1), v.AsX(), operand.Mem{Base: dst, Index: stride, Scale: 1})
	VPEXTRD(operand.Imm(2), v.AsX(), operand.Mem{Base: dst, Index: stride, Scale: 2})
	VPEXTRD(operand.Imm(3), v.AsX(), operand.Mem{Base: dst, Index: stride3, Scale: 1})
	LEAQ(operand.Mem{Base: dst, Index: stride, Scale: 4}, dst)
}

// add8 sets to to the sum of the eight elements of s.
func add8(s, t reg.VecPhysical, to reg.GPVirtual) {
	VEXTRACTI128(operand.Imm(1), s.AsY(), t.AsX())
	VPADDD(t.AsX(), s.AsX(), s.AsX())
	for _, shuffle := range []uint64{0b01001110, 0b10110001} {
		VPSHUFD(operand.Imm(shuffle), s.AsX(), t.AsX())
		VPADDD(t.AsX(), s.AsX(), s.AsX())
	}
	VMOVD(s.AsX(), to)
}

// set512 does in one function what maxBits2 and quantize2 do for a group, so that the search for the next group's magnitude and the
// stores of this one's codes overlap.
func set512() {
	TEXT("set512", NOSPLIT, "func(n int, x *float32, rows int, dst *byte, scale *float32, sum8, sum4 *int32)")
	Pragma("noescape")
	Doc("set512 quantises n elements of a row, a multiple of 64, see kernel.set.")
	n, x, dst, scale, sum8, sum4 := param("n"), param("x"), param("dst"), param("scale"), param("sum8"), param("sum4")
	stride := param("rows") // of quads in bytes, and of everything else, which has 4 bytes
	SHLQ(operand.Imm(2), stride)
	stride3 := GP64()
	LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	abs, top, unit := zmm[0], zmm[1].AsX(), zmm[2].AsX()
	broadcast32(absMask, zmm[0])
	constant(127, top)
	constant(1.0/256, unit)
	finite := reg.K1

	Label("group")
	count, bits, total := GP64(), GP32(), GP32()
	MOVQ(operand.U32(256), count)
	CMPQ(n, count)
	CMOVQLT(n, count)
	SUBQ(count, n)
	most, p, rest := zmm[4:8], copyOf(x), copyOf(count)
	for i, m := range most {
		VPANDD(at(p, 64*i), abs, m)
	}
	JMP(operand.LabelRef("searched"))
	Label("search")
	for i, m := range most {
		VPANDD(at(p, 64*i), abs, zmm[8+i])
		VPMAXUD(zmm[8+i], m, m)
	}
	Label("searched")
	ADDQ(operand.U32(256), p)
	SUBQ(operand.Imm(64), rest)
	JNZ(operand.LabelRef("search"))
	VPMAXUD(most[1], most[0], most[0])
	VPMAXUD(most[3], most[2], most[2])
	VPMAXUD(most[2], most[0], most[0])
	VEXTRACTI64X4(operand.Imm(1), most[0], most[1].AsY())
	VPMAXUD(most[1].AsY(), most[0].AsY(), most[0].AsY())
	largest(most[0], most[1], bits)

	// The scales of actScale.
	inv := zmm[12]
	normal := GP32()
	LEAL(operand.Mem{Base: bits, Disp: -tiny}, normal)
	CMPL(normal, operand.U32(infinite-tiny))
	JAE(operand.LabelRef("unusual"))
	VDIVSS(top, most[0].AsX(), most[1].AsX())
	VDIVSS(most[0].AsX(), top, inv.AsX())
	VMULSS(unit, most[1].AsX(), most[1].AsX())
	VBROADCASTSS(inv.AsX(), inv)
	KXNORW(finite, finite, finite)
	Label("scaled")
	VMOVSS(most[1].AsX(), at(scale, 0))
	ADDQ(stride, scale)

	XORL(total, total)
	sum, t := zmm[8], zmm[9]
	Label("round")
	for i := range 4 {
		v := zmm[4+i]
		VMULPS_Z(at(x, 64*i), inv, finite, v)
		VCVTPS2DQ(v, v)
		switch i {
		case 0:
		case 1:
			VPADDD(v, zmm[4], sum)
		default:
			VPADDD(v, sum, sum)
		}
	}
	CMPQ(stride, operand.Imm(4))
	JE(operand.LabelRef("alone"))
	for i := range 4 {
		VPMOVDB(zmm[4+i], zmm[4+i].AsX())
		storeQuads(zmm[4+i], dst, stride, stride3)
	}
	Label("stored")
	VEXTRACTI64X4(operand.Imm(1), sum, t.AsY())
	VPADDD(t.AsY(), sum.AsY(), sum.AsY())
	part := GP32()
	add8(sum, t, part)
	ADDL(part, total)
	NEGL(part)
	SHLL(operand.Imm(3), part)
	MOVL(part, at(sum4, 0))
	ADDQ(stride, sum4)
	ADDQ(operand.U32(256), x)
	SUBQ(operand.Imm(64), count)
	JNZ(operand.LabelRef("round"))
	NEGL(total)
	SHLL(operand.Imm(7), total)
	MOVL(total, at(sum8, 0))
	ADDQ(stride, sum8)
	TESTQ(n, n)
	JNZ(operand.LabelRef("group"))
	VZEROUPPER()
	RET()

	// The quads of one row are neighbours.
	Label("alone")
	for i := range 4 {
		VPMOVDB(zmm[4+i], at(dst, 16*i))
	}
	ADDQ(operand.Imm(64), dst)
	JMP(operand.LabelRef("stored"))

	Label("unusual")
	KXORW(finite, finite, finite)
	VPXORD(most[1], most[1], most[1])
	CMPL(bits, operand.U32(infinite))
	JB(operand.LabelRef("scaled"))
	MOVL(operand.U32(0x7fc00000), bits)
	VMOVD(bits, most[1].AsX())
	JMP(operand.LabelRef("scaled"))
}

// The bits of the smallest magnitude with a scale, 2⁻¹⁰⁰, and of infinity.
const (
	tiny     = (127 - 100) << 23
	infinite = 0x7f800000
)

// constant sets the lowest element of a register.
func constant(v float32, to reg.Register) {
	r := GP32()
	MOVL(operand.U32(math.Float32bits(v)), r)
	VMOVD(r, to)
}

func quantize2() {
	TEXT("quantize2", NOSPLIT, "func(n int, x *float32, inv float32, dst *byte, stride int, sums *int32)")
	Pragma("noescape")
	Doc("quantize2 rounds n elements, a multiple of 64, see setWith.")
	n, x, dst, stride, sums := param("n"), param("x"), param("dst"), param("stride"), param("sums")
	stride3 := GP64()
	LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	inv, sum, t := ymm[0], ymm[1], ymm[2]
	VBROADCASTSS(operand.NewParamAddr("inv", 16), inv)
	Label("loop")
	VPXOR(sum, sum, sum)
	for i := range 4 {
		a, b := ymm[3+2*i], ymm[4+2*i]
		for h, v := range []reg.VecPhysical{a, b} {
			VMULPS(at(x, 64*i+32*h), inv, v)
			VCVTPS2DQ(v, v)
			VPADDD(v, sum, sum)
		}
		// Packing works in lanes of 128 bits: quads 0 2 of the lower words, 1 3 of the upper.
		VPACKSSDW(b, a, a)
		VPERMQ(operand.Imm(0b11011000), a, a)
		VEXTRACTI128(operand.Imm(1), a, b.AsX())
		VPACKSSWB(b.AsX(), a.AsX(), a.AsX())
		storeQuads(a, dst, stride, stride3)
	}
	total := GP32()
	add8(sum, t, total)
	MOVL(total, at(sums, 0))
	ADDQ(operand.Imm(4), sums)
	ADDQ(operand.U32(256), x)
	SUBQ(operand.Imm(64), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}
