package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// kind is what the 32-bit words of the operands are and with which instructions they are multiplied.
type kind struct {
	name, word string
	wide       bool // AVX-512
	pairs      bool // a word is two bfloat16
}

var (
	floats512 = kind{"Floats512", "float32", true, false}
	pairs512  = kind{"Pairs512", "uint32", true, true}
	floats2   = kind{"Floats2", "float32", false, false}
	pairs2    = kind{"Pairs2", "uint32", false, true}
)

// tile computes c[i·ldc+j] (+)= Σ_k a(i,k)·b[k·32+j] for rows i and 32 columns j (16 for AVX2, whose caller comes twice), each
// element as one chain of fused multiply-adds in ascending k, upper half of a pair first. a(i,k) is a[i·lda+k] or, with down
// set, a[k·lda+i].
func tile(k kind, rows int, down bool) {
	name := fmt.Sprintf("tile%sx%d", k.name, rows)
	layout := "a[i·lda+k]"
	if down {
		name, layout = fmt.Sprintf("down%s", k.name), "a[k·lda+i]"
	}
	columns := 32
	if !k.wide {
		columns = 16
	}
	function(name, fmt.Sprintf("func(kc int, a *%s, lda int, b *%s, c *float32, ldc int, add int)", k.word, k.word),
		fmt.Sprintf("%s computes %d rows and %d columns of C with A as %s, see kernels.tile.", name, rows, columns, layout))
	vectors, width, regs := 2, 64, zmm
	if !k.wide {
		width, regs = 32, ymm
	}
	acc := func(i, v int) reg.VecPhysical { return regs[i*vectors+v] }
	spare := regs[rows*vectors:]
	kc, pa, lda, pb := param("kc"), param("a"), words("lda"), param("b")

	// Rows of A are addressed in threes: base, base+lda, base+2·lda.
	bases := []reg.GPVirtual{pa}
	if !down {
		for i := 3; i < rows; i += 3 {
			p := GP64()
			LEAQ(operand.Mem{Base: bases[len(bases)-1], Index: lda, Scale: 2}, p)
			ADDQ(lda, p)
			bases = append(bases, p)
		}
	}
	element := func(i, x int) operand.Mem {
		if down {
			return operand.Mem{Base: pa, Disp: 4 * i}
		}
		m := operand.Mem{Base: bases[i/3], Disp: 4 * x}
		if i%3 > 0 {
			m.Index, m.Scale = lda, uint8(i%3)
		}
		return m
	}

	c, ldc := param("c"), words("ldc")
	eachC := func(f func(m operand.Mem, r reg.VecPhysical)) {
		p := GP64()
		MOVQ(c, p)
		for i := range rows {
			for v := range vectors {
				f(operand.Mem{Base: p, Disp: width * v}, acc(i, v))
			}
			if i < rows-1 {
				ADDQ(ldc, p)
			}
		}
	}
	add := param("add")
	TESTQ(add, add)
	JZ(operand.LabelRef("zero"))
	eachC(func(m operand.Mem, r reg.VecPhysical) { VMOVUPS(m, r) })
	JMP(operand.LabelRef("start"))
	Label("zero")
	for i := range rows * vectors {
		if k.wide {
			VPXORD(regs[i], regs[i], regs[i])
		} else {
			VXORPS(regs[i], regs[i], regs[i])
		}
	}
	Label("start")
	var upper reg.VecPhysical // ones in the upper halves of words
	if k.pairs && !k.wide {
		upper = spare[len(spare)-1]
		VPCMPEQD(upper, upper, upper)
		VPSLLD(operand.Imm(16), upper, upper)
	}
	step := func(x int) {
		at := func(v int) operand.Mem { return operand.Mem{Base: pb, Disp: 128*x + width*v} }
		switch {
		case k.wide:
			b, w := spare[:2], spare[2:]
			for v := range vectors {
				VMOVUPS(at(v), b[v])
			}
			for i := range rows {
				e := w[i%min(4, len(w))]
				VBROADCASTSS(element(i, x), e)
				for v := range vectors {
					if k.pairs {
						vdpbf16ps(b[v], e, acc(i, v))
					} else {
						VFMADD231PS(b[v], e, acc(i, v))
					}
				}
			}
		case k.pairs:
			odd, even, e, h := spare[0:2], spare[2:4], spare[4], spare[5]
			for v := range vectors {
				VMOVUPS(at(v), odd[v])
				VPSLLD(operand.Imm(16), odd[v], even[v])
				VPAND(upper, odd[v], odd[v])
			}
			for i := range rows {
				VBROADCASTSS(element(i, x), e)
				VPAND(upper, e, h)
				VPSLLD(operand.Imm(16), e, e)
				for v := range vectors {
					VFMADD231PS(odd[v], h, acc(i, v))
					VFMADD231PS(even[v], e, acc(i, v))
				}
			}
		default:
			b, w := spare[:2], spare[2:]
			for v := range vectors {
				VMOVUPS(at(v), b[v])
			}
			for i := range rows {
				e := w[i%2]
				VBROADCASTSS(element(i, x), e)
				for v := range vectors {
					VFMADD231PS(b[v], e, acc(i, v))
				}
			}
		}
	}
	advance := func(n int) {
		if down {
			ADDQ(lda, pa)
		} else {
			for _, p := range bases {
				ADDQ(operand.Imm(uint64(4*n)), p)
			}
		}
		ADDQ(operand.U32(uint32(128*n)), pb)
	}
	if !down {
		SUBQ(operand.Imm(4), kc)
		JLT(operand.LabelRef("rest"))
		Instruction(&ir.Instruction{Opcode: "PCALIGN", Operands: []operand.Op{operand.Imm(64)}})
		Label("loop")
		for x := range 4 {
			step(x)
		}
		advance(4)
		SUBQ(operand.Imm(4), kc)
		JGE(operand.LabelRef("loop"))
		Label("rest")
		ADDQ(operand.Imm(4), kc)
		JZ(operand.LabelRef("done"))
	}
	Label("single")
	step(0)
	advance(1)
	DECQ(kc)
	JNZ(operand.LabelRef("single"))
	Label("done")
	eachC(func(m operand.Mem, r reg.VecPhysical) { VMOVUPS(r, m) })
	VZEROUPPER()
	RET()
}
