package gemm

import (
	"fmt"
	"unsafe"

	"autodev/compute/cpu/par"
)

// Packed is a matrix in the order in which the kernels read it: panels of consecutive columns, each stored row after row
// from top to bottom, so that a product with one row of activations reads it as one stream. It is immutable and may be used
// by any number of goroutines.
type Packed struct {
	Rows, Cols int
	k          *kernel
	data       []float32 // words, see kernel
}

// Pack packs b for MulPacked.
func Pack(p *par.Pool, b Mat) *Packed { return best().packed(p, b) }

// PackBF16 packs b rounded to bf16, two bytes an element. MulPacked with it rounds A as well: the bits are those of Mul with
// Options.BF16.
func PackBF16(p *par.Pool, b Mat) *Packed { return best().bf16.packed(p, b) }

func (k *kernel) packed(p *par.Pool, b Mat) *Packed {
	b.check("B")
	panel := k.width * k.units(b.Rows)
	out := &Packed{Rows: b.Rows, Cols: b.Cols, k: k, data: make([]float32, ceilDiv(b.Cols, k.width)*panel)}
	hugePages(out.data)
	if b.Rows > 0 {
		p.Run(ceilDiv(b.Cols, k.width), func(j int) { k.packPanel(out.data[j*panel:], b, 0, b.Rows, j*k.width) })
	}
	return out
}

// panelBF16 is the number of columns of a panel of bf16, the same for every instruction set.
const panelBF16 = 32

// BF16PackedSize returns the number of elements of a packed rows × cols matrix of bf16, see Packed.BF16.
func BF16PackedSize(rows, cols int) int {
	return roundUp(cols, panelBF16) * roundUp(rows, 2)
}

// BF16 returns the memory of a matrix made by PackBF16 or PackedBF16From, which must not be changed, and nil for one of
// float32. The layout is part of file formats and never changes: panels of 32 columns one after the other, each of them
// [⌈rows/2⌉][32][2]uint16, where [p][c] holds rows 2p+1 and 2p, in this order, of the panel's column c; zeros stand in for what
// is beyond the matrix.
func (b *Packed) BF16() []uint16 {
	if b.k.unit != 2 {
		return nil
	}
	return halves(b.data)
}

// PackedBF16From is the rows × cols matrix whose Packed.BF16 is data, BF16PackedSize(rows, cols) elements that may lie in a
// mapped file. Memory that starts at a multiple of 64 bytes is read fastest; an odd multiple of 2 is an error.
func PackedBF16From(data []uint16, rows, cols int) (*Packed, error) {
	if rows < 0 || cols < 0 {
		return nil, fmt.Errorf("gemm: packed bf16 matrix is %d×%d", rows, cols)
	}
	if cols > 0 && roundUp(rows, 2) > len(data)/roundUp(cols, panelBF16) || len(data) != BF16PackedSize(rows, cols) {
		return nil, fmt.Errorf("gemm: packed bf16 matrix of %d×%d has %d elements, expected ⌈%d/2⌉·2·⌈%d/32⌉·32", rows, cols, len(data), rows, cols)
	}
	out := &Packed{Rows: rows, Cols: cols, k: best().bf16}
	if len(data) > 0 {
		start := unsafe.Pointer(&data[0])
		if uintptr(start)%4 != 0 {
			return nil, fmt.Errorf("gemm: packed bf16 matrix starts at an odd multiple of 2 bytes, expected a multiple of 4")
		}
		out.data = unsafe.Slice((*float32)(start), len(data)/2)
	}
	return out, nil
}

// Bytes returns the memory the matrix takes.
func (b *Packed) Bytes() int { return 4 * len(b.data) }

// Column sets dst[i], 0 ≤ i < Rows, to element (i, j): of a packed linear weight [in × out] the weights of output j, of a tied
// embedding the vector of token j.
func (b *Packed) Column(dst []float32, j int) {
	if j < 0 || j >= b.Cols || len(dst) != b.Rows {
		panic(fmt.Sprintf("gemm: column %d of a %d×%d matrix into %d elements", j, b.Rows, b.Cols, len(dst)))
	}
	width := b.k.width
	panel := b.data[j/width*width*b.k.units(b.Rows):]
	if b.k.unit == 1 {
		for i := range dst {
			dst[i] = panel[i*width+j%width]
		}
		return
	}
	words := halves(panel)
	for i := range dst {
		dst[i] = fromBF16(words[2*(i/2*width+j%width)+1-i%2])
	}
}
