package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// finisher emits the function that adds to the rows of a finished tile and stores them.
type finisher struct {
	y, c, bias, base reg.GPVirtual
	ldy, ldc         reg.GPVirtual // bytes
	rows, length     reg.GPVirtual
	offset           reg.GPVirtual // bytes from the start of a row
}

// newFinisher emits the start of the function. Columns are counted in bytes: whole is how many of a row are in vectors of the given
// size, a power of two.
func newFinisher(name, doc string, vector int) (f *finisher, whole reg.GPVirtual) {
	TEXT(name, NOSPLIT, "func(o *byte)")
	Pragma("noescape")
	Doc(doc)
	o := param("o")
	f = &finisher{y: field(o, outputY), c: field(o, outputC), bias: field(o, outputBias), base: field(o, outputBase), ldy: field(o, outputLDY),
		ldc: field(o, outputLDC), rows: field(o, outputRows), length: field(o, outputLength), offset: GP64()}
	for _, n := range []reg.GPVirtual{f.ldy, f.ldc, f.length} {
		SHLQ(operand.Imm(2), n)
	}
	whole = copyOf(f.length)
	ANDQ(operand.I32(-vector), whole)
	return f, whole
}

// at returns the address of the current column.
func (f *finisher) at(p reg.GPVirtual) operand.Mem {
	return operand.Mem{Base: p, Index: f.offset, Scale: 1}
}

// each calls row four times: with and without a bias and a base. row emits what is done to a row; it starts at column 0.
func (f *finisher) each(row func(name string, bias, base bool)) {
	for _, bias := range []bool{true, false} {
		for _, base := range []bool{true, false} {
			name := fmt.Sprintf("bias_%v_base_%v", bias, base)
			next := name + "_next"
			for _, c := range []struct {
				p    reg.GPVirtual
				want bool
			}{{f.bias, bias}, {f.base, base}} {
				TESTQ(c.p, c.p)
				if c.want {
					JZ(operand.LabelRef(next))
				} else {
					JNZ(operand.LabelRef(next))
				}
			}
			Label(name)
			XORQ(f.offset, f.offset)
			row(name, bias, base)
			ADDQ(f.ldc, f.c)
			ADDQ(f.ldy, f.y)
			if base {
				ADDQ(f.ldy, f.base)
			}
			DECQ(f.rows)
			JNZ(operand.LabelRef(name))
			VZEROUPPER()
			RET()
			Label(next)
		}
	}
	RET() // one of the four has returned
}

func finish512() {
	f, whole := newFinisher("finish512", "finish512 adds bias and base to a tile and stores it, see kernel.finish.", 64)
	// The mask of what is left behind the last whole vector.
	left, ones, shift := GP64(), GP64(), GP64()
	MOVQ(f.length, left)
	SUBQ(whole, left)
	MOVQ(left, shift)
	SHRQ(operand.Imm(2), shift)
	MOVQ(operand.U32(1), ones)
	SHLXQ(shift, ones, ones)
	DECQ(ones)
	mask, v := reg.K1, zmm[0]
	KMOVW(ones.As32(), mask)
	f.each(func(name string, bias, base bool) {
		Label(name + "_vectors")
		CMPQ(f.offset, whole)
		JAE(operand.LabelRef(name + "_tail"))
		VMOVUPS(f.at(f.c), v)
		if bias {
			VADDPS(f.at(f.bias), v, v)
		}
		if base {
			VADDPS(f.at(f.base), v, v)
		}
		VMOVUPS(v, f.at(f.y))
		ADDQ(operand.Imm(64), f.offset)
		JMP(operand.LabelRef(name + "_vectors"))
		Label(name + "_tail")
		TESTQ(left, left)
		JZ(operand.LabelRef(name + "_done"))
		VMOVUPS_Z(f.at(f.c), mask, v)
		if bias {
			VADDPS_Z(f.at(f.bias), v, mask, v)
		}
		if base {
			VADDPS_Z(f.at(f.base), v, mask, v)
		}
		VMOVUPS(v, mask, f.at(f.y))
		Label(name + "_done")
	})
}

func finish2() {
	f, whole := newFinisher("finish2", "finish2 is finish512 for AVX2.", 32)
	v := ymm[0]
	f.each(func(name string, bias, base bool) {
		Label(name + "_vectors")
		CMPQ(f.offset, whole)
		JAE(operand.LabelRef(name + "_tail"))
		VMOVUPS(f.at(f.c), v)
		if bias {
			VADDPS(f.at(f.bias), v, v)
		}
		if base {
			VADDPS(f.at(f.base), v, v)
		}
		VMOVUPS(v, f.at(f.y))
		ADDQ(operand.Imm(32), f.offset)
		JMP(operand.LabelRef(name + "_vectors"))
		Label(name + "_tail")
		CMPQ(f.offset, f.length)
		JAE(operand.LabelRef(name + "_done"))
		VMOVSS(f.at(f.c), v.AsX())
		if bias {
			VADDSS(f.at(f.bias), v.AsX(), v.AsX())
		}
		if base {
			VADDSS(f.at(f.base), v.AsX(), v.AsX())
		}
		VMOVSS(v.AsX(), f.at(f.y))
		ADDQ(operand.Imm(4), f.offset)
		JMP(operand.LabelRef(name + "_tail"))
		Label(name + "_done")
	})
}
