package runtime

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"time"

	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
)

// Calibration is what the machine gave at one moment, to tell a slow program from a slow machine: the most that any program
// could have read or computed then. Rates of arithmetic are those of the widest instruction, two operations a multiply-add, on
// registers; 0 where the processor has none.
type Calibration struct {
	Threads int     `json:"threads"`
	Read    float64 `json:"read_gb_s"`     // from memory, larger than any cache, in huge pages where the system has them
	FMA     float64 `json:"fma_gflops_s"`  // float32
	BF16    float64 `json:"bf16_gflops_s"` // products of bf16 summed in float32
	Int8    float64 `json:"int8_gops_s"`   // products of 8-bit integers summed in 32 bits
}

const (
	readSize   = 256 << 20
	readPiece  = 4 << 20
	readPasses = 4
	loopTime   = 5 * time.Millisecond
	loopTries  = 3
	loopRounds = 1024
)

// loop is a function that computes and nothing else.
type loop struct {
	run   func(rounds int)
	round int // operations of one round
}

// loops are those of a processor; one that it lacks is zero.
type loops struct{ fma, bf16, int8 loop }

// Calibrate measures for about a fifth of a second. It keeps 256 MiB for the next call.
func Calibrate(threads int) Calibration {
	p := par.New(threads)
	defer p.Close()
	l := limitLoops()
	if l.fma.run == nil {
		l.fma = multiplyLoop()
	}
	return Calibration{Threads: p.Threads(), Read: readRate(p), FMA: l.fma.rate(p), BF16: l.bf16.rate(p), Int8: l.int8.rate(p)}
}

// readBuffer is what readRate reads. Pages that were never written all alias one page of zeros.
var readBuffer = sync.OnceValue(func() []byte {
	b := hugeBytes(readSize)
	for i := 0; i < len(b); i += 64 {
		b[i] = byte(i >> 6)
	}
	return b
})

// readRate returns GB/s: the fastest of some passes.
func readRate(p *par.Pool) float64 {
	data := readBuffer()
	best := 0.0
	for range readPasses {
		began := time.Now()
		p.Run(readSize/readPiece, func(i int) { readBytes(data[i*readPiece:][:readPiece]) })
		best = max(best, readSize/time.Since(began).Seconds()/1e9)
	}
	return best
}

// readWords loads all of b, whose length is a multiple of 32.
func readWords(b []byte) {
	var s0, s1, s2, s3 uint64
	for ; len(b) >= 32; b = b[32:] {
		s0 |= binary.NativeEndian.Uint64(b)
		s1 |= binary.NativeEndian.Uint64(b[8:])
		s2 |= binary.NativeEndian.Uint64(b[16:])
		s3 |= binary.NativeEndian.Uint64(b[24:])
	}
	keep(bits.OnesCount64(s0 | s1 | s2 | s3))
}

// keep makes its argument count as used.
//
//go:noinline
func keep(int) {}

// rate returns 10⁹ operations a second of all threads together: the best of some tries.
func (l loop) rate(p *par.Pool) float64 {
	if l.run == nil {
		return 0
	}
	best := 0.0
	for range loopTries {
		// Every thread counts what it finishes in the same span.
		rounds := make([]int, p.Threads())
		began := time.Now()
		p.Run(len(rounds), func(i int) {
			for time.Since(began) < loopTime {
				l.run(loopRounds)
				rounds[i] += loopRounds
			}
		})
		seconds := time.Since(began).Seconds()
		total := 0
		for _, n := range rounds {
			total += n
		}
		best = max(best, float64(total)*float64(l.round)/seconds/1e9)
	}
	return best
}

// multiplyLoop stands in for a loop of instructions: float32 products of matrices within a core's second cache.
func multiplyLoop() loop {
	const n = 64
	data := make([]float32, n*n)
	for i := range data {
		data[i] = 1 / float32(i+2)
	}
	m := gemm.Dense(data, n, n)
	packed := gemm.Pack(nil, m)
	return loop{round: 2 * n * n, run: func(rounds int) {
		c, o := gemm.Dense(make([]float32, n*n), n, n), gemm.Options{Work: make([]float32, gemm.WorkFloats(n, n, n))}
		for range rounds / n {
			gemm.MulPacked(nil, c, 1, m, packed, o)
		}
	}}
}
