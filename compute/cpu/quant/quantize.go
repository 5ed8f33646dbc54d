package quant

import (
	"fmt"
	"math"

	"autodev/compute/cpu/par"
)

// Quantize rounds the weights w [out, in] to f, each group with the scale that Scale finds for it.
func Quantize(p *par.Pool, f Format, w []float32, out, in int) *Matrix {
	return quantize(p, f, w, out, in, func(group []float32) float32 { return f.Scale(group, nil) })
}

// QuantizeAbsMax rounds the weights w [out, in] to f with the scale of each group that maps its largest magnitude onto the
// largest code: plain round-to-nearest, which others are compared with.
func QuantizeAbsMax(p *par.Pool, f Format, w []float32, out, in int) *Matrix {
	return quantize(p, f, w, out, in, func(group []float32) float32 { return f.absMaxScale(maxAbs(group)) })
}

func quantize(p *par.Pool, f Format, w []float32, out, in int, scale func(group []float32) float32) *Matrix {
	m := alloc(f, out, in)
	if len(w) != out*in {
		panic(fmt.Sprintf("quant: %d weights for [%d %d]", len(w), out, in))
	}
	p.Run(ceilDiv(out, panelOut), func(panel int) {
		codes, scales := make([]int8, in), make([]float32, f.Groups(in))
		for o := panel * panelOut; o < min(out, (panel+1)*panelOut); o++ {
			row := w[o*in:][:in]
			for g := range scales {
				k0, k1 := g*f.Group(), min(in, (g+1)*f.Group())
				scales[g] = scale(row[k0:k1])
				f.Round(codes[k0:k1], row[k0:k1], scales[g])
			}
			m.setRow(o, codes, scales)
		}
	})
	return m
}

// Round writes the codes nearest to w/scale, ties to even, within Range. With the scale 0 or NaN all are 0.
func (f Format) Round(codes []int8, w []float32, scale float32) {
	lo, hi := f.bounds()
	inv := inverse(scale)
	if inv == 0 {
		clear(codes[:len(w)])
		return
	}
	for i, v := range w {
		codes[i] = int8(round(v, inv, lo, hi))
	}
}

// Scale returns the scale, one that can be stored, for at most Group weights: of those tried the one with the least
// Σ importance·(w − scale·code)², code being the nearest one. A nil importance is 1 everywhere. It is never worse than the scale of
// QuantizeAbsMax. The scale of weights with a NaN or an infinity is NaN.
func (f Format) Scale(w, importance []float32) float32 {
	g := newGroup(best(), f, w, importance)
	return g.scale()
}

// group is a group of weights whose scale is searched, padded with zeros of no importance to a multiple of 16.
type group struct {
	k      *kernel
	f      Format
	w, h   []float32
	lo, hi float32
}

func newGroup(k *kernel, f Format, w, importance []float32) *group {
	g := &group{k: k, f: f, w: w, h: importance}
	g.lo, g.hi = f.bounds()
	if g.h == nil && len(w) <= len(ones) {
		g.h = ones[:len(w)]
	}
	g.h = g.h[:len(w)]
	if n := roundUp(len(w), 16); n > len(w) {
		g.w = append(make([]float32, 0, n), w...)[:n]
		g.h = append(make([]float32, 0, n), g.h...)[:n]
	}
	return g
}

// ones is the importance of weights without any.
var ones = func() (h [ActGroup]float32) {
	for i := range h {
		h[i] = 1
	}
	return h
}()

func (g *group) scale() float32 {
	largest := maxAbs(g.w)
	best := g.f.absMaxScale(largest)
	if largest == 0 || best != best {
		return best
	}
	least := g.loss(best)
	try := func(s float32) {
		s = RoundScale(s)
		if e := g.loss(s); e < least {
			least, best = e, s
		}
	}
	// For given codes the best scale is Σwc/Σcc and the loss Σww − (Σwc)²/Σcc. Look for codes by scaling to where the largest
	// magnitude gets between onto and past the end of the codes, then let codes and scale improve each other.
	gain, start := 0.0, best
	for _, top := range g.f.tops() {
		wc, cc := g.project(top / largest)
		if cc > 0 && wc*wc/cc > gain {
			gain, start = wc*wc/cc, float32(wc/cc)
		}
	}
	try(start)
	for range 3 {
		wc, cc := g.project(inverse(best))
		if cc == 0 {
			break
		}
		before := best
		try(float32(wc / cc))
		if best == before {
			break
		}
	}
	return best
}

// tops returns the codes that the largest magnitude of a group is tried to be scaled to. Codes of Int4 reach further down than up, so
// that the sign of the scale matters.
func (f Format) tops() []float32 {
	if f == Int4 {
		return int4Tops[:]
	}
	return int8Tops[:]
}

var (
	int8Tops = [...]float32{127.49, 128, 129, 130, 132, 134, 137, 140}
	int4Tops = [...]float32{6.5, 7, 7.49, 8, 8.5, 9, 9.6, 10.4, -6.5, -7, -7.5, -8, -8.5, -9, -9.6, -10.4}
)

// project returns Σ h·w·c and Σ h·c² for the codes c of w with the given inverse of a scale.
func (g *group) project(inv float32) (wc, cc float64) {
	var a, b lanes
	g.k.project(&a, &b, g.w, g.h, inv, g.lo, g.hi)
	return a.sum(), b.sum()
}

// loss returns Σ h·(w − s·c)².
func (g *group) loss(s float32) float64 {
	var sum lanes
	g.k.loss(&sum, g.w, g.h, inverse(s), g.lo, g.hi, s)
	return sum.sum()
}

// sum combines the lanes as a binary tree.
func (l *lanes) sum() float64 {
	for half := len(l) / 2; half > 0; half /= 2 {
		a, b := l[:half], l[half:2*half]
		for i, v := range b {
			a[i] += v
		}
	}
	return float64(l[0])
}

// absMaxScale returns the scale that maps the given magnitude onto the largest code, NaN if it is not finite.
func (f Format) absMaxScale(largest float32) float32 {
	if largest-largest != 0 {
		return float32(math.NaN())
	}
	_, hi := f.bounds()
	return RoundScale(largest / hi)
}

func (f Format) bounds() (lo, hi float32) {
	l, h := f.Range()
	return float32(l), float32(h)
}

// round returns the integer nearest to v·inv, ties to even, between lo and hi; NaN becomes lo.
func round(v, inv, lo, hi float32) float32 {
	const magic = 3 << 22 // at this size floats are integers
	t := float32(v * inv)
	if !(t > lo) {
		return lo
	}
	if t > hi {
		return hi
	}
	return float32(t+magic) - magic
}

// inverse returns 1/s, 0 for 0 and NaN. Scales that can be stored are far from where it overflows.
func inverse(s float32) float32 {
	if s == 0 || s != s {
		return 0
	}
	return 1 / s
}

// maxAbs returns the largest magnitude; NaN if there is a NaN.
func maxAbs(w []float32) float32 {
	var m uint32
	for _, v := range w {
		m = max(m, math.Float32bits(v)&0x7fffffff)
	}
	return math.Float32frombits(m)
}
