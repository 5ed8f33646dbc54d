package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const absMask = 0x7fffffff

// maxBits512 and maxBits2 take 64 elements at a time.
func maxBits512() {
	TEXT("maxBits512", NOSPLIT, "func(n int, x *float32) uint32")
	Pragma("noescape")
	Doc("maxBits512 returns the largest of the bits of |x[i]|, i < n, n a multiple of 64. See kernel.maxBits.")
	n, x := param("n"), param("x")
	most, mask := zmm[:4], zmm[4]
	broadcast32(absMask, mask)
	for _, m := range most {
		VPXORD(m, m, m)
	}
	Label("loop")
	for i, m := range most {
		VPANDD(at(x, 64*i), mask, zmm[5+i])
		VPMAXUD(zmm[5+i], m, m)
	}
	ADDQ(operand.U32(256), x)
	SUBQ(operand.Imm(64), n)
	JNZ(operand.LabelRef("loop"))
	VPMAXUD(most[1], most[0], most[0])
	VPMAXUD(most[3], most[2], most[2])
	VPMAXUD(most[2], most[0], most[0])
	VEXTRACTI64X4(operand.Imm(1), most[0], most[1].AsY())
	VPMAXUD(most[1].AsY(), most[0].AsY(), most[0].AsY())
	storeMax(most[0], most[1])
}

func maxBits2() {
	TEXT("maxBits2", NOSPLIT, "func(n int, x *float32) uint32")
	Pragma("noescape")
	Doc("maxBits2 is maxBits512 for AVX2.")
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
	storeMax(most[0], most[1])
}

// storeMax returns the largest of the eight elements of m from the function.
func storeMax(m, t reg.VecPhysical) {
	VEXTRACTI128(operand.Imm(1), m.AsY(), t.AsX())
	VPMAXUD(t.AsX(), m.AsX(), m.AsX())
	for _, shuffle := range []uint64{0b01001110, 0b10110001} {
		VPSHUFD(operand.Imm(shuffle), m.AsX(), t.AsX())
		VPMAXUD(t.AsX(), m.AsX(), m.AsX())
	}
	r := GP32()
	VMOVD(m.AsX(), r)
	Store(r, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

const quantizeSignature = "func(n int, x *float32, inv float32, dst *byte, stride int, sums *int32)"

// storeQuads stores the four quads in v stride apart and moves dst behind them.
func storeQuads(v reg.VecPhysical, dst, stride, stride3 reg.GPVirtual) {
	VMOVD(v.AsX(), at(dst, 0))
	VPEXTRD(operand.Imm(1), v.AsX(), operand.Mem{Base: dst, Index: stride, Scale: 1})
	VPEXTRD(operand.Imm(2), v.AsX(), operand.Mem{Base: dst, Index: stride, Scale: 2})
	VPEXTRD(operand.Imm(3), v.AsX(), operand.Mem{Base: dst, Index: stride3, Scale: 1})
	LEAQ(operand.Mem{Base: dst, Index: stride, Scale: 4}, dst)
}

// storeSum stores the sum of the eight elements of s.
func storeSum(s, t reg.VecPhysical, to reg.GPVirtual) {
	VEXTRACTI128(operand.Imm(1), s.AsY(), t.AsX())
	VPADDD(t.AsX(), s.AsX(), s.AsX())
	for _, shuffle := range []uint64{0b01001110, 0b10110001} {
		VPSHUFD(operand.Imm(shuffle), s.AsX(), t.AsX())
		VPADDD(t.AsX(), s.AsX(), s.AsX())
	}
	VMOVD(s.AsX(), at(to, 0))
	ADDQ(operand.Imm(4), to)
}

func quantize512() {
	TEXT("quantize512", NOSPLIT, quantizeSignature)
	Pragma("noescape")
	Doc("quantize512 rounds n elements, a multiple of 64, see kernel.quantize.")
	n, x, dst, stride, sums := param("n"), param("x"), param("dst"), param("stride"), param("sums")
	stride3 := GP64()
	LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	inv, sum, t := zmm[0], zmm[1], zmm[2]
	VBROADCASTSS(operand.NewParamAddr("inv", 16), inv)
	Label("loop")
	for i := range 4 {
		v := zmm[3+i]
		VMULPS(at(x, 64*i), inv, v)
		VCVTPS2DQ(v, v)
		if i == 0 {
			VMOVDQA32(v, sum)
		} else {
			VPADDD(v, sum, sum)
		}
		VPMOVDB(v, v.AsX())
		storeQuads(v, dst, stride, stride3)
	}
	VEXTRACTI64X4(operand.Imm(1), sum, t.AsY())
	VPADDD(t.AsY(), sum.AsY(), sum.AsY())
	storeSum(sum, t, sums)
	ADDQ(operand.U32(256), x)
	SUBQ(operand.Imm(64), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func quantize2() {
	TEXT("quantize2", NOSPLIT, quantizeSignature)
	Pragma("noescape")
	Doc("quantize2 is quantize512 for AVX2.")
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
	storeSum(sum, t, sums)
	ADDQ(operand.U32(256), x)
	SUBQ(operand.Imm(64), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}
