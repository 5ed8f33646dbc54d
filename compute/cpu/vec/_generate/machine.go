package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// machine emits one function for one instruction set. Elements are processed in groups of 16: one register of AVX-512, two
// (half 0 and 1) of AVX2. The last, incomplete group is loaded and stored under a mask, with zeros for what is missing.
type machine struct {
	wide  bool
	tail  bool // emitting the incomplete group
	ptr   map[string]reg.GPVirtual
	masks [2]reg.VecVirtual // AVX2
}

type vec = reg.VecVirtual

// function emits name for one instruction set. ins and outs name its slices' pointers, more is the rest of its signature.
// before runs ahead of the loop, body for each half of each group, after behind the loop.
func function(wide bool, name, doc string, pointers []string, more string, before func(m *machine), body func(m *machine, half int), after func(m *machine)) {
	m := &machine{wide: wide, ptr: map[string]reg.GPVirtual{}}
	suffix := "AVX2"
	if wide {
		suffix = "AVX512"
	}
	signature := "func(n int"
	for _, p := range pointers {
		signature += ", " + p + " *float32"
	}
	TEXT(name+suffix, NOSPLIT, signature+more)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s %s of n elements.", name+suffix, doc))
	n := Load(Param("n"), GP64()).(reg.GPVirtual)
	for _, p := range pointers {
		m.ptr[p] = Load(Param(p), GP64()).(reg.GPVirtual)
	}
	if before != nil {
		before(m)
	}
	group := func() {
		for half := range m.halves() {
			body(m, half)
		}
	}
	SUBQ(operand.Imm(16), n)
	JLT(operand.LabelRef("tail"))
	Label("loop")
	group()
	for _, p := range pointers {
		ADDQ(operand.Imm(64), m.ptr[p])
	}
	SUBQ(operand.Imm(16), n)
	JGE(operand.LabelRef("loop"))
	Label("tail")
	ADDQ(operand.Imm(16), n)
	JZ(operand.LabelRef("done"))
	m.tail = true
	m.setMask(n)
	group()
	Label("done")
	if after != nil {
		after(m)
	}
	VZEROUPPER()
	RET()
}

func (m *machine) halves() int {
	if m.wide {
		return 1
	}
	return 2
}

func (m *machine) reg() vec {
	if m.wide {
		return ZMM()
	}
	return YMM()
}

// setMask selects the first n < 16 elements of a group.
func (m *machine) setMask(n reg.GPVirtual) {
	if m.wide {
		bits := GP32()
		MOVL(operand.U32(0xffffffff), bits)
		BZHIL(n.As32(), bits, bits)
		KMOVW(bits, reg.K1)
		return
	}
	// The table is 16 words of ones and 16 of zeros: from word 16-n on it starts with n ones.
	table := GP64()
	LEAQ(constants.maskTable(), table)
	NEGQ(n)
	for half := range m.masks {
		m.masks[half] = YMM()
		VMOVUPS(operand.Mem{Base: table, Index: n, Scale: 4, Disp: 64 + 32*half}, m.masks[half])
	}
}

func (m *machine) load(p string, half int) vec {
	v, at := m.reg(), operand.Mem{Base: m.ptr[p], Disp: 32 * half}
	switch {
	case !m.tail:
		VMOVUPS(at, v)
	case m.wide:
		VMOVUPS_Z(at, reg.K1, v)
	default:
		VMASKMOVPS(at, m.masks[half], v)
	}
	return v
}

func (m *machine) store(v vec, p string, half int) {
	at := operand.Mem{Base: m.ptr[p], Disp: 32 * half}
	switch {
	case !m.tail:
		VMOVUPS(v, at)
	case m.wide:
		VMOVUPS(v, reg.K1, at)
	default:
		VMASKMOVPS(v, m.masks[half], at)
	}
}

// zeroMissing clears the elements of v that are not there.
func (m *machine) zeroMissing(v vec, half int) vec {
	if !m.tail {
		return v
	}
	r := m.reg()
	if m.wide {
		VMOVAPS_Z(v, reg.K1, r)
	} else {
		VANDPS(m.masks[half], v, r)
	}
	return r
}

// broadcast fills a register with a float32 argument.
func (m *machine) broadcast(param string) vec {
	x, v := XMM(), m.reg()
	Load(Param(param), x)
	VBROADCASTSS(x, v)
	return v
}

// element fills a register with element i of the array that the argument param points to.
func (m *machine) element(base reg.GPVirtual, i int) vec {
	v := m.reg()
	VBROADCASTSS(operand.Mem{Base: base, Disp: 4 * i}, v)
	return v
}

