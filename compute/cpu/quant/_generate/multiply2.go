package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// kernel2 is what the tile functions for AVX2 have in common: one panel, its 16 outputs in two registers.
type kernel2 struct {
	rows                                  int
	codes, scales, x, sums, scale, c, ldc reg.GPVirtual
	rest                                  reg.GPVirtual // quads
}

func newKernel2(name string, rows int) *kernel2 {
	TEXT(name, NOSPLIT, "func(t *byte)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s computes %d rows and one panel, see kernel.multiply.", name, rows))
	t := param("t")
	k := &kernel2{rows: rows, codes: field(t, tileCodes), scales: field(t, tileScales), x: field(t, tileX), sums: field(t, tileSums),
		scale: field(t, tileScale), c: field(t, tileC), ldc: field(t, tileLDC), rest: field(t, tileIn)}
	SHLQ(operand.Imm(2), k.ldc)
	SHRQ(operand.Imm(2), k.rest)
	VPXOR(ymm[0], ymm[0], ymm[0])
	k.eachC(func(i, half int, c operand.Mem) { VMOVUPS(ymm[0], c) })
	return k
}

func (k *kernel2) eachC(f func(row, half int, c operand.Mem)) {
	c := copyOf(k.c)
	for i := range k.rows {
		for half := range 2 {
			f(i, half, at(c, 32*half))
		}
		if i < k.rows-1 {
			ADDQ(k.ldc, c)
		}
	}
}

// finish adds the sums of a group, 8 outputs each, to C. It uses t for more.
func (k *kernel2) finish(sum func(row, half int) reg.VecPhysical, t [2]reg.VecPhysical) {
	k.eachC(func(i, half int, c operand.Mem) {
		s := sum(i, half)
		VPBROADCASTD(at(k.sums, 4*i), t[0])
		VPADDD(t[0], s, s)
		VCVTDQ2PS(s, s)
		VCVTPH2PS(at(k.scales, 16*half), t[0])
		VMULPS(t[0], s, s)
		VBROADCASTSS(at(k.scale, 4*i), t[1])
		VMULPS(t[1], s, s)
		VADDPS(c, s, s)
		VMOVUPS(s, c)
	})
	ADDQ(operand.Imm(32), k.scales)
	ADDQ(operand.Imm(uint64(4*k.rows)), k.sums)
}

// multiply2Int8 widens codes to 16 bits, because VPMADDUBSW would saturate. A register has 4 outputs and two sums of each.
func multiply2Int8(rows int) {
	k := newKernel2(fmt.Sprintf("multiply2Int8x%d", rows), rows)
	sum := func(i, v int) reg.VecPhysical { return ymm[4*i+v] }
	activation := ymm[8:10]
	w, product := ymm[10], ymm[11]
	count := GP64()
	Label("group")
	for i := range 4 * rows {
		VPXOR(ymm[i], ymm[i], ymm[i])
	}
	MOVQ(operand.U32(64), count)
	CMPQ(k.rest, count)
	CMOVQLT(k.rest, count)
	SUBQ(count, k.rest)
	Label("loop")
	for i := range rows {
		VPBROADCASTD(at(k.x, 4*i), activation[i].AsX())
		VPMOVSXBW(activation[i].AsX(), activation[i])
	}
	for v := range 4 {
		VPMOVZXBW(at(k.codes, 16*v), w)
		for i := range rows {
			VPMADDWD(activation[i], w, product)
			VPADDD(product, sum(i, v), sum(i, v))
		}
	}
	PREFETCHT0(at(k.codes, ahead))
	ADDQ(operand.Imm(64), k.codes)
	ADDQ(operand.Imm(uint64(4*rows)), k.x)
	DECQ(count)
	JNZ(operand.LabelRef("loop"))
	for i := range rows {
		for half := range 2 {
			// Pairs of sums, in lanes of 128 bits: outputs 0 1 4 5 | 2 3 6 7.
			VPHADDD(sum(i, 2*half+1), sum(i, 2*half), sum(i, 2*half))
			VPERMQ(operand.Imm(0b11011000), sum(i, 2*half), sum(i, 2*half))
		}
	}
	k.finish(func(i, half int) reg.VecPhysical { return sum(i, 2*half) }, [2]reg.VecPhysical{w, product})
	ADDQ(operand.Imm(uint64(4*rows)), k.scale)
	TESTQ(k.rest, k.rest)
	JNZ(operand.LabelRef("group"))
	VZEROUPPER()
	RET()
}

// multiply2Int4 uses VPMADDUBSW: two products of a nibble and a code are at most 3,810, so that eight of their sums fit 16 bits.
func multiply2Int4(rows int) {
	k := newKernel2(fmt.Sprintf("multiply2Int4x%d", rows), rows)
	short := func(i, half int) reg.VecPhysical { return ymm[2*i+half] }
	sum := func(i, half int) reg.VecPhysical { return ymm[4+2*i+half] }
	w, activation, product, mask, ones := ymm[8:10], ymm[10], ymm[11], ymm[12], ymm[13]
	broadcast32(0x0f0f0f0f, mask)
	broadcast32(0x00010001, ones)
	fours := GP64()
	MOVQ(operand.U32(4), fours)
	Label("group")
	for eight := range 2 {
		for line := range 4 {
			for nibble := range 2 {
				for half := range 2 {
					codes := at(k.codes, 64*line+32*half)
					if nibble == 0 {
						VPAND(codes, mask, w[half])
						continue
					}
					VMOVDQU(codes, w[half])
					VPSRLW(operand.Imm(4), w[half], w[half])
					VPAND(mask, w[half], w[half])
				}
				for i := range rows {
					VPBROADCASTD(at(k.x, 4*((2*line+nibble)*rows+i)), activation)
					for half := range 2 {
						if line+nibble == 0 {
							VPMADDUBSW(activation, w[half], short(i, half))
							continue
						}
						VPMADDUBSW(activation, w[half], product)
						VPADDW(product, short(i, half), short(i, half))
					}
				}
			}
			PREFETCHT0(at(k.codes, 64*line+ahead))
		}
		ADDQ(operand.U32(4*64), k.codes)
		ADDQ(operand.U32(uint32(8*4*rows)), k.x)
		for i := range rows {
			for half := range 2 {
				if eight == 0 {
					VPMADDWD(ones, short(i, half), sum(i, half))
					continue
				}
				VPMADDWD(ones, short(i, half), product)
				VPADDD(product, sum(i, half), sum(i, half))
			}
		}
	}
	k.finish(sum, [2]reg.VecPhysical{w[0], w[1]})
	DECQ(fours)
	JNZ(operand.LabelRef("same"))
	MOVQ(operand.U32(4), fours)
	ADDQ(operand.Imm(uint64(4*rows)), k.scale)
	Label("same")
	SUBQ(operand.Imm(16), k.rest)
	JNZ(operand.LabelRef("group"))
	VZEROUPPER()
	RET()
}
