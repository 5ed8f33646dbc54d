package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// search emits project and loss of package quant for one instruction set: 16 sums, one register of AVX-512 or two of AVX2.
func search(wide bool) {
	suffix, regs, size := "2", ymm, 32
	if wide {
		suffix, regs, size = "512", zmm, 64
	}
	next := 0
	take := func() reg.VecPhysical { next++; return regs[next-1] }
	begin := func(name, signature, doc string) {
		next = 0
		TEXT(name+suffix, NOSPLIT, signature)
		Pragma("noescape")
		Doc(name + suffix + " " + doc)
	}
	scalar := func(name string, offset int) reg.VecPhysical {
		v := take()
		VBROADCASTSS(operand.NewParamAddr(name, offset), v)
		return v
	}
	zeros := func() []reg.VecPhysical {
		var s []reg.VecPhysical
		for range 64 / size {
			z := take()
			VXORPS(z.AsY(), z.AsY(), z.AsY()) // the rest of the register too
			s = append(s, z)
		}
		return s
	}
	// loop runs body over 16 elements at a time, giving it the offset of the part it is to do.
	loop := func(n, w, h reg.GPVirtual, body func(half, disp int)) {
		Label("loop")
		for half := range 64 / size {
			body(half, half*size)
		}
		ADDQ(operand.Imm(64), w)
		ADDQ(operand.Imm(64), h)
		SUBQ(operand.Imm(16), n)
		JNZ(operand.LabelRef("loop"))
	}
	magicBits := uint32(0x4b400000) // 3<<22
	round := func(w reg.GPVirtual, disp int, inv, lo, hi, magic, c reg.VecPhysical) {
		VMULPS(at(w, disp), inv, c)
		VMAXPS(lo, c, c)
		VMINPS(hi, c, c)
		VADDPS(magic, c, c)
		VSUBPS(magic, c, c)
	}

	begin("project", "func(n int, w, h *float32, inv, lo, hi float32, wc, cc *float32)", "sums over n elements, a multiple of 16, see kernel.project.")
	n, w, h, wcOut, ccOut := param("n"), param("w"), param("h"), param("wc"), param("cc")
	inv, lo, hi, magic := scalar("inv", 24), scalar("lo", 28), scalar("hi", 32), take()
	broadcast32(magicBits, magic)
	wc, cc := zeros(), zeros()
	c, t := take(), take()
	loop(n, w, h, func(half, disp int) {
		round(w, disp, inv, lo, hi, magic, c)
		VMOVUPS(at(h, disp), t)
		VMULPS(at(w, disp), t, t)
		VMULPS(c, t, t)
		VADDPS(t, wc[half], wc[half])
		VMULPS(at(h, disp), c, t)
		VMULPS(c, t, t)
		VADDPS(t, cc[half], cc[half])
	})
	for half := range wc {
		VMOVUPS(wc[half], at(wcOut, half*size))
		VMOVUPS(cc[half], at(ccOut, half*size))
	}
	VZEROUPPER()
	RET()

	begin("loss", "func(n int, w, h *float32, inv, lo, hi, s float32, sum *float32)", "sums over n elements, a multiple of 16, see kernel.loss.")
	n, w, h = param("n"), param("w"), param("h")
	sumOut := param("sum")
	inv, lo, hi = scalar("inv", 24), scalar("lo", 28), scalar("hi", 32)
	s := scalar("s", 36)
	magic = take()
	broadcast32(magicBits, magic)
	sum := zeros()
	c, t = take(), take()
	loop(n, w, h, func(half, disp int) {
		round(w, disp, inv, lo, hi, magic, c)
		VMULPS(s, c, c)
		VMOVUPS(at(w, disp), t)
		VSUBPS(c, t, t)
		VMULPS(t, t, t)
		VMULPS(at(h, disp), t, t)
		VADDPS(t, sum[half], sum[half])
	})
	for half := range sum {
		VMOVUPS(sum[half], at(sumOut, half*size))
	}
	VZEROUPPER()
	RET()
}