func (m *machine) add(a vec, b operand.Op) vec { r := m.reg(); VADDPS(b, a, r); return r }
func (m *machine) sub(a vec, b operand.Op) vec { r := m.reg(); VSUBPS(b, a, r); return r }
func (m *machine) mul(a vec, b operand.Op) vec { r := m.reg(); VMULPS(b, a, r); return r }
func (m *machine) div(a, b vec) vec            { r := m.reg(); VDIVPS(b, a, r); return r }
func (m *machine) sqrt(a vec) vec              { r := m.reg(); VSQRTPS(a, r); return r }

// max returns a where a > b, else b (also where either is NaN); min likewise.
func (m *machine) max(a, b vec) vec { r := m.reg(); VMAXPS(b, a, r); return r }
func (m *machine) min(a, b vec) vec { r := m.reg(); VMINPS(b, a, r); return r }

func (m *machine) and(a vec, b operand.Op) vec {
	r := m.reg()
	if m.wide {
		VPANDD(b, a, r)
	} else {
		VANDPS(b, a, r)
	}
	return r
}

func (m *machine) zero() vec {
	r := m.reg()
	if m.wide {
		VPXORD(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
	return r
}

// constant is a memory operand with c in all elements; value loads it.
func (m *machine) constant(c float32) operand.Op { return constants.of(c) }

func (m *machine) value(c float32) vec {
	r := m.reg()
	VMOVUPS(constants.of(c), r)
	return r
}

// Predicates of VCMPPS: ordered and quiet, unordered.
const (
	less      = 0x11
	greater   = 0x1e
	unordered = 0x03
)

// where returns yes where (a predicate b), else no.
func (m *machine) where(a vec, predicate uint8, b operand.Op, yes operand.Op, no vec) vec {
	r := m.reg()
	if m.wide {
		VCMPPS(operand.Imm(uint64(predicate)), b, a, reg.K2)
		VMOVAPS(no, r)
		VMOVUPS(yes, reg.K2, r)
		return r
	}
	mask := m.reg()
	VCMPPS(operand.Imm(uint64(predicate)), b, a, mask)
	VBLENDVPS(mask, yes, no, r)
	return r
}

// accumulators are the 16 lanes of a sum.
type accumulators [2]vec

func (m *machine) accumulators(start float32) *accumulators {
	var a accumulators
	for half := range m.halves() {
		if start == 0 {
			a[half] = m.zero()
		} else {
			a[half] = m.value(start)
		}
	}
	return &a
}

func (a *accumulators) add(v vec, half int) { VADDPS(v, a[half], a[half]) }

// combine folds the lanes as a binary tree, i with i+8, then i+4, i+2, i+1, and stores the result in the function's result.
func (m *machine) combine(a *accumulators, op func(ops ...operand.Op), result int) {
	y, upper := YMM(), YMM()
	if m.wide {
		VEXTRACTF64X4(operand.Imm(1), a[0], upper)
		op(upper, a[0].AsY(), y)
	} else {
		op(a[1], a[0], y)
	}
	x, t := XMM(), XMM()
	VEXTRACTF128(operand.Imm(1), y, x)
	op(x, y.AsX(), x)
	VPERMILPS(operand.Imm(0x4e), x, t)
	op(t, x, x)
	VPERMILPS(operand.Imm(0xb1), x, t)
	op(t, x, x)
	Store(x, ReturnIndex(result))
}

// pool is the read-only data: constants, each repeated 16 times.
type pool struct {
	order []uint32
	at    map[uint32]int
}

var constants = pool{at: map[uint32]int{}}

func (p *pool) of(c float32) operand.Mem { return p.bits(math.Float32bits(c)) }

func (p *pool) bits(b uint32) operand.Mem {
	i, ok := p.at[b]
	if !ok {
		i = len(p.order)
		p.at[b] = i
		p.order = append(p.order, b)
	}
	return operand.NewDataAddr(operand.NewStaticSymbol("constants"), 64*i)
}

func (p *pool) maskTable() operand.Mem {
	return operand.NewDataAddr(operand.NewStaticSymbol("masks"), 0)
}

func (p *pool) write() {
	GLOBL("masks", RODATA|NOPTR)
	for i := range 32 {
		word := operand.U32(0)
		if i < 16 {
			word = 0xffffffff
		}
		DATA(4*i, word)
	}
	GLOBL("constants", RODATA|NOPTR)
	for i, b := range p.order {
		for l := range 16 {
			DATA(64*i+4*l, operand.U32(b))
		}
	}
}
