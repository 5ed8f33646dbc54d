package cublaslt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/cuda/dynlib"
	"autodev/compute/cuda/wheels"
)

const newest = 13 // version that is looked for

// nvidia loads NVIDIA's own library: of this machine where the tests run on a card, else of the Python wheels. Without a card it makes descriptors,
// and no handle.
func nvidia(t *testing.T) *Library {
	t.Helper()
	path := ""
	if !cudatest.GPU() {
		path = wheels.Library(t, "libcublasLt.so.*")
	} else if strings.Contains(os.Getenv(dynlib.CublasLt(newest).Env), "standin") {
		t.Skip("the card is the stand-in")
	}
	l, err := Load(path, newest)
	if errors.Is(err, dynlib.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// reader reads attributes back.
type reader struct {
	t                  *testing.T
	desc, layout, pref uintptr // functions
}

// get returns the bytes that the library says an attribute has.
func (r reader) get(f, object uintptr, attribute int) []byte {
	r.t.Helper()
	b, n := make([]byte, 64), new(uint64)
	for _, size := range []int{4, 8} {
		if status := int32(dynlib.Call(f, object, uintptr(attribute), uintptr(unsafe.Pointer(&b[0])), uintptr(size), uintptr(unsafe.Pointer(n)))); status == 0 {
			if int(*n) != size {
				r.t.Errorf("attribute %d: %d bytes written of %d", attribute, *n, size)
			}
			return b[:size]
		}
	}
	r.t.Errorf("attribute %d cannot be read", attribute)
	return nil
}

// is compares an attribute's number and size.
func (r reader) is(what string, f, object uintptr, attribute, size int, want int64) {
	r.t.Helper()
	b := r.get(f, object, attribute)
	if len(b) != size {
		r.t.Errorf("%s, attribute %d, has %d bytes, expected %d", what, attribute, len(b), size)
		return
	}
	var got int64
	if size == 4 {
		got = int64(int32(binary.LittleEndian.Uint32(b)))
	} else {
		got = int64(binary.LittleEndian.Uint64(b))
	}
	if got != want {
		r.t.Errorf("%s, attribute %d, is %d, expected %d", what, attribute, got, want)
	}
}

// layout is what a column-major matrix of the library must have been told.
type layout struct {
	t              Type
	rows, cols, ld int64
	batch, step    int64
}

// TestNVIDIADescriptors: NVIDIA's library takes every attribute that products set, with our sizes, and has what it was told.
func TestNVIDIADescriptors(t *testing.T) {
	l := nvidia(t)
	lib, err := dynlib.CublasLt(newest).Open(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	r := reader{t: t}
	if err := lib.Symbols(map[string]*uintptr{"cublasLtMatmulDescGetAttribute": &r.desc, "cublasLtMatrixLayoutGetAttribute": &r.layout, "cublasLtMatmulPreferenceGetAttribute": &r.pref}); err != nil {
		t.Fatal(err)
	}
	const bytes = 32 << 20
	h := &Handle{lib: l, bytes: bytes}
	// The library's A is our B: rows and columns change places.
	for _, c := range []struct {
		p              Product
		compute        int64
		transA, transB int64
		a, b, d        layout
	}{
		{Product{M: 24, N: 40, K: 56, In: F32, Out: F32}, 68, 0, 0,
			layout{F32, 40, 56, 40, 1, 0}, layout{F32, 56, 24, 56, 1, 0}, layout{F32, 40, 24, 40, 1, 0}},
		{Product{M: 24, N: 40, K: 56, In: F32, Out: F32, TF32: true}, 77, 0, 0,
			layout{F32, 40, 56, 40, 1, 0}, layout{F32, 56, 24, 56, 1, 0}, layout{F32, 40, 24, 40, 1, 0}},
		{Product{M: 24, N: 40, K: 56, TransB: true, In: BF16, Out: BF16, StrideA: 64, StrideB: 72, StrideD: 80, AuxStride: 48}, 68, 1, 0,
			layout{BF16, 56, 40, 72, 1, 0}, layout{BF16, 56, 24, 64, 1, 0}, layout{BF16, 40, 24, 80, 1, 0}},
		{Product{M: 24, N: 40, K: 56, TransA: true, In: BF16, Out: F32, Alignment: 4}, 68, 0, 1,
			layout{BF16, 40, 56, 40, 1, 0}, layout{BF16, 24, 56, 24, 1, 0}, layout{F32, 40, 24, 40, 1, 0}},
		{Product{M: 24, N: 40, K: 56, TransA: true, TransB: true, In: F16, Out: F16, Batch: 3, BatchA: 24 * 56, BatchB: 40 * 56, BatchD: 24 * 40}, 68, 1, 1,
			layout{F16, 56, 40, 56, 3, 40 * 56}, layout{F16, 24, 56, 24, 3, 24 * 56}, layout{F16, 40, 24, 40, 3, 24 * 40}},
	} {
		for _, e := range []Epilogue{None, Bias, GELU, BiasGELU, GELUAux, BiasGELUAux, DGELU, DGELUColumnSums, ColumnSumsOfB, RowSumsOfA} {
			p := c.p
			p.Epilogue = e
			if p, err = p.fill(); err != nil {
				continue // the sums of the other operand's layout
			}
			t.Run(fmt.Sprint(p), func(t *testing.T) {
				r := r
				r.t = t
				q := &plan{}
				if err := h.describe(q, p); err != nil {
					t.Fatal(err)
				}
				bias, aux := uint64(0x7f1122334450), uint64(0x7f5566778890)
				if err := h.point(q, p, &bias, &aux); err != nil {
					t.Fatal(err)
				}
				preference, err := h.preference(p)
				if err != nil {
					t.Fatal(err)
				}
				r.is("compute type", r.desc, q.desc, 0, 4, c.compute)
				r.is("scale type", r.desc, q.desc, 1, 4, 0)
				r.is("pointer mode", r.desc, q.desc, 2, 4, 0)
				r.is("transposition of A", r.desc, q.desc, 3, 4, c.transA)
				r.is("transposition of B", r.desc, q.desc, 4, 4, c.transB)
				r.is("epilogue", r.desc, q.desc, 7, 4, int64(e))
				if !slices.Contains([]Epilogue{Bias, BiasGELU, BiasGELUAux, DGELUColumnSums, ColumnSumsOfB, RowSumsOfA}, e) {
					bias = 0
				}
				auxLD := int64(p.AuxStride)
				if !slices.Contains([]Epilogue{GELUAux, BiasGELUAux, DGELU, DGELUColumnSums}, e) {
					aux, auxLD = 0, 0
				}
				r.is("bias", r.desc, q.desc, 8, 8, int64(bias))
				r.is("aux", r.desc, q.desc, 11, 8, int64(aux))
				r.is("aux's leading dimension", r.desc, q.desc, 12, 8, auxLD)
				r.is("aux's type", r.desc, q.desc, 22, 4, -1) // that of D
				r.is("bias's type", r.desc, q.desc, 26, 4, -1)
				for i, m := range []layout{c.a, c.b, c.d} {
					object := []uintptr{q.a, q.b, q.d}[i]
					what := "layout of " + []string{"A", "B", "D"}[i]
					r.is(what+": type", r.layout, object, 0, 4, int64(m.t))
					r.is(what+": order", r.layout, object, 1, 4, 0) // columns
					r.is(what+": rows", r.layout, object, 2, 8, m.rows)
					r.is(what+": columns", r.layout, object, 3, 8, m.cols)
					r.is(what+": leading dimension", r.layout, object, 4, 8, m.ld)
					r.is(what+": batch", r.layout, object, 5, 4, m.batch)
					r.is(what+": batch's stride", r.layout, object, 6, 8, m.step)
				}
				r.is("workspace", r.pref, preference, 1, 8, bytes)
				for i := range 4 {
					r.is("alignment", r.pref, preference, 5+i, 4, int64(p.Alignment))
				}
				if err := errors.Join(h.free(q), l.check("destroy", dynlib.Call(l.prefDestroy, preference))); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("refused", func(t *testing.T) {
		q := &plan{}
		p, err := Product{M: 8, N: 8, K: 8}.fill()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.describe(q, p); err != nil {
			t.Fatal(err)
		}
		for _, attribute := range []int{descAux, 1000} { // an address has 8 bytes, and there is no such attribute
			var err error
			l.setter("set", l.descSet, q.desc, &err)(attribute, int32(1))
			var refused *Error
			if !errors.As(err, &refused) || refused.Name != "CUBLAS_STATUS_INVALID_VALUE" {
				t.Errorf("attribute %d with 4 bytes: error %v", attribute, err)
			}
		}
		if err := h.free(q); err != nil {
			t.Error(err)
		}
	})
}

// TestNVIDIAStatus: names and texts come from the library; without a driver it says so, where a handle is asked for.
func TestNVIDIAStatus(t *testing.T) {
	l := nvidia(t)
	if v := l.Version(); v < 110000 || v > 990000 {
		t.Errorf("version %d", v)
	}
	var e *Error
	if err := l.check("call", statusNotSupported); !errors.As(err, &e) || e.Name != "CUBLAS_STATUS_NOT_SUPPORTED" || e.Text == "" {
		t.Errorf("error %v", err)
	}
	if cudatest.GPU() {
		return
	}
	if _, err := l.New(0, 0); err == nil || !strings.Contains(err.Error(), "cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED (1): ") {
		t.Errorf("error %v", err)
	}
}
