package cublaslt

import (
	"errors"
	"unsafe"

	"autodev/compute/cuda/dynlib"
)

// plan is what the library needs to know of a product.
type plan struct {
	desc, a, b, d uintptr
	result        *heuristicResult
}

// heuristicResult is cublasLtMatmulHeuristicResult_t: 96 bytes, the first 64 of them opaque.
type heuristicResult struct {
	algo      [8]uint64
	workspace uint64
	state     int32
	waves     float32
	reserved  [4]int32
}

// free frees what describe has made, as far as it came.
func (h *Handle) free(p *plan) error {
	l := h.lib
	var errs []error
	if p.desc != 0 {
		errs = append(errs, l.check("cublasLtMatmulDescDestroy", dynlib.Call(l.descDestroy, p.desc)))
	}
	for _, m := range []uintptr{p.a, p.b, p.d} {
		if m != 0 {
			errs = append(errs, l.check("cublasLtMatrixLayoutDestroy", dynlib.Call(l.layoutDestroy, m)))
		}
	}
	return errors.Join(errs...)
}

// describe makes the descriptors of a product.
func (h *Handle) describe(q *plan, p Product) (err error) {
	l := h.lib
	compute := uintptr(compute32F)
	if p.TF32 && p.In == F32 {
		compute = compute32FTF32
	}
	made := new(uintptr)
	if err := l.check("cublasLtMatmulDescCreate", dynlib.Call(l.descCreate, uintptr(unsafe.Pointer(made)), compute, uintptr(F32))); err != nil {
		return err
	}
	q.desc = *made
	set := l.setter("cublasLtMatmulDescSetAttribute", l.descSet, q.desc, &err)
	if p.TransB {
		set(descTransA, int32(opT))
	}
	if p.TransA {
		set(descTransB, int32(opT))
	}
	set(descEpilog, int32(p.Epilogue))
	if p.aux() {
		set(descAuxLD, uint64(p.AuxStride))
	}
	if err != nil {
		return err
	}
	rowsA, rowsB := p.M, p.K
	columnsA, columnsB := p.K, p.N
	if p.TransA {
		rowsA, columnsA = columnsA, rowsA
	}
	if p.TransB {
		rowsB, columnsB = columnsB, rowsB
	}
	for _, m := range []struct {
		to                          *uintptr
		t                           Type
		columns, rows, stride, step int
	}{{&q.a, p.In, columnsB, rowsB, p.StrideB, p.BatchB}, {&q.b, p.In, columnsA, rowsA, p.StrideA, p.BatchA}, {&q.d, p.Out, p.N, p.M, p.StrideD, p.BatchD}} {
		if err := l.check("cublasLtMatrixLayoutCreate", dynlib.Call(l.layoutCreate, uintptr(unsafe.Pointer(made)), uintptr(m.t), uintptr(m.columns), uintptr(m.rows), uintptr(m.stride))); err != nil {
			return err
		}
		*m.to = *made
		if p.Batch > 1 {
			set := l.setter("cublasLtMatrixLayoutSetAttribute", l.layoutSet, *m.to, &err)
			set(layoutBatch, int32(p.Batch))
			set(layoutStep, uint64(m.step))
		}
	}
	return err
}

// point gives the epilogue its addresses. They are the descriptor's, which all products of the shape share and the library reads when it is called.
func (h *Handle) point(q *plan, p Product, bias, aux *uint64) error {
	l := h.lib
	const call = "cublasLtMatmulDescSetAttribute"
	if p.vector() {
		if err := l.check(call, dynlib.Call(l.descSet, q.desc, descBias, uintptr(unsafe.Pointer(bias)), 8)); err != nil {
			return err
		}
	}
	if p.aux() {
		return l.check(call, dynlib.Call(l.descSet, q.desc, descAux, uintptr(unsafe.Pointer(aux)), 8))
	}
	return nil
}

// preference makes what algorithms are asked for with. It must be destroyed even where there is an error.
func (h *Handle) preference(p Product) (preference uintptr, err error) {
	l := h.lib
	made := new(uintptr)
	if err := l.check("cublasLtMatmulPreferenceCreate", dynlib.Call(l.prefCreate, uintptr(unsafe.Pointer(made)))); err != nil {
		return 0, err
	}
	set := l.setter("cublasLtMatmulPreferenceSetAttribute", l.prefSet, *made, &err)
	set(prefWorkspace, uint64(h.bytes))
	for i := range 4 {
		set(prefAlignA+i, int32(p.Alignment))
	}
	return *made, err
}
