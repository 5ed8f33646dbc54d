package quant

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"autodev/compute/cpu/par"
)

// BenchmarkLimits measures what the products below are compared with.
func BenchmarkLimits(b *testing.B) {
	pool := par.New(0)
	defer pool.Close()
	threads := pool.Threads()
	b.Run("dot", func(b *testing.B) {
		const rounds = 1 << 16
		ops := 0
		for b.Loop() {
			pool.Run(threads, func(int) { ops = peakDot(rounds) })
		}
		if ops == 0 {
			b.Skip("no VNNI here")
		}
		b.ReportMetric(float64(ops)*float64(threads)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
	})
	b.Run("read", func(b *testing.B) {
		ms := matrices(b, Int8, 8192, 2048)
		i := 0
		for b.Loop() {
			codes := ms[i%len(ms)].codes
			i++
			n := len(codes) / (8 * threads)
			pool.Run(8*threads, func(t int) { readAll(codes[t*n:][:n]) })
		}
		reportBytes(b, len(ms[0].codes))
	})
}

func reportBytes(b *testing.B, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
}

// matrices returns matrices of random codes that together exceed every cache.
func matrices(b *testing.B, f Format, out, in int) []*Matrix {
	r := rand.New(rand.NewPCG(1, 2))
	first := alloc(f, out, in)
	for i := range first.codes {
		first.codes[i] = byte(r.Uint32())
	}
	for i := 0; i < len(first.scales); i += 2 {
		first.scales[i], first.scales[i+1] = byte(r.Uint32()), 0x30
	}
	ms := []*Matrix{first}
	for len(ms)*first.Bytes() < 200<<20 {
		m := alloc(f, out, in)
		copy(m.codes, first.codes)
		copy(m.scales, first.scales)
		ms = append(ms, m)
	}
	b.ResetTimer()
	return ms
}

// BenchmarkDecode multiplies few rows with weights from memory.
func BenchmarkDecode(b *testing.B) {
	const out, in = 8192, 2048
	pool := par.New(0)
	defer pool.Close()
	for _, f := range []Format{Int8, Int4} {
		b.Run(f.String(), func(b *testing.B) {
			ms := matrices(b, f, out, in)
			for _, n := range []int{1, 2, 4, 8, 14} {
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					x := normal(rand.New(rand.NewPCG(3, 4)), n*in, 1)
					y := make([]float32, n*out)
					var rows Rows
					i := 0
					for b.Loop() {
						rows.Set(pool, x, n, in)
						Mul(pool, y, &rows, ms[i%len(ms)], Epilogue{})
						i++
					}
					reportBytes(b, ms[0].Bytes())
				})
			}
		})
	}
}

// BenchmarkMul includes the quantisation of the activations.
func BenchmarkMul(b *testing.B) {
	pool := par.New(0)
	defer pool.Close()
	for _, f := range []Format{Int8, Int4} {
		for _, s := range [][3]int{{512, 8192, 2048}, {512, 2048, 8192}, {128, 8192, 2048}, {2048, 2048, 2048}} {
			n, out, in := s[0], s[1], s[2]
			b.Run(fmt.Sprintf("%s/%dx%dx%d", f, n, out, in), func(b *testing.B) {
				w := matrices(b, f, out, in)[0]
				x := normal(rand.New(rand.NewPCG(3, 4)), n*in, 1)
				y := make([]float32, n*out)
				var rows Rows
				for b.Loop() {
					rows.Set(pool, x, n, in)
					Mul(pool, y, &rows, w, Epilogue{})
				}
				b.ReportMetric(2*float64(n)*float64(out)*float64(in)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GOP/s")
			})
		}
	}
}

func BenchmarkSet(b *testing.B) {
	pool := par.New(0)
	defer pool.Close()
	for _, n := range []int{1, 8, 512} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			const in = 2048
			x := normal(rand.New(rand.NewPCG(3, 4)), n*in, 1)
			var rows Rows
			for b.Loop() {
				rows.Set(pool, x, n, in)
			}
			reportBytes(b, 4*n*in)
		})
	}
}

func BenchmarkQuantize(b *testing.B) {
	pool := par.New(0)
	defer pool.Close()
	const out, in = 256, 2048
	w := normal(rand.New(rand.NewPCG(3, 4)), out*in, 1)
	for _, f := range []Format{Int8, Int4} {
		b.Run(f.String(), func(b *testing.B) {
			for b.Loop() {
				Quantize(pool, f, w, out, in)
			}
			b.ReportMetric(out*in*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mweight/s")
		})
	}
}

var sink byte

func readGeneric(b []byte) {
	var s byte
	for i := 0; i < len(b); i += 64 {
		s ^= b[i]
	}
	if s == 1 {
		sink = s
	}
}
