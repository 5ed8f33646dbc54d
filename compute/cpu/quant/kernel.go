package quant

import "unsafe"

// kernel is a set of functions for one instruction set.
type kernel struct {
	level string
	mr    int // most rows of a tile
	// set quantises x, whose length is a positive multiple of 64, as a row of a tile of the given number of rows. to is the row's in
	// the tile: every slice starts with the row's first element.
	set func(to Rows, x []float32, rows int)
	// project and loss compute the sums of scale's search in 16 lanes, element i in lane i mod 16 and each lane in ascending order, over
	// len(w) elements, a positive multiple of 16, c being round(w·inv) between lo and hi:
	//
	//	wc = Σ (h·w)·c, cc = Σ (h·c)·c; sum = Σ (w − s·c)²·h
	project func(wc, cc *lanes, w, h []float32, inv, lo, hi float32)
	loss    func(sum *lanes, w, h []float32, inv, lo, hi, s float32)
	// multiply computes a tile of outputs for the given format and rows, at most mr. It may change t.
	multiply func(t *tile, f Format, rows int)
	// finish computes y[i,j] = (c[i,j] + bias[j]) + base[i,j] for the rows and columns of o.
	finish func(o *output)
}

// lanes are partial sums.
type lanes [16]float32

// tile names the operands of kernel.multiply, which sets
//
//	c[i·ldc+j] = acc of the package comment, for row i and output j of the panels
//
// Assembly knows the offsets of the fields.
type tile struct {
	codes, scales       *byte    // of the first panel
	codeStep, scaleStep int      // bytes from one panel to the next
	x                   *byte    // [in/4][rows][4]
	sums                *int32   // [in/group][rows]: −zero·Σ of the codes
	scale               *float32 // [in/256][rows], with scaleUnit
	c                   *float32
	ldc                 int // elements
	in                  int // a multiple of 64
	panels              int
	ldy                 int      // elements; of y and base
	y, base             *float32 // where C goes to and what is added to it, nil or to be asked for
	stream              bool     // the codes come from memory, not from a cache
}

// output names the operands of kernel.finish. Assembly knows the offsets of the fields.
type output struct {
	y, c         *float32
	bias, base   *float32 // nil: left out
	ldy, ldc     int      // elements; ldy is of base too
	rows, length int      // at least 1
}

// Level names the instruction set that Mul uses here: "avx512", "avx2" or "generic".
func Level() string { return best().level }

func best() *kernel { return kernels()[0] }

// bytesAt returns n bytes from p on.
func bytesAt(p *byte, n int) []byte { return unsafe.Slice(p, n) }
