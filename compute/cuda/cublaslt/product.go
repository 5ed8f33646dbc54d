package cublaslt

import "fmt"

// Product describes row-major D [M,N] = alpha·op(A)·op(B) + beta·C with an epilogue. It is the key under which an algorithm is kept.
type Product struct {
	M, N, K        int
	TransA, TransB bool // A is stored [K,M], B [N,K]
	In, Out        Type // of A and B; of C and D
	TF32           bool // float32 operands may be rounded to TF32
	Epilogue       Epilogue
	// Row lengths in memory, in elements; 0: dense. C has D's. AuxStride must be a multiple of 8.
	StrideA, StrideB, StrideD, AuxStride int
	// Batch products lie at these distances in elements; 0 means one product.
	Batch                  int
	BatchA, BatchB, BatchD int
	// Alignment of all addresses in bytes, a power of two; 0: 16.
	Alignment int
}

func (p Product) String() string {
	t := func(b bool) string {
		if b {
			return "ᵀ"
		}
		return ""
	}
	return fmt.Sprintf("product [%d,%d] = A%s·B%s over %d, %v to %v, epilogue %d, batch %d", p.M, p.N, t(p.TransA), t(p.TransB), p.K, p.In, p.Out, p.Epilogue, p.Batch)
}

// fill sets what is left out and checks the rest.
func (p Product) fill() (Product, error) {
	if p.M < 1 || p.N < 1 || p.K < 1 {
		return p, fmt.Errorf("%v: expected positive sizes", p)
	}
	set := func(v *int, otherwise int) {
		if *v == 0 {
			*v = otherwise
		}
	}
	columnsA, columnsB := p.K, p.N
	if p.TransA {
		columnsA = p.M
	}
	if p.TransB {
		columnsB = p.K
	}
	set(&p.StrideA, columnsA)
	set(&p.StrideB, columnsB)
	set(&p.StrideD, p.N)
	set(&p.AuxStride, p.N)
	set(&p.Batch, 1)
	set(&p.Alignment, 16)
	if p.Epilogue == 0 {
		p.Epilogue = None
	}
	if p.StrideA < columnsA || p.StrideB < columnsB || p.StrideD < p.N || p.AuxStride < p.N {
		return p, fmt.Errorf("%v: strides %d, %d, %d, %d are shorter than rows", p, p.StrideA, p.StrideB, p.StrideD, p.AuxStride)
	}
	if p.Epilogue == RowSumsOfA && !p.TransA || p.Epilogue == ColumnSumsOfB && p.TransB {
		return p, fmt.Errorf("%v: the epilogue needs op(A) = Aᵀ for row sums, op(B) = B for column sums", p)
	}
	return p, nil
}

// Extents returns the elements of a product's operands in memory: A, B, D (and C), and the auxiliary matrix if its epilogue has one.
func (p Product) Extents() (a, b, d, aux int, err error) {
	if p, err = p.fill(); err != nil {
		return
	}
	rowsA, rowsB := p.M, p.K
	if p.TransA {
		rowsA = p.K
	}
	if p.TransB {
		rowsB = p.N
	}
	if p.aux() {
		aux = p.M * p.AuxStride
	}
	last := p.Batch - 1
	return last*p.BatchA + rowsA*p.StrideA, last*p.BatchB + rowsB*p.StrideB, last*p.BatchD + p.M*p.StrideD, aux, nil
}

func (p Product) aux() bool { return p.Epilogue&128 != 0 }
func (p Product) vector() bool {
	return p.Epilogue != None && p.Epilogue&(4|16|256|512) != 0
}
