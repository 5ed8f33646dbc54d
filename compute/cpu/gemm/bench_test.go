package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"autodev/compute/cpu/par"
)

// BenchmarkMul is M×N×K of C = A·B, B stored as a linear weight (nt), as it is (nn), and gradients of weights (tn).
func BenchmarkMul(b *testing.B) {
	for _, s := range [][3]int{{2048, 2048, 2048}, {512, 8192, 2048}, {512, 2048, 8192}, {128, 8192, 2048}, {2048, 3072, 768}, {256, 49280, 768}} {
		benchmark(b, s, "nt", 0)
		benchmark(b, s, "nn", 0)
	}
	benchmark(b, [3]int{2048, 768, 3072}, "nn", 0)
	benchmark(b, [3]int{3072, 768, 2048}, "tn", 0)
	benchmark(b, [3]int{64, 512, 128}, "nt", 1)
	benchmark(b, [3]int{64, 128, 512}, "nn", 1)
}

func BenchmarkMulPacked(b *testing.B) {
	for _, s := range [][3]int{{512, 8192, 2048}, {128, 8192, 2048}} {
		benchmark(b, s, "packed", 0)
	}
}

// BenchmarkDecode multiplies few rows with weights from memory, matrix after matrix, which can be no faster than reading them.
func BenchmarkDecode(b *testing.B) {
	const piece = 1 << 17 // words that a thread reads at a time
	pool := par.New(0)
	defer pool.Close()
	r := rand.New(rand.NewPCG(1, 1))
	for _, s := range [][2]int{{2048, 8192}, {8192, 2048}, {2048, 2304}} {
		kk, n := s[0], s[1]
		weights := matrix(r, kk, n, 0, true)
		for i, f := range kernels() {
			for _, k := range []*kernel{f, f.bf16} {
				if k.level == "generic" || i > 0 && k.level == kernels()[0].level {
					continue
				}
				elements := [...]string{1: "float32", 2: "bf16"}[k.unit]
				b.Run(fmt.Sprintf("%dx%d/%s/%s", kk, n, elements, k.level), func(b *testing.B) {
					pb := []*Packed{k.packed(pool, weights)}
					for len(pb)*pb[0].Bytes() < 256<<20 {
						pb = append(pb, k.packed(pool, weights))
					}
					for _, m := range []int{1, 2, 4, 8} {
						a, c := matrix(r, m, kk, 0, false), matrix(r, m, n, 0, false)
						b.Run(fmt.Sprint(m), func(b *testing.B) {
							// Memory is not equally fast at all times: both are measured in turns.
							var times [2]time.Duration
							for i := 0; b.Loop(); i++ {
								began := time.Now()
								data := pb[2*i%len(pb)].data
								pool.Run(len(data)/piece, func(i int) { readWords(data[i*piece:][:piece]) })
								read := time.Now()
								k.mul(pool, c, 1, a, Mat{Rows: kk, Cols: n}, pb[(2*i+1)%len(pb)].data, Options{})
								times[0] += read.Sub(began)
								times[1] += time.Since(read)
							}
							b.ReportMetric(float64(pb[0].Bytes())*float64(b.N)/times[1].Seconds()/1e9, "GB/s")
							b.ReportMetric(times[0].Seconds()/times[1].Seconds(), "of-reading")
						})
					}
				})
			}
		}
	}
}

// readWords loads from every cache line of x.
func readWords(x []float32) {
	var s0, s1, s2, s3 uint32
	for ; len(x) >= 64; x = x[64:] {
		s0 |= math.Float32bits(x[0])
		s1 |= math.Float32bits(x[16])
		s2 |= math.Float32bits(x[32])
		s3 |= math.Float32bits(x[48])
	}
	sink(s0 | s1 | s2 | s3)
}

// sink makes its argument count as used.
//
//go:noinline
func sink(uint32) {}

func benchmark(b *testing.B, s [3]int, form string, threads int) {
	m, n, kk := s[0], s[1], s[2]
	r := rand.New(rand.NewPCG(1, 1))
	p := product{a: matrix(r, m, kk, 0, form == "tn"), b: matrix(r, kk, n, 0, form == "nt" || form == "packed"), c: matrix(r, m, n, 0, false), alpha: 1}
	pool := par.New(threads)
	defer pool.Close()
	for _, f := range kernels() {
		for _, k := range []*kernel{f, f.bf16} {
			if k.level == "generic" && m*n*kk > 1<<28 {
				continue // seconds each
			}
			elements := [...]string{1: "float32", 2: "bf16"}[k.unit]
			b.Run(fmt.Sprintf("%dx%dx%d/%s/%s/%s/%dT", m, n, kk, form, elements, k.level, pool.Threads()), func(b *testing.B) {
				var pb []*Packed
				if form == "packed" { // enough of them to come from memory
					for range max(1, 256<<20/(4/k.unit*n*kk)/max(1, m/8)) {
						pb = append(pb, k.packed(pool, p.b))
					}
				}
				work := make([]float32, WorkFloats(m, n, kk))
				i := 0
				for b.Loop() {
					if pb != nil {
						pb := pb[i%len(pb)]
						i++
						k.mul(pool, p.c, 1, p.a, Mat{Rows: kk, Cols: n}, pb.data, Options{Work: work})
					} else {
						k.mul(pool, p.c, 1, p.a, p.b, nil, Options{Work: work})
					}
				}
				seconds := b.Elapsed().Seconds() / float64(b.N)
				b.ReportMetric(2*float64(m)*float64(n)*float64(kk)/seconds/1e9, "GFLOP/s")
			})
		}
	}
}
