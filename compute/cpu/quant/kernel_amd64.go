//go:build !noasm

package quant

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// kernels returns the kernels that this machine can run, best first.
var kernels = sync.OnceValue(func() []*kernel {
	var ks []*kernel
	x := &cpu.X86
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasAVX512VNNI {
		ks = append(ks, &kernel{level: "avx512", mr: 14, set: setAll512,
			project: projectWith(project512), loss: lossWith(loss512), multiply: multiply512, finish: finishWith(finish512)})
	}
	if x.HasAVX2 && x.HasFMA { // every such processor converts float16 too
		ks = append(ks, &kernel{level: "avx2", mr: 2, set: setWith(largest2, round2),
			project: projectWith(project2), loss: lossWith(loss2), multiply: multiply2, finish: finishWith(finish2)})
	}
	return append(ks, genericKernel())
})

func setAll512(to Rows, x []float32, rows int) {
	// set512 is assembly: what it writes must exist.
	n := len(x) &^ 63
	last := (ceilDiv(n, ActGroup) - 1) * rows
	_, _, _, _ = to.codes[(n/quad-1)*rows*quad+quad-1], to.scale[last], to.sum8[last], to.sum4[(n/64-1)*rows]
	set512(n, &x[0], rows, &to.codes[0], &to.scale[0], &to.sum8[0], &to.sum4[0])
}

func largest2(x []float32) uint32 { return maxBits2(len(x)&^63, &x[0]) }

func round2(dst []byte, stride int, x []float32, inv float32) (sums [ActGroup / 64]int32) {
	n := len(x) &^ 63
	_, _ = dst[(n/quad-1)*stride+quad-1], sums[n/64-1]
	quantize2(n, &x[0], inv, &dst[0], stride, &sums[0])
	return sums
}

func projectWith(f func(n int, w, h *float32, inv, lo, hi float32, wc, cc *float32)) func(wc, cc *lanes, w, h []float32, inv, lo, hi float32) {
	return func(wc, cc *lanes, w, h []float32, inv, lo, hi float32) {
		h = h[:len(w)]
		f(len(w)&^15, &w[0], &h[0], inv, lo, hi, &wc[0], &cc[0])
	}
}

func lossWith(f func(n int, w, h *float32, inv, lo, hi, s float32, sum *float32)) func(sum *lanes, w, h []float32, inv, lo, hi, s float32) {
	return func(sum *lanes, w, h []float32, inv, lo, hi, s float32) {
		h = h[:len(w)]
		f(len(w)&^15, &w[0], &h[0], inv, lo, hi, s, &sum[0])
	}
}

func finishWith(f func(o *byte)) func(*output) {
	return func(o *output) { f((*byte)(unsafe.Pointer(o))) }
}

// tileFunc takes the address of a tile.
type tileFunc func(t *byte)

var (
	multiply512Int8     = [14]tileFunc{multiply512Int8x1x1, multiply512Int8x2x1, multiply512Int8x3x1, multiply512Int8x4x1, multiply512Int8x5x1, multiply512Int8x6x1, multiply512Int8x7x1, multiply512Int8x8x1, multiply512Int8x9x1, multiply512Int8x10x1, multiply512Int8x11x1, multiply512Int8x12x1, multiply512Int8x13x1, multiply512Int8x14x1}
	multiply512Int8Pair = [14]tileFunc{6: multiply512Int8x7x2, multiply512Int8x8x2, multiply512Int8x9x2, multiply512Int8x10x2, multiply512Int8x11x2, multiply512Int8x12x2, multiply512Int8x13x2, multiply512Int8x14x2}
	multiply512Int4     = [14]tileFunc{multiply512Int4x1x1, multiply512Int4x2x1, multiply512Int4x3x1, multiply512Int4x4x1, multiply512Int4x5x1, multiply512Int4x6x1, multiply512Int4x7x1, multiply512Int4x8x1, multiply512Int4x9x1, multiply512Int4x10x1, multiply512Int4x11x1, multiply512Int4x12x1, multiply512Int4x13x1, multiply512Int4x14x1}
	multiply512Int4Pair = [14]tileFunc{6: multiply512Int4x7x2, multiply512Int4x8x2, multiply512Int4x9x2, multiply512Int4x10x2, multiply512Int4x11x2, multiply512Int4x12x2, multiply512Int4x13x2, multiply512Int4x14x2}
	multiply2Int8       = [2]tileFunc{multiply2Int8x1, multiply2Int8x2}
	multiply2Int4       = [2]tileFunc{multiply2Int4x1, multiply2Int4x2}
)

// multiply512 takes panels in pairs where there is a function for it, so that every broadcast serves twice. Few rows take them one by
// one: weights come from memory fastest in one stream.
func multiply512(t *tile, f Format, rows int) {
	single, pair := multiply512Int8[rows-1], multiply512Int8Pair[rows-1]
	if f == Int4 {
		single, pair = multiply512Int4[rows-1], multiply512Int4Pair[rows-1]
	}
	left := t.panels
	for !t.stream && pair != nil && left >= 2 {
		t.panels = 2
		pair((*byte)(unsafe.Pointer(t)))
		if left -= 2; left == 0 {
			return
		}
		t.skip(2)
	}
	t.panels = left
	single((*byte)(unsafe.Pointer(t)))
}

func multiply2(t *tile, f Format, rows int) {
	single := multiply2Int8[rows-1]
	if f == Int4 {
		single = multiply2Int4[rows-1]
	}
	left := t.panels
	t.panels = 1
	for {
		single((*byte)(unsafe.Pointer(t)))
		if left--; left == 0 {
			return
		}
		t.skip(1)
	}
}

// skip makes t begin that many panels later. There must be one left: the garbage collector takes an address behind the last for one
// of something else.
func (t *tile) skip(panels int) {
	t.codes = (*byte)(unsafe.Add(unsafe.Pointer(t.codes), panels*t.codeStep))
	t.scales = (*byte)(unsafe.Add(unsafe.Pointer(t.scales), panels*t.scaleStep))
	t.c = panelOf(t.c, panels)
	if t.y != nil {
		t.y = panelOf(t.y, panels)
	}
	if t.base != nil {
		t.base = panelOf(t.base, panels)
	}
}

// panelOf returns the address of the first output of panel p in the row at c.
func panelOf(c *float32, p int) *float32 {
	return (*float32)(unsafe.Add(unsafe.Pointer(c), 4*p*panelOut))
}
