package quant

import (
	"fmt"
	"math"

	"autodev/compute/cpu/par"
)

// Rows is a batch of rows of activations, quantised. Its memory is used again by the next Set. Any number of Muls may read it
// at the same time.
type Rows struct {
	n, in int
	k     *kernel
	// The n rows are cut into tiles of at most k.mr rows, sizes differing by one at most. A tile of r rows from row i on has its
	// r·len(x)/n of every slice from i·len(x)/n on, with the row innermost:
	codes []byte    // [in/4][r][4] int8, in padded to a multiple of 64
	scale []float32 // [in/256][r], times scaleUnit
	sum8  []int32   // [in/256][r]: −128·Σ codes of 256
	sum4  []int32   // [in/64][r]: −8·Σ codes of 64
}

// N returns the number of rows.
func (r *Rows) N() int { return r.n }

// In returns the length of a row.
func (r *Rows) In() int { return r.in }

// Set quantises x [n, in].
func (r *Rows) Set(p *par.Pool, x []float32, n, in int) { r.set(best(), p, x, n, in) }

func (r *Rows) set(k *kernel, p *par.Pool, x []float32, n, in int) {
	if n < 0 || in < 1 || len(x) != n*in {
		panic(fmt.Sprintf("quant: %d activations for [%d %d]", len(x), n, in))
	}
	r.n, r.in, r.k = n, in, k
	r.codes = grow(r.codes, n*r.padded())
	r.scale = grow(r.scale, n*ceilDiv(in, ActGroup))
	r.sum8 = grow(r.sum8, n*ceilDiv(in, ActGroup))
	r.sum4 = grow(r.sum4, n*r.padded()/64)
	if p.Threads() == 1 || n*in < 1<<15 {
		for t := range r.tiles() {
			r.setTile(x, t)
		}
		return
	}
	p.Run(r.tiles(), func(t int) { r.setTile(x, t) })
}

// padded returns the stored length of a row.
func (r *Rows) padded() int { return roundUp(r.in, align) }

func (r *Rows) tiles() int {
	if r.n == 0 {
		return 0
	}
	return ceilDiv(r.n, r.k.mr)
}

// tile returns the first row of a tile and the number of its rows.
func (r *Rows) tile(t int) (first, rows int) {
	tiles := r.tiles()
	first = t * r.n / tiles
	return first, (t+1)*r.n/tiles - first
}

func (r *Rows) setTile(x []float32, t int) {
	first, rows := r.tile(t)
	// Block by block, so that the lines of codes that rows share stay in the first-level cache.
	for start := 0; start < r.in; start += setBlock {
		for i := range rows {
			for k0 := start; k0 < min(start+setBlock, r.in); k0 += ActGroup {
				r.setGroup(x[(first+i)*r.in:][:r.in], k0, first, rows, i)
			}
		}
	}
}

// setBlock is how much of a row is quantised before the next row's turn.
const setBlock = 8 * ActGroup

// setGroup quantises the 256 elements from k0 on of row i of the tile that starts with row first.
func (r *Rows) setGroup(row []float32, k0, first, rows, i int) {
	part := row[k0:min(k0+ActGroup, r.in)]
	if len(part)%align != 0 {
		part = append(make([]float32, 0, ActGroup), part...)[:roundUp(len(part), align)]
	}
	scale, inv := actScale(r.k.maxBits(part))
	if inv == 0 {
		part = zeros[:len(part)] // infinities times 0 are not 0
	}
	var sums [ActGroup / 64]int32
	r.k.quantize(r.codes[first*r.padded()+(k0*rows+i*quad):], rows*quad, part, inv, &sums)
	at := first*ceilDiv(r.in, ActGroup) + k0/ActGroup*rows + i
	r.scale[at] = scale * scaleUnit
	total := int32(0)
	for s := range len(part) / 64 {
		total += sums[s]
		r.sum4[first*r.padded()/64+(k0/64+s)*rows+i] = -8 * sums[s]
	}
	r.sum8[at] = -128 * total
}

var zeros [ActGroup]float32

// actScale returns the scale of activations whose largest magnitude has the given bits, and its inverse.
func actScale(bits uint32) (scale, inv float32) {
	switch {
	case bits >= 0x7f800000:
		return float32(math.NaN()), 0
	case bits < (127-100)<<23: // 2⁻¹⁰⁰; the inverse of much less overflows
		return 0, 0
	}
	m := math.Float32frombits(bits)
	return m / 127, 127 / m
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
