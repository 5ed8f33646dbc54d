package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// kernel512 emits one tile function: 16 outputs of a panel in the lanes of a register, rows broadcast.
type kernel512 struct {
	rows, panels int
	int4         bool
	splits       int  // integer accumulators of each row and panel, to hide latency where there are few
	unshifted    bool // high nibbles stay where they are: the odd accumulators, theirs alone, are 16 times what they stand for
	floats       bool // float32 accumulators in registers, else in C

	codes, scales          [2]reg.GPVirtual
	x, sums, scale, c, ldc reg.GPVirtual
	mask, high             reg.VecPhysical   // of the low and, with unshifted, the high nibbles
	line                   reg.VecPhysical   // of codes, with unshifted
	w                      []reg.VecPhysical // a vector of codes for each panel
	broadcast              []reg.VecPhysical
}

func (k *kernel512) sum(row, panel, split int) reg.VecPhysical {
	return zmm[(row*k.panels+panel)*k.splits+split]
}

func (k *kernel512) acc(row, panel int) reg.VecPhysical {
	return zmm[k.rows*k.panels*k.splits+row*k.panels+panel]
}

func (k *kernel512) name() string {
	format := "Int8"
	if k.int4 {
		format = "Int4"
	}
	return fmt.Sprintf("multiply512%sx%dx%d", format, k.rows, k.panels)
}

// eachVector calls f for every row and panel.
func (k *kernel512) eachVector(f func(row, panel int)) {
	for i := range k.rows {
		for p := range k.panels {
			f(i, p)
		}
	}
}

// ahead and aheadX are how far before their use codes and activations are asked for, in bytes.
const (
	ahead  = 2048
	aheadX = 2048
)

// prefetch asks for codes. One or two rows read no slower than the processor's own prefetching runs ahead, and asking would only
// take its place. While a line's dot products take less time than memory needs to deliver the next line, a little help is
// enough. More rows ask from further ahead, for the second-level cache, as the first-level cache would not hold so much.
// Distances are measured, on Zen 4.
func (k *kernel512) prefetch(codes reg.GPVirtual, disp int) {
	dots := k.rows
	if k.int4 {
		dots *= 2
	}
	switch {
	case k.panels == 2:
		PREFETCHT0(at(codes, disp+ahead))
	case k.rows <= 2:
	case dots <= 5:
		PREFETCHT0(at(codes, disp+4096))
	default:
		PREFETCHT1(at(codes, disp+8192))
	}
}

