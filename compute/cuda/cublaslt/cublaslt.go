package cublaslt

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"autodev/compute/cuda/driver"
	"autodev/compute/cuda/dynlib"
)

// Library is the loaded library.
type Library struct {
	Path string

	version, create, destroy, statusName, statusString,
	descCreate, descDestroy, descSet, layoutCreate, layoutDestroy, layoutSet,
	prefCreate, prefDestroy, prefSet, heuristic, matmul uintptr
}

// Load loads the library from path, or from where dynlib.CublasLt looks when path is empty. The driver must have been loaded.
func Load(path string) (*Library, error) {
	lib, err := dynlib.CublasLt().Open(path)
	if err != nil {
		return nil, err
	}
	l := &Library{Path: lib.Path}
	const p = "cublasLt"
	return l, lib.Symbols(map[string]*uintptr{
		p + "GetVersion": &l.version, p + "Create": &l.create, p + "Destroy": &l.destroy, p + "GetStatusName": &l.statusName, p + "GetStatusString": &l.statusString,
		p + "MatmulDescCreate": &l.descCreate, p + "MatmulDescDestroy": &l.descDestroy, p + "MatmulDescSetAttribute": &l.descSet,
		p + "MatrixLayoutCreate": &l.layoutCreate, p + "MatrixLayoutDestroy": &l.layoutDestroy, p + "MatrixLayoutSetAttribute": &l.layoutSet,
		p + "MatmulPreferenceCreate": &l.prefCreate, p + "MatmulPreferenceDestroy": &l.prefDestroy, p + "MatmulPreferenceSetAttribute": &l.prefSet,
		p + "MatmulAlgoGetHeuristic": &l.heuristic, p + "Matmul": &l.matmul,
	})
}

// Version returns the library's version, 10000·major + 100·minor + patch.
func (l *Library) Version() int { return int(dynlib.Call(l.version)) }

// Error is a call that failed.
type Error struct {
	Call       string
	Status     int
	Name, Text string // from the library
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Status, e.Text)
}

// ErrNoAlgorithm says that the library has no way to compute a product.
var ErrNoAlgorithm = errors.New("cuBLASLt has no algorithm for it")

func (l *Library) check(call string, r uintptr) error {
	if int32(r) == 0 {
		return nil
	}
	return &Error{call, int(int32(r)), dynlib.String(dynlib.Call(l.statusName, r)), dynlib.String(dynlib.Call(l.statusString, r))}
}

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

// Handle keeps the algorithms of products. It belongs to one context and, like its Matmuls, to the thread of that context.
type Handle struct {
	lib       *Library
	handle    uintptr
	workspace driver.Ptr
	bytes     int64
	plans     map[Product]*plan
}

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

// New returns a handle for the current context whose products may use workspace, aligned to 256 bytes. Products of one handle must not run
// side by side: they share it.
func (l *Library) New(workspace driver.Ptr, bytes int64) (*Handle, error) {
	h := &Handle{lib: l, workspace: workspace, bytes: bytes, plans: map[Product]*plan{}}
	p := new(uintptr)
	err := l.check("cublasLtCreate", dynlib.Call(l.create, uintptr(unsafe.Pointer(p))))
	h.handle = *p
	return h, err
}

// Close frees the handle and what it keeps.
func (h *Handle) Close() error {
	var errs []error
	for _, p := range h.plans {
		errs = append(errs, h.free(p))
	}
	h.plans = nil
	return errors.Join(append(errs, h.lib.check("cublasLtDestroy", dynlib.Call(h.lib.destroy, h.handle)))...)
}

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

// setter returns a function that sets attributes of object by f until one fails.
func (l *Library) setter(call string, f, object uintptr, err *error) func(attribute int, v any) {
	return func(attribute int, v any) {
		if *err != nil {
			return
		}
		var r uintptr
		switch v := v.(type) {
		case int32:
			p := &v
			r = dynlib.Call(f, object, uintptr(attribute), uintptr(unsafe.Pointer(p)), 4)
		case uint64:
			p := &v
			r = dynlib.Call(f, object, uintptr(attribute), uintptr(unsafe.Pointer(p)), 8)
		}
		*err = l.check(call, r)
	}
}

func (h *Handle) plan(p Product) (*plan, error) {
	if q := h.plans[p]; q != nil {
		return q, nil
	}
	q := &plan{}
	if err := h.build(q, p); err != nil {
		return nil, errors.Join(fmt.Errorf("%v: %w", p, err), h.free(q))
	}
	h.plans[p] = q
	return q, nil
}

func (h *Handle) build(q *plan, p Product) (err error) {
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
		set(descAux, uint64(h.workspace)) // any address: algorithms are asked for with one
	}
	if p.vector() {
		set(descBias, uint64(h.workspace))
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
	if err != nil {
		return err
	}
	best, err := h.heuristics(q, p, 1)
	if err == nil {
		q.result = &best[0]
	}
	return err
}

// heuristics asks for up to n algorithms, those that the library thinks fastest first. There is at least one where there is no error.
func (h *Handle) heuristics(q *plan, p Product, n int) (results []heuristicResult, err error) {
	l := h.lib
	preference := new(uintptr)
	if err := l.check("cublasLtMatmulPreferenceCreate", dynlib.Call(l.prefCreate, uintptr(unsafe.Pointer(preference)))); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, l.check("cublasLtMatmulPreferenceDestroy", dynlib.Call(l.prefDestroy, *preference)))
	}()
	set := l.setter("cublasLtMatmulPreferenceSetAttribute", l.prefSet, *preference, &err)
	set(prefWorkspace, uint64(h.bytes))
	for i := range 4 {
		set(prefAlignA+i, int32(p.Alignment))
	}
	if err != nil {
		return nil, err
	}
	results = make([]heuristicResult, n)
	found := new(int32)
	r := dynlib.Call(l.heuristic, h.handle, q.desc, q.a, q.b, q.d, q.d, *preference, uintptr(n), uintptr(unsafe.Pointer(unsafe.SliceData(results))), uintptr(unsafe.Pointer(found)))
	if int32(r) != 0 && int32(r) != statusNotSupported {
		return nil, l.check("cublasLtMatmulAlgoGetHeuristic", r)
	}
	usable := results[:0]
	for _, x := range results[:min(int(*found), n)] {
		if x.state == 0 {
			usable = append(usable, x)
		}
	}
	if len(usable) == 0 {
		return nil, ErrNoAlgorithm
	}
	return usable, nil
}

