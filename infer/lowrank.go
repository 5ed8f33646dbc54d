package infer

import (
	"sync"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
)

// lowRank is what an adapter adds to the products with one matrix: s·B·(A·x).
//
// A has few rows, and a product streams panels of panelColumns. So that these are full, A's columns are cut into parts, several of which
// share a panel: parts of them lie side by side in each of slices, and every slice is a product of its own, for a thread of its
// own. The sums of the parts are added in order. The cutting depends on A's size alone, so a row's bits depend on nothing else.
type lowRank struct {
	in, out, rank int
	part          int            // columns of A in a part; in is slices·parts·part
	parts         int            // of a slice
	slices        []*gemm.Packed // [part, parts·rank] each
	b             *gemm.Packed   // s·Bᵀ [rank, out]
}

const (
	panelColumns = 32
	longestPart  = 2048
	// aloneBytes is how much of the factors one thread reads sooner than another awakes.
	aloneBytes = 64 << 10
)

// newLowRank packs A [rank, in] and B [out, rank], in float32 or rounded to bfloat16.
func newLowRank(p *par.Pool, a, b []float32, in, out, rank int, scale float64, short bool) *lowRank {
	pack := gemm.Pack
	if short {
		pack = gemm.PackBF16
	}
	f := &lowRank{in: in, out: out, rank: rank}
	slices := 0
	f.parts, slices = cutLowRank(in, rank)
	f.part = in / (f.parts * slices)
	side := make([]float32, f.part*f.parts*rank)
	for s := range slices {
		for q := range f.parts {
			for r := range rank {
				for k, v := range a[r*in+(s*f.parts+q)*f.part:][:f.part] {
					side[(k*f.parts+q)*rank+r] = v
				}
			}
		}
		f.slices = append(f.slices, pack(p, gemm.Dense(side, f.part, f.parts*rank)))
	}
	scaled := make([]float32, len(b))
	for i, v := range b {
		scaled[i] = float32(scale * float64(v))
	}
	f.b = pack(p, gemm.Dense(scaled, out, rank).Transposed())
	return f
}

// cutLowRank returns how many parts a slice has and how many slices there are: whole parts, as many side by side as fit a panel.
func cutLowRank(in, rank int) (parts, slices int) {
	for parts = max(1, panelColumns/rank); parts > 1; parts-- {
		slices = (in + parts*longestPart - 1) / (parts * longestPart)
		if in%(parts*slices) == 0 {
			return parts, slices
		}
	}
	if slices = (in + longestPart - 1) / longestPart; in%slices != 0 {
		slices = 1
	}
	return 1, slices
}

// bytes returns the memory of the factors.
func (f *lowRank) bytes() (n int) {
	for _, s := range f.slices {
		n += s.Bytes()
	}
	return n + f.b.Bytes()
}

// lowRankRows keeps memory for A·x.
var lowRankRows = sync.Pool{New: func() any { return new([]float32) }}

// add adds s·B·(A·x) for n rows of x to y.
func (f *lowRank) add(p *par.Pool, y, x []float32, n int) {
	memory := lowRankRows.Get().(*[]float32)
	defer lowRankRows.Put(memory)
	sums, wide := n*f.rank, n*f.parts*f.parts*f.rank // of a slice
	if need := len(f.slices) * (sums + wide); len(*memory) < need {
		*memory = make([]float32, need)
	}
	slice := func(p *par.Pool, s int) {
		own := (*memory)[s*(sums+wide):][:sums+wide]
		f.slice(p, own[:sums], own[sums:], x, s, n)
	}
	if len(f.slices) == 1 {
		slice(threadsFor(p, n, f.slices[0].Bytes()), 0)
	} else {
		p.Run(len(f.slices), func(s int) { slice(nil, s) })
	}
	u := (*memory)[:sums]
	for s := 1; s < len(f.slices); s++ {
		for i, v := range (*memory)[s*(sums+wide):][:sums] {
			u[i] += v
		}
	}
	gemm.MulPacked(threadsFor(p, n, f.b.Bytes()), gemm.Dense(y, n, f.out), 1, gemm.Dense(u, n, f.rank), f.b, gemm.Options{Accumulate: true})
}

// threadsFor returns the threads for a product of n rows that reads so much: none but the caller's when it is little.
func threadsFor(p *par.Pool, n, bytes int) *par.Pool {
	if bytes*(1+n/8) <= aloneBytes {
		return nil
	}
	return p
}

// slice sets sums [n, rank] to the part of A·x that comes of slice s. wide is memory for the products of parts of x with all columns of
// the slice, of which those of the part itself are used.
func (f *lowRank) slice(p *par.Pool, sums, wide, x []float32, s, n int) {
	columns, width := f.parts*f.rank, f.parts*f.part
	product := func(y []float32, from, rows, stride int) {
		gemm.MulPacked(p, gemm.Dense(y, rows, columns), 1, gemm.Mat{Data: x[from:], Rows: rows, Cols: f.part, Stride: stride}, f.slices[s], gemm.Options{})
	}
	// wide is [n, parts] rows if those of x are as far apart as the parts of one, else [parts, n].
	row, part := f.parts, 1
	if n == 1 || len(f.slices) == 1 {
		product(wide[:n*f.parts*columns], s*width, n*f.parts, f.part)
	} else {
		row, part = 1, n
		for q := range f.parts {
			product(wide[q*n*columns:][:n*columns], s*width+q*f.part, n, f.in)
		}
	}
	for i := range n {
		to := sums[i*f.rank:][:f.rank]
		for q := range f.parts {
			from := wide[(i*row+q*part)*columns+q*f.rank:][:f.rank]
			if q == 0 {
				copy(to, from)
				continue
			}
			for r, v := range from {
				to[r] += v
			}
		}
	}
}
