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

	x      []float32           // during Set
	source Source              // during SetFrom
	row    [][]float32         // by worker: a row of the source
	tail   [][ActGroup]float32 // by worker: the end of a row, padded
}

// Source computes rows of activations.
type Source interface {
	// Row writes row i to dst. It is called for several rows at the same time.
	Row(dst []float32, i int)
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
	p = poolFor(p, n*in)
	r.reset(k, n, in, p.Threads())
	r.x = x
	p.Do(r.tiles()*r.blocks(), (*setTask)(r))
	r.x = nil
}

// SetFrom quantises n rows of in elements that s computes: Set without memory for all of them.
func (r *Rows) SetFrom(p *par.Pool, s Source, n, in int) { r.setFrom(best(), p, s, n, in) }

func (r *Rows) setFrom(k *kernel, p *par.Pool, s Source, n, in int) {
	if n < 0 || in < 1 {
		panic(fmt.Sprintf("quant: activations of [%d %d]", n, in))
	}
	p = poolFor(p, n*in)
	r.reset(k, n, in, p.Threads())
	r.row = grow(r.row, p.Threads())
	for i := range r.row {
		r.row[i] = grow(r.row[i], in)
	}
	r.source = s
	p.Do(r.tiles(), (*sourceTask)(r))
	r.source = nil
}

// poolFor returns p, or nil for work that is over sooner than another thread awakes.
func poolFor(p *par.Pool, elements int) *par.Pool {
	if elements < 1<<14 {
		return nil
	}
	return p
}

// reset makes room for n rows that the given number of workers set.
func (r *Rows) reset(k *kernel, n, in, workers int) {
	r.n, r.in, r.k = n, in, k
	r.codes = grow(r.codes, n*r.padded())
	r.scale = grow(r.scale, n*ceilDiv(in, ActGroup))
	r.sum8 = grow(r.sum8, n*ceilDiv(in, ActGroup))
	r.sum4 = grow(r.sum4, n*r.padded()/64)
	r.tail = grow(r.tail, workers)
}

// sourceTask is SetFrom as a par.Task. Its items are tiles.
type sourceTask Rows

func (t *sourceTask) Item(worker, i int) {
	r := (*Rows)(t)
	first, rows := r.tile(i)
	for i := range rows {
		row := r.row[worker][:r.in]
		r.source.Row(row, first+i)
		r.setRow(&r.tail[worker], first, rows, i, 0, row)
	}
}

// setTask is Set as a par.Task. Its items are blocks of tiles.
type setTask Rows

func (t *setTask) Item(worker, i int) {
	r := (*Rows)(t)
	r.setTile(&r.tail[worker], i/r.blocks(), i%r.blocks())
}

// blocks counts the blocks of a row.
func (r *Rows) blocks() int { return ceilDiv(r.in, setBlock) }

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

// setBlock is how much of a row is quantised before the next row's turn: the lines of codes that rows share stay in the first-level
// cache.
const setBlock = 8 * ActGroup

// setTile quantises a block of the rows of a tile.
func (r *Rows) setTile(tail *[ActGroup]float32, t, block int) {
	first, rows := r.tile(t)
	start := block * setBlock
	end := min(start+setBlock, r.in)
	for i := range rows {
		r.setRow(tail, first, rows, i, start, r.x[(first+i)*r.in:][start:end])
	}
}

// setRow quantises x, the elements of row i of the tile of the given rows from first on that begin with start, a multiple of 256,
// and end at another or with the row.
func (r *Rows) setRow(tail *[ActGroup]float32, first, rows, i, start int, x []float32) {
	whole := len(x)
	if whole%align != 0 {
		whole = whole / ActGroup * ActGroup
	}
	if whole > 0 {
		r.k.set(r.from(first, rows, i, start), x[:whole], rows)
	}
	if whole < len(x) {
		n := copy(tail[:], x[whole:])
		padded := tail[:roundUp(n, align)]
		clear(padded[n:])
		r.k.set(r.from(first, rows, i, start+whole), padded, rows)
	}
}

// from returns what starts with element k, a multiple of 256, of row i of the tile of the given rows from first on.
func (r *Rows) from(first, rows, i, k int) Rows {
	group := first*ceilDiv(r.in, ActGroup) + k/ActGroup*rows + i
	return Rows{codes: r.codes[first*r.padded()+k*rows+i*quad:], scale: r.scale[group:], sum8: r.sum8[group:],
		sum4: r.sum4[first*r.padded()/64+k/64*rows+i:]}
}

// setWith returns kernel.set made of two functions for a group: largest returns the largest of the bits of the magnitudes of x, and
// round writes the codes of x, |x·inv| < 127.5, which are x·inv rounded to the nearest, ties to even. The four codes of quad q go to
// dst[q·stride]; it returns the sum of every 64.
func setWith(largest func(x []float32) uint32, round func(dst []byte, stride int, x []float32, inv float32) [ActGroup / 64]int32) func(to Rows, x []float32, rows int) {
	return func(to Rows, x []float32, rows int) {
		for g := 0; g*ActGroup < len(x); g++ {
			part := x[g*ActGroup : min((g+1)*ActGroup, len(x))]
			scale, inv := actScale(largest(part))
			if inv == 0 {
				part = zeros[:len(part)] // infinities times 0 are not 0
			}
			sums := round(to.codes[g*ActGroup*rows:], rows*quad, part, inv)
			to.scale[g*rows] = scale * scaleUnit
			total := int32(0)
			for s := range len(part) / 64 {
				total += sums[s]
				to.sum4[(g*ActGroup/64+s)*rows] = -8 * sums[s]
			}
			to.sum8[g*rows] = -128 * total
		}
	}
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
