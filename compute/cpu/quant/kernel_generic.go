package quant

import (
	"encoding/binary"
	"math"
	"unsafe"
)

func genericKernel() *kernel {
	return &kernel{level: "generic", mr: 4, set: setWith(maxBitsGeneric, quantizeGeneric),
		project: projectGeneric, loss: lossGeneric, multiply: multiplyGeneric, finish: finishGeneric}
}

func maxBitsGeneric(x []float32) uint32 { return math.Float32bits(maxAbs(x)) }

func quantizeGeneric(dst []byte, stride int, x []float32, inv float32) (sums [ActGroup / 64]int32) {
	for s := 0; s < len(x)/64; s++ {
		sum := int32(0)
		for i := range 16 {
			to, from := dst[(s*16+i)*stride:][:quad:quad], x[s*64+i*quad:][:quad:quad]
			for j := range quad {
				c := int32(round(from[j], inv, -127, 127))
				to[j] = byte(c)
				sum += c
			}
		}
		sums[s] = sum
	}
	return sums
}

func projectGeneric(wc, cc *lanes, w, h []float32, inv, lo, hi float32) {
	*wc, *cc = lanes{}, lanes{}
	h = h[:len(w)]
	for i, v := range w {
		c := round(v, inv, lo, hi)
		wc[i%16] += float32(float32(h[i]*v) * c)
		cc[i%16] += float32(float32(h[i]*c) * c)
	}
}

func lossGeneric(sum *lanes, w, h []float32, inv, lo, hi, s float32) {
	*sum = lanes{}
	h = h[:len(w)]
	for i, v := range w {
		d := v - float32(s*round(v, inv, lo, hi))
		sum[i%16] += float32(float32(d*d) * h[i])
	}
}

func multiplyGeneric(t *tile, f Format, rows int) {
	group := f.Group()
	for p := range t.panels {
		codes := bytesAt((*byte)(unsafe.Add(unsafe.Pointer(t.codes), p*t.codeStep)), f.codeBytes(t.in))
		groups := ceilDiv(t.in, group)
		halves := bytesAt((*byte)(unsafe.Add(unsafe.Pointer(t.scales), p*t.scaleStep)), groups*panelOut*2)
		x := bytesAt(t.x, t.in*rows)
		sums := unsafe.Slice(t.sums, groups*rows)
		scales := unsafe.Slice(t.scale, ceilDiv(t.in, ActGroup)*rows)
		for i := range rows {
			c := unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(t.c), 4*(i*t.ldc+p*panelOut))), panelOut)
			var acc [panelOut]float32
			for g := range groups {
				var sum [panelOut]int32
				for o := range sum {
					sum[o] = sums[g*rows+i]
				}
				first, last := g*group/quad, min((g+1)*group, t.in)/quad
				for q := first; q < last; q++ {
					a := x[(q*rows+i)*quad:][:quad:quad]
					a0, a1, a2, a3 := int32(int8(a[0])), int32(int8(a[1])), int32(int8(a[2])), int32(int8(a[3]))
					if f == Int4 {
						w, shift := codes[q/2*64:][:64:64], q&1*4
						for o := range sum {
							sum[o] += int32(w[4*o]>>shift&15)*a0 + int32(w[4*o+1]>>shift&15)*a1 + int32(w[4*o+2]>>shift&15)*a2 + int32(w[4*o+3]>>shift&15)*a3
						}
						continue
					}
					w := codes[q*64:][:64:64]
					for o := range sum {
						sum[o] += int32(w[4*o])*a0 + int32(w[4*o+1])*a1 + int32(w[4*o+2])*a2 + int32(w[4*o+3])*a3
					}
				}
				sa := scales[g*group/ActGroup*rows+i]
				for o := range acc {
					sw := fromHalf(binary.LittleEndian.Uint16(halves[(g*panelOut+o)*2:]))
					acc[o] += float32(float32(float32(sum[o])*sw) * sa)
				}
			}
			copy(c, acc[:])
		}
	}
}

func finishGeneric(o *output) {
	for i := range o.rows {
		y, c := floatsAt(o.y, i*o.ldy, o.length), floatsAt(o.c, i*o.ldc, o.length)
		if o.bias != nil {
			for j, b := range floatsAt(o.bias, 0, o.length) {
				c[j] += b
			}
		}
		if o.base == nil {
			copy(y, c)
			continue
		}
		for j, b := range floatsAt(o.base, i*o.ldy, o.length) {
			y[j] = c[j] + b
		}
	}
}

// floatsAt returns n elements from the given one after p on.
func floatsAt(p *float32, skip, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), 4*skip)), n)
}

// codeBytes returns the size of a panel's codes for in, a multiple of 64.
func (f Format) codeBytes(in int) int {
	n, _ := f.panelBytes(in)
	return n
}
