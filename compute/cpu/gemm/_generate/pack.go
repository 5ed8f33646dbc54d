package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const packSignature = "func(n int, src *float32, ld int, dst *float32, width int)"

// transpose512 writes dst[x·width+r] = src[r·ld+x] for r < rows and x < n, n a multiple of four.
//
// Four columns are done at a time. Vector q collects four columns of rows q, q+4, q+8, q+12 in its 128-bit lanes; a 4×4
// transposition inside the lanes then leaves one column of all rows in each vector.
func transpose512(rows int) {
	name := fmt.Sprintf("transpose512x%d", rows)
	TEXT(name, NOSPLIT, packSignature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s transposes %d rows of n columns, n a multiple of four, see kernel.transpose.", name, rows))
	n, src, ld, dst, width := param("n"), param("src"), bytes("ld"), param("dst"), bytes("width")
	ld3, width3 := times3(ld), times3(width)
	bases := []reg.GPVirtual{src}
	for r := 4; r < rows; r += 4 {
		p := GP64()
		LEAQ(operand.Mem{Base: bases[len(bases)-1], Index: ld, Scale: 4}, p)
		bases = append(bases, p)
	}
	lanes := []reg.OpmaskPhysical{nil, reg.K1, reg.K2, reg.K3}
	m := GP32()
	setMask := func(bits uint32, k reg.OpmaskPhysical) {
		MOVL(operand.U32(bits), m)
		KMOVW(m, k)
	}
	for l := 1; l < len(bases); l++ {
		setMask(0xf<<(4*l), lanes[l])
	}
	store := reg.K4
	setMask(1<<rows-1, store)
	in, mid, out := zmm[0:4], zmm[4:8], zmm[8:12]
	Label("loop")
	for q := range 4 {
		if q >= rows {
			VPXORD(in[q], in[q], in[q])
			continue
		}
		VMOVUPS(row(bases[0], ld, ld3, q, 0), in[q].AsX())
		for l := 1; l < len(bases); l++ {
			if 4*l+q < rows {
				VBROADCASTF32X4(row(bases[l], ld, ld3, q, 0), lanes[l], in[q])
			}
		}
	}
	transpose4x4(in, mid, out)
	storeColumns(rows, 16, out, store, bases, n, dst, width, width3)
}

// storeColumns ends a transposition's loop: it stores four columns of 32-bit words and steps by step bytes in the source.
//
// A store under a mask takes several times as long as a full one. With eight rows or more a full one therefore writes zeros
// (what the missing rows are) over the beginning of the next column, which is written afterwards, but for the last.
func storeColumns(rows int, step uint64, out []reg.VecPhysical, mask reg.OpmaskPhysical, bases []reg.GPVirtual, n, dst, width, width3 reg.GPVirtual) {
	masked := func(x int) { VMOVUPS(out[x], mask, row(dst, width, width3, x, 0)) }
	full := func(x int) { VMOVUPS(out[x], row(dst, width, width3, x, 0)) }
	last := full
	switch {
	case rows < 8:
		full, last = masked, masked
	case rows < 16:
		last = masked
	}
	for x := range 3 {
		full(x)
	}
	for _, p := range bases {
		ADDQ(operand.Imm(step), p)
	}
	SUBQ(operand.Imm(4), n)
	JZ(operand.LabelRef("last"))
	full(3)
	LEAQ(operand.Mem{Base: dst, Index: width, Scale: 4}, dst)
	JMP(operand.LabelRef("loop"))
	Label("last")
	last(3)
	VZEROUPPER()
	RET()
}

// transposeBF16 writes the words dst[x·width+r] = (src[r·ld+2x], src[r·ld+2x+1]) rounded to bf16, the first in the upper half,
// for r < rows and x < n, n a multiple of four. It is transpose512 with words instead of floats: vector q collects eight floats
// of rows q and q+4 and eight of rows q+8 and q+12, which rounding packs into the four lanes.
func transposeBF16(rows int) {
	name := fmt.Sprintf("transposeBF16x%d", rows)
	TEXT(name, NOSPLIT, packSignature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s transposes %d rows of n pairs of columns, n a multiple of four, see transposeBF16.", name, rows))
	n, src, ld, dst, width := param("n"), param("src"), bytes("ld"), param("dst"), bytes("width")
	ld3, width3 := times3(ld), times3(width)
	bases := []reg.GPVirtual{src}
	for r := 4; r < rows; r += 4 {
		p := GP64()
		LEAQ(operand.Mem{Base: bases[len(bases)-1], Index: ld, Scale: 4}, p)
		bases = append(bases, p)
	}
	store, m := reg.K4, GP32()
	MOVL(operand.U32(1<<rows-1), m)
	KMOVW(m, store)
	in, mid, out, second := zmm[0:4], zmm[4:8], zmm[8:12], zmm[12:16]
	Label("loop")
	for q := range 4 {
		// load puts rows q+4l and q+4l+4 into v, zeros for those that are not there.
		load := func(l int, v reg.VecPhysical) {
			if 4*l+q >= rows {
				VPXORD(v, v, v)
				return
			}
			VMOVUPS(row(bases[l], ld, ld3, q, 0), v.AsY())
			if 4*l+4+q < rows {
				VINSERTF64X4(operand.Imm(1), row(bases[l+1], ld, ld3, q, 0), v, v)
			}
		}
		load(0, in[q])
		load(2, second[q])
		vcvtne2ps2bf16(in[q], second[q], in[q])
		VPRORD(operand.Imm(16), in[q], in[q])
	}
	transpose4x4(in, mid, out)
	storeColumns(rows, 32, out, store, bases, n, dst, width, width3)
}

// transpose4x4 transposes the 4×4 matrices that stand in the 128-bit lanes of in.
func transpose4x4(in, mid, out []reg.VecPhysical) {
	VUNPCKLPS(in[1], in[0], mid[0])
	VUNPCKHPS(in[1], in[0], mid[1])
	VUNPCKLPS(in[3], in[2], mid[2])
	VUNPCKHPS(in[3], in[2], mid[3])
	VUNPCKLPD(mid[2], mid[0], out[0])
	VUNPCKHPD(mid[2], mid[0], out[1])
	VUNPCKLPD(mid[3], mid[1], out[2])
	VUNPCKHPD(mid[3], mid[1], out[3])
}

// transpose2 is transpose512 for AVX2 and six or eight rows.
func transpose2(rows int) {
	name := fmt.Sprintf("transpose2x%d", rows)
	TEXT(name, NOSPLIT, packSignature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s transposes %d rows of n columns, n a multiple of four, see kernel.transpose.", name, rows))
	n, src, ld, dst, width := param("n"), param("src"), bytes("ld"), param("dst"), bytes("width")
	ld3, width3 := times3(ld), times3(width)
	upper := GP64()
	LEAQ(operand.Mem{Base: src, Index: ld, Scale: 4}, upper)
	in, mid, out := ymm[0:4], ymm[4:8], ymm[8:12]
	Label("loop")
	for q := range 4 {
		VMOVUPS(row(src, ld, ld3, q, 0), in[q].AsX())
		if 4+q < rows {
			VINSERTF128(operand.Imm(1), row(upper, ld, ld3, q, 0), in[q], in[q])
		}
	}
	transpose4x4(in, mid, out)
	for x := range 4 {
		if rows == 8 {
			VMOVUPS(out[x], row(dst, width, width3, x, 0))
			continue
		}
		VMOVUPS(out[x].AsX(), row(dst, width, width3, x, 0))
		VEXTRACTF128(operand.Imm(1), out[x], out[x].AsX())
		VMOVLPS(out[x].AsX(), row(dst, width, width3, x, 16))
	}
	ADDQ(operand.Imm(16), src)
	ADDQ(operand.Imm(16), upper)
	LEAQ(operand.Mem{Base: dst, Index: width, Scale: 4}, dst)
	SUBQ(operand.Imm(4), n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// copy512 writes dst[x·width+c] = src[x·ld+c] for c < cols ≤ 32 and x < n, n at least one.
func copy512() {
	TEXT("copy512", NOSPLIT, copySignature)
	Pragma("noescape")
	Doc("copy512 copies n rows, at least one, of up to 32 columns, see kernel.copyRows.")
	copyLoops(1, func(src, _ operand.Mem, mask reg.OpmaskPhysical, v int) reg.VecPhysical {
		VMOVUPS_Z(src, mask, zmm[v])
		return zmm[v]
	})
}

// pairBF16 writes the words dst[x·width+c] = (src[2x·ld+c], src[(2x+1)·ld+c]) rounded to bf16, the first in the upper half, for
// c < cols ≤ 32 and x < n, n at least one.
func pairBF16() {
	TEXT("pairBF16", NOSPLIT, copySignature)
	Pragma("noescape")
	Doc("pairBF16 packs n pairs of rows, at least one, of up to 32 columns, see copyRowsBF16.")
	index := zmm[8]
	VMOVDQU32(interleave(), index)
	copyLoops(2, func(first, second operand.Mem, mask reg.OpmaskPhysical, v int) reg.VecPhysical {
		VMOVUPS_Z(first, mask, zmm[v])
		VMOVUPS_Z(second, mask, zmm[2+v])
		vcvtne2ps2bf16(zmm[2+v], zmm[v], zmm[v])
		VPERMW(zmm[v], index, zmm[v])
		return zmm[v]
	})
}

const copySignature = "func(n int, src *float32, ld int, dst *float32, width int, cols int)"

// copyLoops is the body of a function that makes a row of words of every rows rows of the source. load leaves 16 words of them
// in a register, zeros where the mask is.
//
// See storeColumns for why there is a loop with full stores for whole panels, one for tiles of A of at least eight rows, whose
// stores overlap, and one for the rest.
func copyLoops(rows int, load func(src, next operand.Mem, mask reg.OpmaskPhysical, v int) reg.VecPhysical) {
	n, src, ld, dst, width, cols := param("n"), param("src"), bytes("ld"), param("dst"), bytes("width"), param("cols")
	columnMasks(cols)
	mask := []reg.OpmaskPhysical{reg.K1, reg.K2}
	at := func(v int) reg.VecPhysical {
		return load(operand.Mem{Base: src, Disp: 64 * v}, operand.Mem{Base: src, Index: ld, Scale: 1, Disp: 64 * v}, mask[v], v)
	}
	to := func(v int) operand.Mem { return operand.Mem{Base: dst, Disp: 64 * v} }
	// Rows of a wide matrix lie on pages of their own, where the hardware does not look ahead.
	ahead := GP64()
	LEAQ(operand.Mem{Base: src, Index: ld, Scale: 4}, ahead)
	advance := func(p reg.GPVirtual) {
		if rows == 2 {
			LEAQ(operand.Mem{Base: p, Index: ld, Scale: 2}, p)
		} else {
			ADDQ(ld, p)
		}
	}
	step := func() {
		for v := range 2 {
			PREFETCHT0(operand.Mem{Base: ahead, Disp: 64 * v})
			if rows == 2 {
				PREFETCHT0(operand.Mem{Base: ahead, Index: ld, Scale: 1, Disp: 64 * v})
			}
		}
		advance(ahead)
		advance(src)
		ADDQ(width, dst)
		DECQ(n)
	}
	CMPQ(cols, operand.Imm(32))
	JEQ(operand.LabelRef("panel"))
	CMPQ(cols, operand.Imm(16))
	JGT(operand.LabelRef("masked"))
	CMPQ(width, operand.Imm(32)) // bytes
	JLT(operand.LabelRef("masked"))
	Label("tile")
	CMPQ(n, operand.Imm(1))
	JEQ(operand.LabelRef("masked"))
	VMOVUPS(at(0), to(0))
	step()
	JMP(operand.LabelRef("tile"))

	Label("panel")
	for v := range 2 {
		VMOVUPS(at(v), to(v))
	}
	step()
	JNZ(operand.LabelRef("panel"))
	VZEROUPPER()
	RET()

	Label("masked")
	for v := range 2 {
		VMOVUPS(at(v), mask[v], to(v))
	}
	step()
	JNZ(operand.LabelRef("masked"))
	VZEROUPPER()
	RET()
}

const panelsSignature = "func(n int, src *float32, ld int, dst *float32, panels, step int)"

// copyPanels512 and pairPanelsBF16 are copy512 and pairBF16 for whole panels beside each other, step words apart in dst: what lies
// together in a row of the source is read together.
func copyPanels512() {
	TEXT("copyPanels512", NOSPLIT, panelsSignature)
	Pragma("noescape")
	Doc("copyPanels512 copies n rows, at least one, of panels of 32 columns, see kernel.copyPanels.")
	panelLoops(1, func(src, _ operand.Mem, v int) {
		VMOVUPS(src, zmm[v])
	})
}

func pairPanelsBF16() {
	TEXT("pairPanelsBF16", NOSPLIT, panelsSignature)
	Pragma("noescape")
	Doc("pairPanelsBF16 packs n pairs of rows, at least one, of panels of 32 columns, see kernel.copyPanels.")
	index := zmm[8]
	VMOVDQU32(interleave(), index)
	panelLoops(2, func(first, second operand.Mem, v int) {
		VMOVUPS(first, zmm[v])
		VMOVUPS(second, zmm[2+v])
		vcvtne2ps2bf16(zmm[2+v], zmm[v], zmm[v])
		VPERMW(zmm[v], index, zmm[v])
	})
}

// panelLoops is the body of a function that makes a row of words of each panel of every rows rows of the source. load leaves
// words 16·v … 16·v+15 of a panel's row in register v.
func panelLoops(rows int, load func(src, next operand.Mem, v int)) {
	n, src, ld, dst, panels, step := param("n"), param("src"), bytes("ld"), param("dst"), param("panels"), bytes("step")
	// See copyLoops.
	ahead, from, soon, to, left := GP64(), GP64(), GP64(), GP64(), GP64()
	LEAQ(operand.Mem{Base: src, Index: ld, Scale: 4}, ahead)
	Label("row")
	MOVQ(src, from)
	MOVQ(ahead, soon)
	MOVQ(dst, to)
	MOVQ(panels, left)
	Label("panel")
	for v := range 2 {
		PREFETCHT0(operand.Mem{Base: soon, Disp: 64 * v})
		if rows == 2 {
			PREFETCHT0(operand.Mem{Base: soon, Index: ld, Scale: 1, Disp: 64 * v})
		}
		load(operand.Mem{Base: from, Disp: 64 * v}, operand.Mem{Base: from, Index: ld, Scale: 1, Disp: 64 * v}, v)
		VMOVUPS(zmm[v], operand.Mem{Base: to, Disp: 64 * v})
	}
	ADDQ(operand.U32(128), from)
	ADDQ(operand.U32(128), soon)
	ADDQ(step, to)
	DECQ(left)
	JNZ(operand.LabelRef("panel"))
	for range rows {
		ADDQ(ld, src)
		ADDQ(ld, ahead)
	}
	ADDQ(operand.U32(128), dst)
	DECQ(n)
	JNZ(operand.LabelRef("row"))
	VZEROUPPER()
	RET()
}

var interleaved *operand.Mem

// interleave is the order of words that puts the lower half of a register's into the lower halves of 32 bits, the others into the
// upper halves.
func interleave() operand.Mem {
	if interleaved == nil {
		m := GLOBL("interleave", RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, operand.U32(uint32(16+i)<<16|uint32(i)))
		}
		interleaved = &m
	}
	return *interleaved
}

// columnMasks sets K1 and K2 to the low and the high 16 of cols ones.
func columnMasks(cols reg.GPVirtual) {
	lower, upper := GP32(), GP32()
	MOVL(operand.U32(0xffffffff), lower)
	BZHIL(cols.As32(), lower, lower)
	MOVL(lower, upper)
	SHRL(operand.Imm(16), upper)
	KMOVW(lower, reg.K1)
	KMOVW(upper, reg.K2)
}

// copy2 is copy512 for AVX2 and 16 columns.
func copy2() {
	TEXT("copy2", NOSPLIT, packSignature)
	Pragma("noescape")
	Doc("copy2 copies n rows, at least one, of 16 columns, see kernel.copyRows.")
	n, src, ld, dst, width := param("n"), param("src"), bytes("ld"), param("dst"), bytes("width")
	Label("loop")
	for v := range 2 {
		VMOVUPS(operand.Mem{Base: src, Disp: 32 * v}, ymm[v])
		VMOVUPS(ymm[v], operand.Mem{Base: dst, Disp: 32 * v})
	}
	ADDQ(ld, src)
	ADDQ(width, dst)
	DECQ(n)
	JNZ(operand.LabelRef("loop"))
	VZEROUPPER()
	RET()
}
