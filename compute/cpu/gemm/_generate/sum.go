package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// sum emits the multiply-adds of a tile: acc[vectors·i+v] += a[k·rows+i]·b[k, v], each accumulator one chain along K.
type sum struct {
	kind                 product
	rows, width, vectors int // width is a vector's, in bytes
	acc                  []reg.VecPhysical
	aStep                int                           // bytes of A for a unit of K
	a                    reg.GPVirtual                 // A's first word
	b                    func(x, disp int) operand.Mem // disp bytes into the row x units from here on in B

	words, broadcast []reg.VecPhysical
	upper            reg.VecPhysical // ones in the upper halves of words
}

// newSum takes vectors+2 registers of temp.
func newSum(kind product, rows, width, vectors int, acc, temp []reg.VecPhysical) *sum {
	s := &sum{kind: kind, rows: rows, width: width, vectors: vectors, acc: acc[:rows*vectors], aStep: 4 * rows,
		words: temp[:vectors], broadcast: temp[vectors : vectors+2]}
	if kind != bf16Spread {
		return s
	}
	s.aStep = 8 * rows
	s.broadcast, s.upper = temp[vectors:vectors+1], temp[vectors+1]
	if width == 64 {
		VPTERNLOGD(operand.Imm(0xff), s.upper, s.upper, s.upper)
	} else {
		VPCMPEQD(s.upper, s.upper, s.upper)
	}
	VPSLLD(operand.Imm(16), s.upper, s.upper)
	return s
}

// zero clears the accumulators.
func (s *sum) zero() {
	for _, v := range s.acc {
		if s.width == 64 {
			VPXORD(v, v, v)
		} else {
			VXORPS(v, v, v)
		}
	}
}

// unit adds the products of the unit x units from here on.
func (s *sum) unit(x int) {
	if s.kind != bf16Spread {
		for v := range s.vectors {
			VMOVUPS(s.b(x, s.width*v), s.words[v])
		}
		if s.kind == bf16Dot {
			s.multiply(x*s.aStep, vdpbf16ps)
		} else {
			s.multiply(x*s.aStep, fma)
		}
		return
	}
	// The upper half of a word is the element that comes first.
	for v := range s.vectors {
		if s.width == 64 {
			VPANDD(s.b(x, s.width*v), s.upper, s.words[v])
		} else {
			VPAND(s.b(x, s.width*v), s.upper, s.words[v])
		}
	}
	s.multiply(x*s.aStep, fma)
	for v := range s.vectors {
		if s.width == 64 {
			VPSLLD(operand.Imm(16), s.b(x, s.width*v), s.words[v])
		} else {
			VMOVDQU(s.b(x, s.width*v), s.words[v])
			VPSLLD(operand.Imm(16), s.words[v], s.words[v])
		}
	}
	s.multiply(x*s.aStep+4*s.rows, fma)
}

func fma(b, a, sum reg.VecPhysical) { VFMADD231PS(b, a, sum) }

// multiply adds the products of the rows' words disp bytes into A with the words of B at hand.
func (s *sum) multiply(disp int, mac func(b, a, sum reg.VecPhysical)) {
	for i := range s.rows {
		w := s.broadcast[i%len(s.broadcast)]
		VBROADCASTSS(operand.Mem{Base: s.a, Disp: disp + 4*i}, w)
		for v := range s.vectors {
			mac(s.words[v], w, s.acc[s.vectors*i+v])
		}
	}
}