// Algorithm is one of the library's ways to compute a product.
type Algorithm struct{ result heuristicResult }

// Workspace returns the bytes that the algorithm uses of the handle's workspace.
func (a Algorithm) Workspace() int64 { return int64(a.result.workspace) }

// Algorithms returns up to n ways to compute the product, those that the library thinks fastest first. Bind takes the first.
func (h *Handle) Algorithms(p Product, n int) ([]Algorithm, error) {
	p, err := p.fill()
	if err != nil {
		return nil, err
	}
	q, err := h.plan(p)
	if err != nil {
		return nil, err
	}
	results, err := h.heuristics(q, p, max(1, n))
	if err != nil {
		return nil, fmt.Errorf("%v: %w", p, err)
	}
	algorithms := make([]Algorithm, len(results))
	for i, r := range results {
		algorithms[i] = Algorithm{r}
	}
	return algorithms, nil
}

// Use has later Binds of the product take a, which Algorithms returned for it. Products that are bound already keep what they have.
func (h *Handle) Use(p Product, a Algorithm) error {
	p, err := p.fill()
	if err != nil {
		return err
	}
	q, err := h.plan(p)
	if err != nil {
		return err
	}
	q.result = &a.result
	return nil
}

// Known reports whether the product has an algorithm already.
func (h *Handle) Known(p Product) bool {
	p, err := p.fill()
	return err == nil && h.plans[p] != nil
}

// Extents returns the elements of a product's operands in memory: A, B, D (and C), and the auxiliary matrix.
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
	last := p.Batch - 1
	return last*p.BatchA + rowsA*p.StrideA, last*p.BatchB + rowsB*p.StrideB, last*p.BatchD + p.M*p.StrideD, p.M * p.AuxStride, nil
}

func (p Product) aux() bool { return p.Epilogue&128 != 0 }
func (p Product) vector() bool {
	return p.Epilogue != None && p.Epilogue&(4|16|256|512) != 0
}

// Operands are the addresses of a product. C may be D; Bias and Aux are those of the epilogue.
type Operands struct {
	A, B, C, D, Bias, Aux driver.Ptr
	Alpha, Beta           float32
}

// Matmul is a product bound to addresses. It must not be copied.
type Matmul struct {
	handle  *Handle
	plan    *plan
	result  *heuristicResult // held for args, which the collector does not see through
	product Product
	scales  *[2]float32
	bias    uint64
	aux     uint64
	args    [16]uintptr
}

// Bind returns the product of the operands, with an algorithm from the handle's store or found now.
func (h *Handle) Bind(p Product, o Operands) (*Matmul, error) {
	p, err := p.fill()
	if err != nil {
		return nil, err
	}
	if o.A == 0 || o.B == 0 || o.D == 0 || p.vector() && o.Bias == 0 || p.aux() && o.Aux == 0 || o.Beta != 0 && o.C == 0 {
		return nil, fmt.Errorf("%v: an operand is missing", p)
	}
	if o.C == 0 {
		o.C = o.D
	}
	for _, x := range []driver.Ptr{o.A, o.B, o.C, o.D} {
		if x%driver.Ptr(p.Alignment) != 0 {
			return nil, fmt.Errorf("%v: address %#x is no multiple of %d", p, uint64(x), p.Alignment)
		}
	}
	q, err := h.plan(p)
	if err != nil {
		return nil, err
	}
	m := &Matmul{handle: h, plan: q, result: q.result, product: p, scales: &[2]float32{o.Alpha, o.Beta}, bias: uint64(o.Bias), aux: uint64(o.Aux)}
	m.args = [16]uintptr{h.handle, q.desc, uintptr(unsafe.Pointer(&m.scales[0])), uintptr(o.B), q.a, uintptr(o.A), q.b, uintptr(unsafe.Pointer(&m.scales[1])),
		uintptr(o.C), q.d, uintptr(o.D), q.d, uintptr(unsafe.Pointer(q.result)), uintptr(h.workspace), uintptr(q.result.workspace), 0}
	return m, nil
}

// Run puts the product into the stream.
func (m *Matmul) Run(s driver.Stream) error {
	l := m.handle.lib
	// The descriptor is shared by all products of the shape; the library reads it during the call.
	if m.product.vector() {
		if err := l.check("cublasLtMatmulDescSetAttribute", dynlib.Call(l.descSet, m.plan.desc, descBias, uintptr(unsafe.Pointer(&m.bias)), 8)); err != nil {
			return err
		}
	}
	if m.product.aux() {
		if err := l.check("cublasLtMatmulDescSetAttribute", dynlib.Call(l.descSet, m.plan.desc, descAux, uintptr(unsafe.Pointer(&m.aux)), 8)); err != nil {
			return err
		}
	}
	m.args[15] = uintptr(s)
	r := dynlib.Call(l.matmul, m.args[:]...)
	runtime.KeepAlive(m)
	if int32(r) != 0 {
		return fmt.Errorf("%v: %w", m.product, l.check("cublasLtMatmul", r))
	}
	return nil
}
