package cublaslt

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"autodev/compute/cuda/driver"
	"autodev/compute/cuda/dynlib"
)

// Handle keeps the algorithms of products. It belongs to one context and, like its Matmuls, to the thread of that context.
type Handle struct {
	lib       *Library
	handle    uintptr
	workspace driver.Ptr
	bytes     int64
	plans     map[Product]*plan
}

// New returns a handle for the current context whose products may use workspace, aligned to 256 bytes. Products of one handle must not run
// side by side: they share it.
func (l *Library) New(workspace driver.Ptr, bytes int64) (*Handle, error) {
	h := &Handle{lib: l, workspace: workspace, bytes: bytes, plans: map[Product]*plan{}}
	p := new(uintptr)
	if err := l.check("cublasLtCreate", dynlib.Call(l.create, uintptr(unsafe.Pointer(p)))); err != nil {
		return nil, err
	}
	h.handle = *p
	return h, nil
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

func (h *Handle) plan(p Product) (*plan, error) {
	if q := h.plans[p]; q != nil {
		return q, nil
	}
	q := &plan{}
	err := h.describe(q, p)
	if err == nil {
		var best []heuristicResult
		if best, err = h.heuristics(q, p, 1); err == nil {
			q.result = &best[0]
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%v: %w", p, err), h.free(q))
	}
	h.plans[p] = q
	return q, nil
}

// heuristics asks for up to n algorithms, those that the library thinks fastest first. There is at least one where there is no error.
func (h *Handle) heuristics(q *plan, p Product, n int) (results []heuristicResult, err error) {
	l := h.lib
	// Which algorithms there are depends on the alignment of the epilogue's addresses: one that has p.Alignment, and no more, stands for
	// those that Bind takes.
	aligned := uint64(h.workspace) + uint64(p.Alignment)
	if err := h.point(q, p, &aligned, &aligned); err != nil {
		return nil, err
	}
	preference, err := h.preference(p)
	if preference != 0 {
		defer func() {
			err = errors.Join(err, l.check("cublasLtMatmulPreferenceDestroy", dynlib.Call(l.prefDestroy, preference)))
		}()
	}
	if err != nil {
		return nil, err
	}
	results = make([]heuristicResult, n)
	found := new(int32)
	r := dynlib.Call(l.heuristic, h.handle, q.desc, q.a, q.b, q.d, q.d, preference, uintptr(n), uintptr(unsafe.Pointer(unsafe.SliceData(results))), uintptr(unsafe.Pointer(found)))
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
	for _, x := range []driver.Ptr{o.A, o.B, o.C, o.D, o.Bias, o.Aux} {
		if x%driver.Ptr(p.Alignment) != 0 { // 0 is what is not there
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
	if err := m.handle.point(m.plan, m.product, &m.bias, &m.aux); err != nil {
		return err
	}
	m.args[15] = uintptr(s)
	r := dynlib.Call(l.matmul, m.args[:]...)
	runtime.KeepAlive(m)
	if int32(r) != 0 {
		return fmt.Errorf("%v: %w", m.product, l.check("cublasLtMatmul", r))
	}
	return nil
}
