package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"autodev/compute/cuda/cublaslt"
)

// AlgorithmTime is one of cuBLASLt's algorithms for a product and how long it took.
type AlgorithmTime struct {
	Algorithm cublaslt.Algorithm
	Took      time.Duration
}

// TimeAlgorithms times up to n of cuBLASLt's algorithms for a product, in the library's order, on operands of its own with random
// contents. An algorithm that fails has the longest time there is. Each runs at least runs times; its fastest of three passes counts.
func (q *Queue) TimeAlgorithms(p cublaslt.Product, n, runs int) (times []AlgorithmTime, err error) {
	algorithms, err := q.d.blas.Algorithms(p, n)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	o, free, err := q.operands(p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Sync(), free()) }()
	for _, a := range algorithms {
		took, err := q.timeAlgorithm(p, o, a, runs)
		if err != nil {
			if q.d.lost != nil {
				return nil, err
			}
			took = math.MaxInt64
		}
		times = append(times, AlgorithmTime{a, took})
	}
	// What is bound next takes the library's first choice again.
	return times, q.d.blas.Use(p, algorithms[0])
}

func (q *Queue) timeAlgorithm(p cublaslt.Product, o cublaslt.Operands, a cublaslt.Algorithm, runs int) (time.Duration, error) {
	if err := q.d.blas.Use(p, a); err != nil {
		return 0, err
	}
	m, err := q.d.blas.Bind(p, o)
	if err != nil {
		return 0, err
	}
	op := &Matmul{m}
	if err := errors.Join(op.Enqueue(q), q.Sync()); err != nil { // the first run loads its kernel
		return 0, err
	}
	best := time.Duration(math.MaxInt64)
	for range 3 {
		took, err := q.Time(func() error {
			for range runs {
				if err := op.Enqueue(q); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		best = min(best, took/time.Duration(runs))
	}
	return best, nil
}

// fastest times algorithms of a product and keeps the fastest. Where the memory does not suffice for operands to time with, the library's
// first choice stays.
func (q *Queue) fastest(p cublaslt.Product, n int) error {
	times, err := q.TimeAlgorithms(p, n, 5)
	if err != nil {
		if short := (*OutOfMemoryError)(nil); errors.As(err, &short) {
			return nil
		}
		return err
	}
	best := times[0]
	for _, t := range times {
		if t.Took < best.Took {
			best = t
		}
	}
	return q.d.blas.Use(p, best.Algorithm)
}

// operands allocates operands of a product with random contents; free frees them.
func (q *Queue) operands(p cublaslt.Product) (o cublaslt.Operands, free func() error, err error) {
	var all []Ptr
	free = func() error {
		var errs []error
		for _, p := range all {
			errs = append(errs, q.Free(p))
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, free())
		}
	}()
	a, b, d, aux, err := p.Extents()
	if err != nil {
		return o, free, fmt.Errorf("cuda: %w", err)
	}
	o = cublaslt.Operands{Alpha: 1, Beta: 1}
	for _, x := range []struct {
		to    *Ptr
		count int
		t     cublaslt.Type
	}{{&o.A, a, p.In}, {&o.B, b, p.In}, {&o.D, d, p.Out}, {&o.Bias, max(p.M, p.N), p.Out}, {&o.Aux, aux, p.Out}} {
		if x.count == 0 {
			continue
		}
		if *x.to, err = q.Alloc(int64(x.count) * x.t.Size()); err != nil {
			return o, free, err
		}
		all = append(all, *x.to)
		if err = q.noise(*x.to, x.count, x.t); err != nil {
			return o, free, err
		}
	}
	o.C = o.D
	return o, free, nil
}

// noise fills memory with small random numbers: products of zeros take less power, and run faster, than products do.
func (q *Queue) noise(p Ptr, n int, t cublaslt.Type) error {
	const piece = 1 << 20
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]uint16, min(n, piece)*int(t.Size())/2)
	for i := range words {
		words[i] = uint16(r.Uint32())
		if t.Size() == 2 || i%2 == 1 { // the half with sign and exponent: magnitudes from 2^-6 to 1
			switch t {
			case cublaslt.F16:
				words[i] = words[i]&0x83ff | uint16(9+r.IntN(6))<<10
			default:
				words[i] = words[i]&0x807f | uint16(121+r.IntN(6))<<7
			}
		}
	}
	for done := 0; done < n; done += piece {
		k := min(piece, n-done)
		if err := Write(q, p+Ptr(int64(done)*t.Size()), words[:k*int(t.Size())/2]); err != nil {
			return err
		}
	}
	return nil
}
