package runtime

import (
	"time"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/vec"
)

// Calibration is what the machine gave at one moment, to tell a slow program from a slow machine.
type Calibration struct {
	Threads int     `json:"threads"`
	Read    float64 `json:"read_gb_s"`    // from memory, larger than any cache
	FMA     float64 `json:"fma_gflops_s"` // float32 products of matrices that stay in the first caches, two operations a multiply-add
}

const (
	readFloats = 32 << 20 // 128 MiB
	readPasses = 2
	fmaSize    = 192 // three square matrices of 144 KiB: within a core's second cache
	fmaTime    = 30 * time.Millisecond
)

// Calibrate measures for about a tenth of a second, with 128 MiB of its own.
func Calibrate(threads int) Calibration {
	p := par.New(threads)
	defer p.Close()
	c := Calibration{Threads: p.Threads()}
	c.Read = readBandwidth(p)
	c.FMA = fmaRate(p)
	return c
}

// readBandwidth returns GB/s: the faster of two passes, since the first may still meet pages being moved.
func readBandwidth(p *par.Pool) float64 {
	const piece = 256 << 10
	data := make([]float32, readFloats)
	pieces := len(data) / piece
	// Pages that were never written all alias one page of zeros.
	p.Run(pieces, func(i int) {
		part := data[i*piece : (i+1)*piece]
		for j := range part {
			part[j] = float32(j)
		}
	})
	found := make([]float32, pieces)
	best := 0.0
	for range readPasses {
		began := time.Now()
		p.Run(pieces, func(i int) { found[i] = vec.Max(data[i*piece : (i+1)*piece]) })
		best = max(best, 4*readFloats/time.Since(began).Seconds()/1e9)
	}
	return best
}

// fmaRate returns GFLOP/s of every thread multiplying matrices of its own.
func fmaRate(p *par.Pool) float64 {
	const n = fmaSize
	type operands struct {
		a, c gemm.Mat
		b    *gemm.Packed
		work []float32
	}
	mats := make([]operands, p.Threads())
	for i := range mats {
		data := make([]float32, n*n)
		for j := range data {
			data[j] = 1 / float32(j+2)
		}
		m := gemm.Dense(data, n, n)
		mats[i] = operands{a: m, c: gemm.Dense(make([]float32, n*n), n, n), b: gemm.Pack(nil, m), work: make([]float32, gemm.WorkFloats(n, n, n))}
	}
	multiply := func(i int) {
		m := mats[i]
		gemm.MulPacked(nil, m.c, 1, m.a, m.b, gemm.Options{Work: m.work})
	}
	for i := range mats {
		multiply(i)
	}
	// Every thread counts what it finishes in the same span.
	done := make([]int, len(mats))
	began := time.Now()
	p.Run(len(mats), func(i int) {
		for time.Since(began) < fmaTime {
			multiply(i)
			done[i]++
		}
	})
	total := 0
	for _, d := range done {
		total += d
	}
	return 2 * n * n * n * float64(total) / time.Since(began).Seconds() / 1e9
}