func multiply512(rows, panels int, int4 bool) {
	k := &kernel512{rows: rows, panels: panels, int4: int4, splits: 1}
	vectors := rows * panels
	if vectors < 4 {
		k.splits = 4 / vectors
	}
	// Codes of the panels, one broadcast and the mask of nibbles need room as well.
	k.floats = panels == 1
	free := zmm[vectors*k.splits:]
	if k.floats {
		free = free[vectors:]
	}
	k.w, free = free[:panels], free[panels:]
	if int4 {
		k.mask, free = free[0], free[1:]
	}
	if k.unshifted = int4 && k.splits > 1; k.unshifted {
		k.high, k.line, free = free[0], free[1], free[2:]
	}
	k.broadcast = free[:min(2, len(free))]

	TEXT(k.name(), NOSPLIT, "func(t *byte)")
	Pragma("noescape")
	if panels == 1 {
		Doc(fmt.Sprintf("%s computes %d rows and any number of panels, one by one, see kernel.multiply.", k.name(), rows))
	} else {
		Doc(fmt.Sprintf("%s computes %d rows and %d panels, see kernel.multiply.", k.name(), rows, panels))
	}
	t := param("t")
	k.codes[0], k.scales[0] = field(t, tileCodes), field(t, tileScales)
	if panels == 2 {
		k.codes[1], k.scales[1] = field(t, tileCodeStep), field(t, tileScaleStep)
		ADDQ(k.codes[0], k.codes[1])
		ADDQ(k.scales[0], k.scales[1])
	}
	k.c, k.ldc = field(t, tileC), field(t, tileLDC)
	SHLQ(operand.Imm(2), k.ldc)
	if panels == 2 {
		k.prefetchOutput(t)
	}
	if int4 {
		broadcast32(0x0f0f0f0f, k.mask)
		if k.unshifted {
			broadcast32(0xf0f0f0f0, k.high)
		}
	}
	var left reg.GPVirtual
	if panels == 1 {
		// Codes and scales of the next panel follow: going on to it here and not by another call keeps loads in flight.
		left = field(t, tilePanels)
		Label("panel")
	}
	k.x, k.sums, k.scale = field(t, tileX), field(t, tileSums), field(t, tileScale)
	rest := field(t, tileIn)
	SHRQ(operand.Imm(2), rest) // quads
	if k.floats {
		k.eachVector(func(i, p int) { VPXORD(k.acc(i, p), k.acc(i, p), k.acc(i, p)) })
	} else {
		VPXORD(k.w[0], k.w[0], k.w[0])
		k.eachC(func(i, p int, c operand.Mem) { VMOVUPS(k.w[0], c) })
	}
	count, fours := GP64(), reg.GPVirtual(nil)
	if int4 {
		fours = GP64()
		MOVQ(operand.U32(4), fours)
	}

	Label("group")
	for i := range rows {
		VPBROADCASTD(at(k.sums, 4*i), k.sum(i, 0, 0))
		for p := range panels {
			if p > 0 {
				VMOVDQA32(k.sum(i, 0, 0), k.sum(i, p, 0))
			}
			for s := 1; s < k.splits; s++ {
				VPXORD(k.sum(i, p, s), k.sum(i, p, s), k.sum(i, p, s))
			}
		}
	}
	ADDQ(operand.Imm(uint64(4*rows)), k.sums)
	if int4 {
		MOVQ(operand.U32(16/4), count)
		SUBQ(operand.Imm(16), rest)
	} else {
		MOVQ(operand.U32(64), count)
		CMPQ(rest, count)
		CMOVQLT(rest, count)
		SUBQ(count, rest)
		SHRQ(operand.Imm(2), count)
	}
	alignLoop()
	Label("loop")
	if int4 {
		k.lines4()
	} else {
		k.lines8()
	}
	ADDQ(operand.Imm(uint64(4*4*rows)), k.x)
	DECQ(count)
	JNZ(operand.LabelRef("loop"))

	for p := range panels {
		VCVTPH2PS(at(k.scales[p], 0), k.w[p])
		PREFETCHT0(at(k.scales[p], 512))
		ADDQ(operand.Imm(32), k.scales[p])
	}
	finish := func(i, p int) reg.VecPhysical {
		s := k.sum(i, p, 0)
		// The even ones, the odd ones, and both.
		for step := k.splits / 2; step > 1; step /= 2 {
			for to := range step {
				VPADDD(k.sum(i, p, to+step), k.sum(i, p, to), k.sum(i, p, to))
			}
		}
		if k.splits > 1 {
			odd := k.sum(i, p, 1)
			if k.unshifted {
				VPSRAD(operand.Imm(4), odd, odd)
			}
			VPADDD(odd, s, s)
		}
		VCVTDQ2PS(s, s)
		VMULPS(k.w[p], s, s)
		VMULPS_BCST(at(k.scale, 4*i), s, s)
		return s
	}
	if k.floats {
		k.eachVector(func(i, p int) { VADDPS(finish(i, p), k.acc(i, p), k.acc(i, p)) })
	} else {
		k.eachC(func(i, p int, c operand.Mem) {
			s := finish(i, p)
			VADDPS(c, s, s)
			VMOVUPS(s, c)
		})
	}
	if int4 {
		DECQ(fours)
		JNZ(operand.LabelRef("same"))
		MOVQ(operand.U32(4), fours)
		ADDQ(operand.Imm(uint64(4*rows)), k.scale)
		Label("same")
	} else {
		ADDQ(operand.Imm(uint64(4*rows)), k.scale)
	}
	TESTQ(rest, rest)
	JNZ(operand.LabelRef("group"))
	if k.floats {
		k.eachC(func(i, p int, c operand.Mem) { VMOVUPS(k.acc(i, p), c) })
	}
	if panels == 1 {
		ADDQ(operand.Imm(64), k.c)
		DECQ(left)
		JNZ(operand.LabelRef("panel"))
	}
	VZEROUPPER()
	RET()
}

