package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const tileSignature = "func(kc int, a, b *float32, ldb int, c *float32, ldc int, init *float32, ldinit int, n int, soon *[4]int, alpha float32)"

// product is how a word of A and a word of B are multiplied and added.
type product int

const (
	float32s   product = iota // one element of each, float32
	bf16Dot                   // a pair of bf16 of each, by AVX512_BF16
	bf16Spread                // two float32 of A and a pair of bf16 of B, which is spread over two registers
)

// doc is the rest of the documentation of a function of that field of kernel.
func (p product) doc(field string) string {
	switch p {
	case bf16Dot:
		return " of pairs of bf16, see kernel." + field + "."
	case bf16Spread:
		return " of float32 and pairs of bf16, see kernel." + field + "."
	}
	return ", see kernel." + field + "."
}

// tile512 multiplies a tile of rows by a panel of 32 columns: two vectors of B, one broadcast of A at a time, sums in
// registers. Columns beyond n are masked out where C is touched.
func tile512(prefix string, kind product, rows int) {
	name := fmt.Sprintf("%sx%d", prefix, rows)
	TEXT(name, NOSPLIT, tileSignature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s computes a tile of %d rows and up to 32 columns%s", name, rows, kind.doc("tile")))
	acc := func(i, v int) reg.VecPhysical { return zmm[2*i+v] }
	c, ldc := prefetchC(rows, 2)
	sums(kind, rows, 64, zmm, zmm[28:32])

	alpha := zmm[28]
	VBROADCASTSS(operand.NewParamAddr("alpha", alphaOffset), alpha)
	n, init, ldinit := param("n"), param("init"), bytes("ldinit")
	CMPQ(n, operand.Imm(32))
	JNE(operand.LabelRef("tail"))
	// Stores under a mask are slow: whole tiles do without.
	for _, part := range []string{"full", "tail"} {
		add := func(i, v int) { VFMADD213PS(operand.Mem{Base: init, Disp: 64 * v}, alpha, acc(i, v)) }
		store := func(i, v int) { VMOVUPS(acc(i, v), operand.Mem{Base: c, Disp: 64 * v}) }
		if part == "tail" {
			Label("tail")
			columnMasks(n)
			mask := []reg.OpmaskPhysical{reg.K1, reg.K2}
			add = func(i, v int) { VFMADD213PS(operand.Mem{Base: init, Disp: 64 * v}, alpha, mask[v], acc(i, v)) }
			store = func(i, v int) { VMOVUPS(acc(i, v), mask[v], operand.Mem{Base: c, Disp: 64 * v}) }
		}
		TESTQ(init, init)
		JZ(operand.LabelRef("scale_" + part))
		for i := range rows {
			for v := range 2 {
				add(i, v)
			}
			if i < rows-1 {
				ADDQ(ldinit, init)
			}
		}
		JMP(operand.LabelRef("store_" + part))
		Label("scale_" + part)
		for i := range rows {
			for v := range 2 {
				VMULPS(alpha, acc(i, v), acc(i, v))
			}
		}
		Label("store_" + part)
		for i := range rows {
			for v := range 2 {
				store(i, v)
			}
			if i < rows-1 {
				ADDQ(ldc, c)
			}
		}
		VZEROUPPER()
		RET()
	}
}

// alphaOffset is where alpha stands in tile's arguments.
const alphaOffset = 10 * 8

// tile2 is tile512 for AVX2: panels of 16 columns.
func tile2(prefix string, kind product, rows int) {
	name := fmt.Sprintf("%sx%d", prefix, rows)
	TEXT(name, NOSPLIT, tileSignature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s computes a tile of %d rows and up to 16 columns%s", name, rows, kind.doc("tile")))
	acc := func(i, v int) reg.VecPhysical { return ymm[2*i+v] }
	c, ldc := prefetchC(rows, 1)
	sums(kind, rows, 32, ymm, ymm[12:16])

	alpha, value := ymm[12], ymm[14]
	mask := []reg.VecPhysical{ymm[13], ymm[15]}
	VBROADCASTSS(operand.NewParamAddr("alpha", alphaOffset), alpha)
	n, init, ldinit := param("n"), param("init"), bytes("ldinit")
	CMPQ(n, operand.Imm(16))
	JNE(operand.LabelRef("tail"))
	for _, part := range []string{"full", "tail"} {
		load := func(i, v int) { VFMADD213PS(operand.Mem{Base: init, Disp: 32 * v}, alpha, acc(i, v)) }
		store := func(i, v int) { VMOVUPS(acc(i, v), operand.Mem{Base: c, Disp: 32 * v}) }
		if part == "tail" {
			load = func(i, v int) {
				VMASKMOVPS(operand.Mem{Base: init, Disp: 32 * v}, mask[v], value)
				VFMADD213PS(value, alpha, acc(i, v))
			}
			store = func(i, v int) { VMASKMOVPS(acc(i, v), mask[v], operand.Mem{Base: c, Disp: 32 * v}) }
			Label("tail")
			// The 16 words from 16-n on of the table are the mask: n ones, then zeros.
			table := GP64()
			LEAQ(maskTable(), table)
			NEGQ(n)
			VMOVDQU(operand.Mem{Base: table, Index: n, Scale: 4, Disp: 64}, mask[0])
			VMOVDQU(operand.Mem{Base: table, Index: n, Scale: 4, Disp: 96}, mask[1])
		}
		TESTQ(init, init)
		JZ(operand.LabelRef("scale_" + part))
		for i := range rows {
			for v := range 2 {
				load(i, v)
			}
			if i < rows-1 {
				ADDQ(ldinit, init)
			}
		}
		JMP(operand.LabelRef("store_" + part))
		Label("scale_" + part)
		for i := range rows {
			for v := range 2 {
				VMULPS(alpha, acc(i, v), acc(i, v))
			}
		}
		Label("store_" + part)
		for i := range rows {
			for v := range 2 {
				store(i, v)
			}
			if i < rows-1 {
				ADDQ(ldc, c)
			}
		}
		VZEROUPPER()
		RET()
	}
}

var masks *operand.Mem

// maskTable is 16 words of ones followed by 16 words of zeros.
func maskTable() operand.Mem {
	if masks == nil {
		m := GLOBL("masks", RODATA|NOPTR)
		for i := range 32 {
			word := operand.U32(0)
			if i < 16 {
				word = 0xffffffff
			}
			DATA(4*i, word)
		}
		masks = &m
	}
	return *masks
}

// prefetchC asks for the tile's lines of C, which are needed after the sums, and returns C's address and stride.
func prefetchC(rows, lines int) (c, ldc reg.GPVirtual) {
	c, ldc = param("c"), bytes("ldc")
	p := GP64()
	MOVQ(c, p)
	for i := range rows {
		for l := range lines {
			PREFETCHT0(operand.Mem{Base: p, Disp: 64 * l})
		}
		if i < rows-1 {
			ADDQ(ldc, p)
		}
	}
	return c, ldc
}

// sums leaves Σ_k a[k·rows+i]·b[k·ldb+…] in acc[2·i+v], each one chain of fused multiply-adds from zero. The four registers
// of temp are free.
func sums(kind product, rows, width int, acc, temp []reg.VecPhysical) {
	const vectors = 2
	kc, pa, pb, ldb := param("kc"), param("a"), param("b"), bytes("ldb")
	ldb3 := times3(ldb)
	s := newSum(kind, rows, width, vectors, acc, temp)
	s.a = pa
	s.b = func(x, disp int) operand.Mem { return row(pb, ldb, ldb3, x, disp) }
	s.zero()
	// Few rows are fed from memory at full speed. For many it comes from the second-level cache, into which the tiles bring what
	// comes next, some lines in each turn of the loop.
	ahead := 1024
	if rows <= 4 {
		ahead = 2048
	}
	soon := param("soon")
	next, left, jump := GP64(), GP64(), GP64()
	MOVQ(walkField(soon, walkNext), next)
	MOVQ(walkField(soon, walkLeft), left)
	step := func(x int) {
		for l := 0; l < width*vectors; l += 64 {
			PREFETCHT0(s.b(x, ahead+l))
		}
		s.unit(x)
	}
	rest := GP64()
	MOVQ(kc, rest)
	ANDQ(operand.Imm(unroll-1), rest)
	SHRQ(operand.Imm(2), kc)
	JZ(operand.LabelRef("rest"))
	alignLoop()
	Label("loop")
	for l := range walkLines(width) {
		PREFETCHT1(operand.Mem{Base: next, Disp: 64 * l})
	}
	XORL(jump.As32(), jump.As32())
	DECQ(left)
	CMOVQEQ(walkField(soon, walkSkip), jump)
	CMOVQEQ(walkField(soon, walkRow), left)
	LEAQ(operand.Mem{Base: next, Index: jump, Scale: 1, Disp: 64 * walkLines(width)}, next)
	for x := range unroll {
		step(x)
	}
	ADDQ(operand.U32(uint32(unroll*s.aStep)), pa)
	LEAQ(operand.Mem{Base: pb, Index: ldb, Scale: 4}, pb)
	DECQ(kc)
	JNZ(operand.LabelRef("loop"))
	MOVQ(next, walkField(soon, walkNext))
	MOVQ(left, walkField(soon, walkLeft))
	Label("rest")
	TESTQ(rest, rest)
	JZ(operand.LabelRef("done"))
	Label("single")
	step(0)
	ADDQ(operand.Imm(uint64(s.aStep)), pa)
	ADDQ(ldb, pb)
	DECQ(rest)
	JNZ(operand.LabelRef("single"))
	Label("done")
}

// The elements of walk, of package gemm, in bytes.
const (
	walkNext = 8 * iota
	walkLeft
	walkRow
	walkSkip
)

func walkField(walk reg.Register, offset int) operand.Mem {
	return operand.Mem{Base: walk, Disp: offset}
}

// walkLines is kernel.lines.
func walkLines(width int) int {
	if width == 64 {
		return 2
	}
	return 1
}

// unroll is how many units of K a turn of the loops takes.
const unroll = 4
