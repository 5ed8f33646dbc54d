package quant

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"autodev/internal/guard"
)

// TestKernelsStayInside runs every kernel with each operand against the end, then the start, of readable memory.
func TestKernelsStayInside(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range kernels() {
		for _, f := range []Format{Int8, Int4} {
			for rows := 1; rows <= k.mr; rows++ {
				for _, in := range []int{64, 128, 320, 576} {
					for panels := 1; panels <= 3; panels++ {
						for _, front := range []bool{false, true} {
							t.Run(fmt.Sprint(k.level, f, rows, in, panels, front), func(t *testing.T) {
								w := QuantizeAbsMax(nil, f, normal(r, panels*panelOut*in, 1), panels*panelOut, in)
								codeStep, scaleStep := f.panelBytes(in)
								codes, scales := guard.Copy(t, w.codes, front), guard.Copy(t, w.scales[:panels*scaleStep], front)
								x := guard.Copy(t, normal(r, rows*in, 1), front)
								var q Rows
								q.codes = guard.Copy(t, make([]byte, rows*in), front)
								q.scale = guard.Copy(t, make([]float32, rows*ceilDiv(in, ActGroup)), front)
								q.sum8 = guard.Copy(t, make([]int32, rows*ceilDiv(in, ActGroup)), front)
								q.sum4 = guard.Copy(t, make([]int32, rows*in/64), front)
								q.set(k, nil, x, rows, in)
								sums := q.sum8
								if f == Int4 {
									sums = q.sum4
								}
								const gap = 3
								ldc := panels*panelOut + gap
								c := guard.Copy(t, make([]float32, rows*ldc-gap), front)
								k.multiply(&tile{codes: &codes[0], scales: &scales[0], codeStep: codeStep, scaleStep: scaleStep, x: &q.codes[0], sums: &sums[0],
									scale: &q.scale[0], c: &c[0], ldc: ldc, in: in, panels: panels, stream: front}, f, rows)
								want := product{n: rows, out: w.out, in: in, x: x, w: w}.definition()
								for i := range c {
									row, j := i/ldc, i%ldc
									switch {
									case j >= w.out && c[i] != 0:
										t.Fatalf("c[%d,%d] behind the row is %v", row, j, c[i])
									case j < w.out && c[i] != want[row*w.out+j]:
										t.Fatalf("c[%d,%d] is %v, expected %v", row, j, c[i], want[row*w.out+j])
									}
								}
							})
						}
					}
				}
			}
		}
	}
}

// TestFinishStaysInside runs every kernel's finish likewise, with and without each operand.
func TestFinishStaysInside(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, k := range kernels() {
		for _, rows := range []int{1, 3} {
			for _, n := range []int{1, 7, 8, 9, 15, 16, 17, 33, 63, 64} {
				for operands := range 4 {
					for _, front := range []bool{false, true} {
						t.Run(fmt.Sprint(k.level, rows, n, operands, front), func(t *testing.T) {
							const gapY, gapC = 5, 2
							ldy, ldc := n+gapY, n+gapC
							y, base := guard.Copy(t, normal(r, rows*ldy-gapY, 1), front), guard.Copy(t, normal(r, rows*ldy-gapY, 1), front)
							c, bias := guard.Copy(t, normal(r, rows*ldc-gapC, 1), front), guard.Copy(t, normal(r, n, 1), front)
							want := append([]float32(nil), y...)
							o := output{y: &y[0], c: &c[0], ldy: ldy, ldc: ldc, rows: rows, length: n}
							if operands&1 != 0 {
								o.bias = &bias[0]
							}
							if operands&2 != 0 {
								o.base = &base[0]
							}
							for i := range rows {
								for j := range n {
									v := c[i*ldc+j]
									if o.bias != nil {
										v += bias[j]
									}
									if o.base != nil {
										v += base[i*ldy+j]
									}
									want[i*ldy+j] = v
								}
							}
							k.finish(&o)
							sameBits(t, y, want)
						})
					}
				}
			}
		}
	}
}