// prefetchOutput asks for the memory that C goes to: for a batch it is rows far apart and longer ago than caches remember, and it
// comes while the tile is multiplied.
func (k *kernel512) prefetchOutput(t reg.Register) {
	ldy := field(t, tileLDY)
	SHLQ(operand.Imm(2), ldy)
	for _, offset := range []int{tileY, tileBase} {
		p := field(t, offset)
		skip := fmt.Sprintf("prefetched%d", offset)
		TESTQ(p, p)
		JZ(operand.LabelRef(skip))
		for i := range k.rows {
			PREFETCHT0(at(p, 0))
			PREFETCHT0(at(p, 64))
			if i < k.rows-1 {
				ADDQ(ldy, p)
			}
		}
		Label(skip)
	}
}

// eachC calls f with the address of every vector of C.
func (k *kernel512) eachC(f func(row, panel int, c operand.Mem)) {
	c := copyOf(k.c)
	for i := range k.rows {
		for p := range k.panels {
			f(i, p, at(c, 64*p))
		}
		if i < k.rows-1 {
			ADDQ(k.ldc, c)
		}
	}
}

// lines8 adds four quads, a line of each panel at a time.
func (k *kernel512) lines8() {
	for q := range 4 {
		for p := range k.panels {
			VMOVDQU32(at(k.codes[p], 64*q), k.w[p])
			k.prefetch(k.codes[p], 64*q)
		}
		k.dot(q)
	}
	for p := range k.panels {
		ADDQ(operand.U32(4*64), k.codes[p])
	}
}

// lines4 adds four quads, two from a line.
func (k *kernel512) lines4() {
	for line := range 2 {
		if k.unshifted {
			VMOVDQU32(at(k.codes[0], 64*line), k.line)
			k.prefetch(k.codes[0], 64*line)
			VPANDD(k.line, k.mask, k.w[0])
			k.dot(2 * line)
			VPANDD(k.line, k.high, k.w[0])
			k.dot(2*line + 1)
			continue
		}
		for p := range k.panels {
			VPANDD(at(k.codes[p], 64*line), k.mask, k.w[p])
			k.prefetch(k.codes[p], 64*line)
		}
		k.dot(2 * line)
		for p := range k.panels {
			VPSRLW(operand.Imm(4), at(k.codes[p], 64*line), k.w[p])
			VPANDD(k.mask, k.w[p], k.w[p])
		}
		k.dot(2*line + 1)
	}
	for p := range k.panels {
		ADDQ(operand.U32(2*64), k.codes[p])
	}
}

// dot adds the products of quad q of the rows with the codes in w.
func (k *kernel512) dot(q int) {
	for i := range k.rows {
		x := at(k.x, 4*(q*k.rows+i))
		if k.panels == 1 {
			VPDPBUSD_BCST(x, k.w[0], k.sum(i, 0, q%k.splits))
			continue
		}
		if i == 0 {
			// The first pair of panels to meet a tile of a large batch finds it in the third-level cache.
			PREFETCHT0(at(k.x, 4*q*k.rows+aheadX))
		}
		b := k.broadcast[i%len(k.broadcast)]
		VPBROADCASTD(x, b)
		for p := range k.panels {
			VPDPBUSD(b, k.w[p], k.sum(i, p, q%k.splits))
		}
	}
}
