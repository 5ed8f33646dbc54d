package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// transpose512 writes dst[x·32+r] = src[r·ld+x] for r < 16 and x < n, n a multiple of four. Vector q collects four columns of
// rows q, q+4, q+8, q+12 in its 128-bit lanes; a 4×4 transposition inside the lanes leaves one column in each vector.
func transpose512() {
	function("transpose512", "func(n int, src *uint32, ld int, dst *uint32)",
		"transpose512 writes dst[x·32+r] = src[r·ld+x] for r < 16 and x < n, n a multiple of four.")
	n, src, ld, dst := param("n"), param("src"), words("ld"), param("dst")
	ld3 := GP64()
	LEAQ(operand.Mem{Base: ld, Index: ld, Scale: 2}, ld3)
	bases := []reg.GPVirtual{src}
	for range 3 {
		p := GP64()
		LEAQ(operand.Mem{Base: bases[len(bases)-1], Index: ld, Scale: 4}, p)
		bases = append(bases, p)
	}
	masks := []reg.OpmaskPhysical{nil, reg.K1, reg.K2, reg.K3}
	for l := 1; l < 4; l++ {
		m := GP32()
		MOVL(operand.U32(0xf<<(4*l)), m)
		KMOVW(m, masks[l])
	}
	in, mid, out := zmm[0:4], zmm[4:8], zmm[8:12]
	Label("loop")
	for q := range 4 {
		at := func(base reg.GPVirtual) operand.Mem {
			switch q {
			case 1, 2:
				return operand.Mem{Base: base, Index: ld, Scale: uint8(q)}
			case 3:
				return operand.Mem{Base: base, Index: ld3, Scale: 1}
			}
			return operand.Mem{Base: base}
		}
		VMOVUPS(at(bases[0]), in[q].AsX())
		for l := 1; l < 4; l++ {
			VBROADCASTF32X4(at(bases[l]), masks[l], in[q])
		}
	}
	VUNPCKLPS(in[1], in[0], mid[0])
	VUNPCKHPS(in[1], in[0], mid[1])
	VUNPCKLPS(in[3], in[2], mid[2])
	VUNPCKHPS(in[3], in[2], mid[3])
	VUNPCKLPD(mid[2], mid[0], out[0])
	VUNPCKHPD(mid[2], mid[0], out[1])
	VUNPCKLPD(mid[3], mid[1], out[2])
	VUNPCKHPD(mid[3], mid[1], out[3])
	for x := range 4 {
		VMOVUPS(out[x], operand.Mem{Base: dst, Disp: 128 * x})
	}
	for _, p := range bases {
		ADDQ(operand.Imm(16), p)
	}
	ADDQ(operand.U32(512), dst)
	SUBQ(operand.Imm(4), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// loop runs body for each 16 of n elements and advances the pointers by the given bytes.
func loop(n reg.GPVirtual, body func(), pointers []reg.GPVirtual, bytes []int) {
	Label("loop")
	body()
	for i, p := range pointers {
		ADDQ(operand.Imm(uint64(bytes[i])), p)
	}
	SUBQ(operand.Imm(16), n)
	JG(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

func round512() {
	function("round512", "func(n int, dst *uint32, src *float32)", "round512 rounds n floats, a multiple of 16, to bfloat16.")
	n, dst, src := param("n"), param("dst"), param("src")
	loop(n, func() {
		VMOVUPS(operand.Mem{Base: src}, zmm[1])
		vcvtneps2bf16(zmm[1], zmm[2])
		VMOVUPS(zmm[2].AsY(), operand.Mem{Base: dst})
	}, []reg.GPVirtual{dst, src}, []int{32, 64})
}

func interleave512() {
	function("interleave512", "func(n int, dst *uint32, a, b *float32)",
		"interleave512 rounds n floats, a multiple of 16, of a and of b to the lower and upper halves of dst's words.")
	n, dst, a, b := param("n"), param("dst"), param("a"), param("b")
	loop(n, func() {
		VMOVUPS(operand.Mem{Base: a}, zmm[1])
		VMOVUPS(operand.Mem{Base: b}, zmm[2])
		vcvtneps2bf16(zmm[1], zmm[3])
		vcvtneps2bf16(zmm[2], zmm[4])
		VPMOVZXWD(zmm[3].AsY(), zmm[5])
		VPMOVZXWD(zmm[4].AsY(), zmm[6])
		VPSLLD(operand.Imm(16), zmm[6], zmm[6])
		VPORD(zmm[5], zmm[6], zmm[6])
		VMOVUPS(zmm[6], operand.Mem{Base: dst})
	}, []reg.GPVirtual{dst, a, b}, []int{64, 64, 64})
}

// widen512 looks the bytes of a number's bfloat16 up by its magnitude, 64 at a time.
func widen512() {
	function("widen512", "func(n int, dst *uint32, src *int8)", "widen512 converts n integers of −127 to 127, n a multiple of 64, to bfloat16.")
	n, dst, src := param("n"), param("dst"), param("src")
	table, sign, lower, upper := GP64(), zmm[0], zmm[2:4], zmm[4:6]
	data := widenTables()
	LEAQ(data, table)
	for i := range 2 {
		VMOVUPS(operand.Mem{Base: table, Disp: 64 * i}, lower[i])
		VMOVUPS(operand.Mem{Base: table, Disp: 128 + 64*i}, upper[i])
	}
	VMOVUPS(operand.Mem{Base: table, Disp: 256}, zmm[6])
	bits := GP32()
	MOVL(operand.U32(0x80808080), bits)
	VPBROADCASTD(bits, sign)
	Label("loop")
	// Quarters are put into the order in which unpacking inside lanes leaves them in the source's order.
	VPERMQ(operand.Mem{Base: src}, zmm[6], zmm[7])
	VPABSB(zmm[7], zmm[8])
	VMOVDQU64(zmm[8], zmm[9])
	VPERMI2B(lower[1], lower[0], zmm[8])
	VPERMI2B(upper[1], upper[0], zmm[9])
	VPTERNLOGD(operand.U8(0xf8), sign, zmm[7], zmm[9]) // upper | number & sign
	VPUNPCKLBW(zmm[9], zmm[8], zmm[10])
	VPUNPCKHBW(zmm[9], zmm[8], zmm[11])
	VMOVUPS(zmm[10], operand.Mem{Base: dst})
	VMOVUPS(zmm[11], operand.Mem{Base: dst, Disp: 64})
	ADDQ(operand.U32(128), dst)
	ADDQ(operand.Imm(64), src)
	SUBQ(operand.Imm(64), n)
	JG(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// widenTables are the lower and the upper bytes of the bfloat16 of 0 to 127, then the order of quarters.
func widenTables() operand.Mem {
	m := GLOBL("widenTables", RODATA|NOPTR)
	for half := range 2 {
		for i := 0; i < 128; i += 8 {
			var entries uint64
			for j := range 8 {
				entries |= uint64(math.Float32bits(float32(i+j))>>(16+8*half)&0xff) << (8 * j)
			}
			DATA(128*half+i, operand.U64(entries))
		}
	}
	for i, q := range []uint64{0, 4, 1, 5, 2, 6, 3, 7} {
		DATA(256+8*i, operand.U64(q))
	}
	return m
}

func merge512() {
	function("merge512", "func(n int, y, x *float32, a, b float32)", "merge512 sets y = a·y + b·x for n floats, a multiple of 16.")
	n, y, x := param("n"), param("y"), param("x")
	VBROADCASTSS(operand.NewParamAddr("a", 24), zmm[1])
	VBROADCASTSS(operand.NewParamAddr("b", 28), zmm[2])
	loop(n, func() {
		VMULPS(operand.Mem{Base: x}, zmm[2], zmm[3])
		VMULPS(operand.Mem{Base: y}, zmm[1], zmm[4])
		VADDPS(zmm[3], zmm[4], zmm[4])
		VMOVUPS(zmm[4], operand.Mem{Base: y})
	}, []reg.GPVirtual{y, x}, []int{64, 64})
}

// exponentials512 computes e^(s−shift), as 2^n·2^r with n an integer and |r| ≤ ½, of 16 scores at a time.
func exponentials512() {
	function("exponentials512", "func(n int, pairs *uint32, s, columns *float32, factor, shift float32) float32",
		"exponentials512 sets pairs to 2^(factor·(s−shift))·columns of n scores, a multiple of 16, in bfloat16 and returns the sum without columns.")
	n, pairs, s, columns := param("n"), param("pairs"), param("s"), param("columns")
	factor, shift, low, sum := zmm[0], zmm[1], zmm[2], zmm[3]
	VBROADCASTSS(operand.NewParamAddr("factor", 32), factor)
	VBROADCASTSS(operand.NewParamAddr("shift", 36), shift)
	table := GP64()
	// The smallest exponent of interest, then the coefficients of 2^r on [−½, ½] from the highest on (Moshier, Cephes: exp2f).
	data := GLOBL("exponentials", RODATA|NOPTR)
	constants := []float32{-200, 1.535336188319500e-4, 1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1, 1}
	for i, c := range constants {
		DATA(4*i, operand.U32(math.Float32bits(c)))
	}
	LEAQ(data, table)
	VBROADCASTSS(operand.Mem{Base: table}, low)
	c := zmm[16:]
	for i := range constants[1:] {
		VBROADCASTSS(operand.Mem{Base: table, Disp: 4 + 4*i}, c[i])
	}
	VPXORD(sum, sum, sum)
	y, whole, e := zmm[4], zmm[5], zmm[6]
	Label("loop")
	VMOVUPS(operand.Mem{Base: s}, y)
	VSUBPS(shift, y, y)
	VMULPS(factor, y, y)
	VMAXPS(y, low, y) // of a NaN and a number the second in Intel's order: NaN stays
	VRNDSCALEPS(operand.Imm(0), y, whole)
	VSUBPS(whole, y, y)
	VMOVAPS(c[0], e)
	for i := range constants[2:] {
		VFMADD213PS(c[i+1], y, e)
	}
	VSCALEFPS(whole, e, e)
	VADDPS(e, sum, sum)
	TESTQ(columns, columns)
	JZ(operand.LabelRef("round"))
	VMULPS(operand.Mem{Base: columns}, e, e)
	ADDQ(operand.Imm(64), columns)
	Label("round")
	vcvtneps2bf16(e, zmm[7])
	VMOVUPS(zmm[7].AsY(), operand.Mem{Base: pairs})
	ADDQ(operand.Imm(64), s)
	ADDQ(operand.Imm(32), pairs)
	SUBQ(operand.Imm(16), n)
	JG(operand.LabelRef("loop"))
	// Lanes are added as a binary tree.
	VEXTRACTF64X4(operand.Imm(1), sum, zmm[4].AsY())
	VADDPS(zmm[4].AsY(), sum.AsY(), zmm[4].AsY())
	VEXTRACTF128(operand.Imm(1), zmm[4].AsY(), zmm[5].AsX())
	VADDPS(zmm[5].AsX(), zmm[4].AsX(), zmm[4].AsX())
	VPERMILPS(operand.Imm(0x4e), zmm[4].AsX(), zmm[5].AsX())
	VADDPS(zmm[5].AsX(), zmm[4].AsX(), zmm[4].AsX())
	VPERMILPS(operand.Imm(0xb1), zmm[4].AsX(), zmm[5].AsX())
	VADDPS(zmm[5].AsX(), zmm[4].AsX(), zmm[4].AsX())
	Store(zmm[4].AsX(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}
