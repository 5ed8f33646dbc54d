package gemm

import (
	"fmt"

	"autodev/compute/cpu/par"
)

// KC is the block length of the inner dimension. It is part of the results' definition, see the package comment.
const KC = 512

// Mat is a view of a matrix of Rows × Cols. Element (i, j) is Data[i·Stride + j], or Data[j·Stride + i] if T is set
// (the matrix is stored transposed: a linear weight [out, in] is the in × out matrix with T and Stride in).
type Mat struct {
	Data       []float32
	Rows, Cols int
	Stride     int
	T          bool
}

// Dense is the rows × cols matrix stored row after row in data.
func Dense(data []float32, rows, cols int) Mat {
	return Mat{Data: data, Rows: rows, Cols: cols, Stride: cols}
}

// Transposed is mᵀ in the same memory.
func (m Mat) Transposed() Mat {
	m.Rows, m.Cols, m.T = m.Cols, m.Rows, !m.T
	return m
}

// check panics unless every element of m lies in Data.
func (m Mat) check(name string) {
	outer, inner := m.Rows, m.Cols
	if m.T {
		outer, inner = inner, outer
	}
	if outer < 0 || inner < 0 {
		panic(fmt.Sprintf("gemm: %s is %d×%d", name, m.Rows, m.Cols))
	}
	if outer == 0 || inner == 0 {
		return
	}
	if outer > 1 && m.Stride < inner {
		panic(fmt.Sprintf("gemm: %s is %d×%d (T: %v) with stride %d, expected at least %d", name, m.Rows, m.Cols, m.T, m.Stride, inner))
	}
	// Division keeps the check true for sizes whose product overflows.
	if len(m.Data) < inner || outer > 1 && (len(m.Data)-inner)/m.Stride < outer-1 {
		panic(fmt.Sprintf("gemm: %s is %d×%d (T: %v) with stride %d, but its data has only %d elements", name, m.Rows, m.Cols, m.T, m.Stride, len(m.Data)))
	}
}

// Options says what the product is added to, how, and what becomes of it. The zero value overwrites C without reading it.
type Options struct {
	BF16       bool      // round both operands to bf16 first, see the package comment
	Accumulate bool      // add to the old C
	Base       Mat       // add to this matrix of C's size instead (absent: Data nil); it may be C's memory. Not transposed
	Bias       []float32 // [C.Cols], also added to every row
	// Then is applied in place (y and x are the same slice) to pieces of rows of alpha·A·B + Bias while they are in cache:
	// an element-wise function, called from several goroutines. A Base is added afterwards then, and must not be C's memory;
	// Accumulate is not possible.
	Then func(y, x []float32)
	Work []float32 // packing space of at least WorkFloats elements, contents undefined after; nil: the package finds some
}

// Mul computes c = init + alpha·a·b, where init is what o says. c must not be transposed nor overlap a or b.
// Work is shared with the pool's other workers; a nil pool computes on the caller's goroutine and, with o.Work given,
// allocates nothing. Operands that do not fit each other are a programmer's error and panic.
func Mul(p *par.Pool, c Mat, alpha float32, a, b Mat, o Options) {
	k := best()
	if o.BF16 {
		k = k.bf16
	}
	k.mul(p, c, alpha, a, b, nil, o)
}

// MulPacked is Mul with b packed beforehand. The bits are the same; whether the product is one of bf16 is b's affair, not o's.
func MulPacked(p *par.Pool, c Mat, alpha float32, a Mat, b *Packed, o Options) {
	b.k.mul(p, c, alpha, a, Mat{Rows: b.Rows, Cols: b.Cols}, b.data, o)
}

// Limits of the packed parts of A and B in words (8 MiB each), and of their rows and columns. They only bound memory and are
// chosen so that both stay in the last-level cache.
const (
	maxPacked = 2 << 20
	maxPart   = 4096
)

// shape is how a product is cut: parts of A of mb × kb and parts of B of kb × nb are packed at a time.
type shape struct {
	mb, nb, kb   int
	directA      bool // A's rows are read where they are
	directB      bool // B is packed beforehand, or its full panels are read where they are
	fused        bool // a worker packs a block of some panels of B while it multiplies the block before, instead of all panels in a first pass
	together     int  // panels of B that are packed at a time
	aSize, bSize int  // words of the packed parts
}

// fusedBytes is the largest block of A, rows × KC, that is passed over for every panel of a fused B. It may leave the
// second-level cache: a panel stays there.
const fusedBytes = 1 << 20

// Rows of B lie on pages of their own and, a power of two apart, on few lines of a cache: it helps to read more of each at a time than
// a panel's. packedTogether is how many bytes a block of K of the panels has that are packed at a time in a first pass,
// fusedTogether how many panels of a fused B are. Measured on Zen 4.
const (
	packedTogether = 256 << 10
	fusedTogether  = 2
)

