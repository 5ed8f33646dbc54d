package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const streamSignature = "func(panels, kc, block int, a, b, c *float32, ldc int, init *float32, ldinit int, alpha float32)"

// streamAlpha is where alpha stands in stream's arguments.
const streamAlpha = 9 * 8

// streamAhead is how far before their use words of B are asked for, in bytes. Measured on Zen 4.
const streamAhead = 4096

// stream512 multiplies a few rows by whole panels that lie one after the other: all of K for one panel, then the next, so that
// B is read from its first byte to its last. Between blocks of K the sums so far stand in C.
func stream512(prefix string, kind product, rows int) {
	s := &stream{kind: kind, rows: rows, width: 64, vectors: 2, passes: 1, regs: zmm}
	s.emit(prefix)
}

// stream2 is stream512 for AVX2. Panels of bf16 have 32 columns, four registers for each row: many rows take them in two passes
// over each block, of which the second finds it in the cache.
func stream2(prefix string, kind product, rows int) {
	s := &stream{kind: kind, rows: rows, width: 32, vectors: 2, passes: 1, regs: ymm}
	if kind == bf16Spread {
		if rows <= 2 {
			s.vectors = 4
		} else {
			s.passes = 2
		}
	}
	s.emit(prefix)
}

type stream struct {
	kind                         product
	rows, width, vectors, passes int
	regs                         []reg.VecPhysical
}

func (s *stream) emit(prefix string) {
	name := fmt.Sprintf("%sx%d", prefix, s.rows)
	TEXT(name, NOSPLIT, streamSignature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s computes %d rows and whole panels%s", name, s.rows, s.kind.doc("stream")))
	n := s.rows * s.vectors
	m := newSum(s.kind, s.rows, s.width, s.vectors, s.regs, s.regs[n:])
	alpha := s.regs[n] // after the sums of a block
	part := s.width * s.vectors
	panelBytes := part * s.passes

	panels, b, c, ldc, init := param("panels"), param("b"), param("c"), bytes("ldc"), param("init")
	Label("panel")
	a, left, from, ldfrom := param("a"), param("kc"), GP64(), bytes("ldinit")
	MOVQ(init, from)
	Label("block")
	length := param("block")
	CMPQ(left, length)
	CMOVQLT(left, length)
	SUBQ(length, left)
	first := [2]reg.GPVirtual{}
	if s.passes > 1 {
		first = [2]reg.GPVirtual{GP64(), GP64()}
		MOVQ(a, first[0])
		MOVQ(b, first[1])
	}
	m.a = a
	for pass := range s.passes {
		label := func(l string) string { return fmt.Sprintf("%s%d", l, pass) }
		m.b = func(x, disp int) operand.Mem { return operand.Mem{Base: b, Disp: x*panelBytes + pass*part + disp} }
		if pass > 0 {
			MOVQ(first[0], a)
			MOVQ(first[1], b)
		}
		step := func(x int) {
			for l := 0; l < panelBytes && pass == 0; l += 64 {
				PREFETCHT0(m.b(x, streamAhead+l))
			}
			m.unit(x)
		}
		m.zero()
		turns, rest := GP64(), GP64()
		MOVQ(length, turns)
		MOVQ(length, rest)
		ANDQ(operand.Imm(unroll-1), rest)
		SHRQ(operand.Imm(2), turns)
		JZ(operand.LabelRef(label("rest")))
		alignLoop()
		Label(label("loop"))
		for x := range unroll {
			step(x)
		}
		ADDQ(operand.U32(uint32(unroll*m.aStep)), a)
		ADDQ(operand.U32(uint32(unroll*panelBytes)), b)
		DECQ(turns)
		JNZ(operand.LabelRef(label("loop")))
		Label(label("rest"))
		TESTQ(rest, rest)
		JZ(operand.LabelRef(label("sums")))
		Label(label("single"))
		step(0)
		ADDQ(operand.Imm(uint64(m.aStep)), a)
		ADDQ(operand.U32(uint32(panelBytes)), b)
		DECQ(rest)
		JNZ(operand.LabelRef(label("single")))

		Label(label("sums"))
		VBROADCASTSS(operand.NewParamAddr("alpha", streamAlpha), alpha)
		p := GP64()
		// each calls f for every accumulator with its place in a matrix.
		each := func(base, ld reg.GPVirtual, f func(acc reg.VecPhysical, at operand.Mem)) {
			MOVQ(base, p)
			for i := range s.rows {
				for v := range s.vectors {
					f(m.acc[s.vectors*i+v], operand.Mem{Base: p, Disp: pass*part + s.width*v})
				}
				if i < s.rows-1 {
					ADDQ(ld, p)
				}
			}
		}
		TESTQ(from, from)
		JZ(operand.LabelRef(label("scale")))
		each(from, ldfrom, func(acc reg.VecPhysical, at operand.Mem) { VFMADD213PS(at, alpha, acc) })
		JMP(operand.LabelRef(label("store")))
		Label(label("scale"))
		for _, acc := range m.acc {
			VMULPS(alpha, acc, acc)
		}
		Label(label("store"))
		each(c, ldc, func(acc reg.VecPhysical, at operand.Mem) { VMOVUPS(acc, at) })
	}
	MOVQ(c, from)
	MOVQ(ldc, ldfrom)
	TESTQ(left, left)
	JNZ(operand.LabelRef("block"))
	ADDQ(operand.U32(uint32(panelBytes)), c)
	TESTQ(init, init)
	JZ(operand.LabelRef("alone"))
	ADDQ(operand.U32(uint32(panelBytes)), init)
	Label("alone")
	DECQ(panels)
	JNZ(operand.LabelRef("panel"))
	VZEROUPPER()
	RET()
}