func (k *kernel) shape(m, n, kk int, a, b Mat, packed bool, threads int) shape {
	s := shape{mb: m, nb: n, kb: kk}
	s.directA = m == 1 && !a.T && k.unit == 1
	s.directB = packed || !b.T && m <= k.mr && k.unit == 1
	s.fused = !s.directB && m <= fusedBytes/4/k.units(KC)/k.aWords && threads <= 64 && (threads == 1 && n > k.width || ceilDiv(n, k.width) >= 4*threads)
	if m > k.mr || !s.directB {
		s.mb = min(m, maxPart/k.mr*k.mr)
		long := roundUp(s.mb, k.mr) * k.aWords
		if !s.directB && !s.fused {
			s.nb = min(n, maxPart)
			long = max(long, roundUp(s.nb, k.width))
		}
		if long*k.units(kk) > maxPacked {
			s.kb = min(kk, max(1, maxPacked/long/k.units(KC))*KC)
		}
	}
	if !s.directA {
		s.aSize = roundUp(s.mb, k.mr) * k.aWords * k.units(s.kb)
	}
	switch {
	case packed:
	case s.directB:
		s.bSize = min(1, s.nb%k.width) * k.width * s.kb
	case s.fused:
		panel := k.width * k.units(min(KC, s.kb))
		s.together = max(1, min(fusedTogether, ceilDiv(n, k.width)/(2*threads), maxPacked/2/panel/threads))
		s.bSize = threads * 2 * s.together * panel
	default:
		s.together = max(1, min(packedTogether/4/(k.width*k.units(KC)), ceilDiv(n, k.width)/(4*threads)))
		s.bSize = roundUp(s.nb, k.width) * k.units(s.kb)
	}
	return s
}

// WorkFloats returns a length of Options.Work that is enough for any product of an m×k by a k×n matrix, of float32 or bf16, and
// for all smaller ones.
func WorkFloats(m, n, k int) int {
	work := 0
	for _, kern := range kernels() {
		for _, kern := range []*kernel{kern, kern.bf16} {
			units := kern.units(k)
			packed := min(maxPacked, roundUp(m, kern.mr)*kern.aWords*units) + min(maxPacked, roundUp(n, kern.width)*units)
			direct := (kern.mr*kern.aWords + kern.width) * units
			work = max(work, packed, direct)
		}
	}
	return work
}

// job is one product under way.
type job struct {
	k        *kernel
	a, b, c  Mat
	panels   []float32 // B packed beforehand, or nil
	alpha    float32
	init     Mat       // what the first block of K adds to, with Stride 0 for a bias; Data nil for nothing
	bias     []float32 // also added to init, or nil
	then     func(y, x []float32)
	last     Mat // added after then; Data nil for nothing
	s        shape
	threads  int
	ap, bp   []float32
	cut      [3]int // origin of the present part in M, N and K
	m, n, kb int    // its size
	packA    bool   // whether its A must be packed
	// The part's tiles are computed in groups of mt tiles by nt panels.
	mt, nt int
}

func (k *kernel) mul(p *par.Pool, c Mat, alpha float32, a, b Mat, panels []float32, o Options) {
	m, n, kk := a.Rows, b.Cols, a.Cols
	if b.Rows != kk || c.Rows != m || c.Cols != n {
		panic(fmt.Sprintf("gemm: %d×%d matrix times %d×%d matrix into %d×%d matrix", m, kk, b.Rows, n, c.Rows, c.Cols))
	}
	a.check("A")
	if panels == nil {
		b.check("B")
	}
	c.check("C")
	if c.T {
		panic("gemm: C is transposed")
	}
	init := Mat{}
	if o.Accumulate {
		init = c
	}
	if o.Base.Data != nil {
		if o.Accumulate {
			panic("gemm: both Accumulate and Base")
		}
		init = o.Base
		if init.Rows != m || init.Cols != n || init.T {
			panic(fmt.Sprintf("gemm: base is %d×%d (T: %v), expected %d×%d", init.Rows, init.Cols, init.T, m, n))
		}
		init.check("base")
	}
	last := Mat{}
	if o.Then != nil {
		if o.Accumulate {
			panic("gemm: both Accumulate and Then")
		}
		if last = init; last.Data != nil && m > 0 && n > 0 && &last.Data[0] == &c.Data[0] {
			panic("gemm: Then with C itself as base")
		}
		init = Mat{}
	}
	var bias []float32
	if o.Bias != nil {
		if len(o.Bias) != n {
			panic(fmt.Sprintf("gemm: bias has %d elements, expected %d", len(o.Bias), n))
		}
		if init.Data == nil {
			init = Mat{Data: o.Bias, Rows: m, Cols: n}
		} else {
			bias = o.Bias
		}
	}
	if m == 0 || n == 0 {
		return
	}
	j := job{k: k, a: a, b: b, c: c, panels: panels, alpha: alpha, init: init, bias: bias, then: o.Then, last: last, threads: p.Threads()}
	if kk == 0 {
		j.empty()
		return
	}
	j.s = k.shape(m, n, kk, a, b, panels != nil, p.Threads())
	size := j.s.aSize + j.s.bSize
	work := o.Work
	if work == nil && size > 0 {
		w := workPool.Get().(*[]float32)
		defer workPool.Put(w)
		if len(*w) < size {
			*w = make([]float32, size)
		}
		work = *w
	} else if len(work) < size {
		panic(fmt.Sprintf("gemm: work has %d elements, a product of %d×%d by %d×%d needs %d", len(work), m, kk, kk, n, size))
	}
	j.ap, j.bp = work[:j.s.aSize], work[j.s.aSize:size]
	// Waking a worker takes microseconds; a product below this size is over by then.
	if p.Threads() == 1 || float64(m)*float64(n)*float64(kk) < 1<<17 {
		j.run(nil)
		return
	}
	j.run(p)
}
