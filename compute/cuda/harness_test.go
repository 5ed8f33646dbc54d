package cuda

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/cuda/standin"
)

// openDevice returns a device of the libraries, closed at the end of the test.
func openDevice(t testing.TB, o Options) *Device {
	t.Helper()
	o.Workspace, o.Unchecked = 4<<20, true
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// onStandin returns a device of the stand-in, with settings as name, value pairs.
func onStandin(t testing.TB, plant string, settings map[string]int64) (*Device, *standin.Library) {
	t.Helper()
	l := cudatest.Library(t, plant)
	for name, v := range settings {
		if err := l.Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
	return openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt}), l
}

// eachSeed runs f on a device under each schedule.
func eachSeed(t *testing.T, f func(t *testing.T, d *Device)) {
	t.Helper()
	cudatest.Seeds(t, func(t *testing.T, cuda, cublas string) { f(t, openDevice(t, Options{CUDA: cuda, CublasLt: cublas})) })
}

// eachSeedAs is eachSeed on a stand-in that poses as a card of a compute capability (times 10).
func eachSeedAs(t *testing.T, capability int64, f func(t *testing.T, d *Device)) {
	t.Helper()
	cudatest.SeedsAs(t, capability, func(t *testing.T, cuda, cublas string) { f(t, openDevice(t, Options{CUDA: cuda, CublasLt: cublas})) })
}

// random returns n values around 0 as they are in the store.
func random(seed uint64, n int, s Store) []float32 {
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		x[i] = round(float32(r.NormFloat64()), s)
	}
	return x
}

// round returns x as the store holds it.
func round(x float32, s Store) float32 { return decode(encode([]float32{x}, s), s)[0] }

// encode returns x as the store holds it, in words of its size.
func encode(x []float32, s Store) []uint16 {
	y := make([]uint16, 0, len(x)*s.Size()/2)
	for _, v := range x {
		u := math.Float32bits(v)
		switch s {
		case F32:
			y = append(y, uint16(u), uint16(u>>16))
		case BF16:
			y = append(y, uint16((u+0x7fff+u>>16&1)>>16))
		case F16:
			y = append(y, half(v))
		}
	}
	return y
}

func decode(y []uint16, s Store) []float32 {
	n := len(y) * 2 / s.Size()
	x := make([]float32, n)
	for i := range x {
		switch s {
		case F32:
			x[i] = math.Float32frombits(uint32(y[2*i]) | uint32(y[2*i+1])<<16)
		case BF16:
			x[i] = math.Float32frombits(uint32(y[i]) << 16)
		case F16:
			x[i] = fromHalf(y[i])
		}
	}
	return x
}

// half rounds to IEEE binary16, ties to even.
func half(x float32) uint16 {
	sign := uint16(math.Float32bits(x) >> 16 & 0x8000)
	a := math.Abs(float64(x))
	switch {
	case x != x:
		return 0x7fff
	case a >= 65520:
		return sign | 0x7c00
	case a < 0x1p-14:
		return sign | uint16(math.RoundToEven(a*0x1p24))
	}
	fraction, exponent := math.Frexp(a) // in [0.5, 1)
	mantissa := uint16(math.RoundToEven(fraction * 2048))
	return sign | (uint16(exponent+14)<<10 + mantissa - 1024)
}

func fromHalf(h uint16) float32 {
	sign, exponent, mantissa := 1.0, int(h>>10&31), float64(h&1023)
	if h&0x8000 != 0 {
		sign = -1
	}
	switch exponent {
	case 31:
		if mantissa != 0 {
			return float32(math.NaN())
		}
		return float32(math.Inf(int(sign)))
	case 0:
		return float32(sign * mantissa * 0x1p-24)
	}
	return float32(sign * math.Ldexp(1024+mantissa, exponent-25))
}

// upload returns the address of a copy of x, freed with the device.
func upload[T Number](t testing.TB, q *Queue, x []T) Ptr {
	t.Helper()
	p := alloc[T](t, q, len(x))
	if err := Write(q, p, x); err != nil {
		t.Fatal(err)
	}
	return p
}

func alloc[T Number](t testing.TB, q *Queue, n int) Ptr {
	t.Helper()
	p, err := q.Alloc(int64(n) * int64(unsafe.Sizeof(*new(T))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.d.Do(func(q *Queue) error { return q.Free(p) }); err != nil && !errors.As(err, new(*LostError)) && !errors.Is(err, errClosed) {
			t.Errorf("free: %v", err)
		}
	})
	return p
}

// download returns n elements at p.
func download[T Number](t testing.TB, q *Queue, p Ptr, n int) []T {
	t.Helper()
	x := make([]T, n)
	if err := Read(q, x, p); err != nil {
		t.Fatal(err)
	}
	return x
}

// stores are those of most kernels, with the unit of their rounding.
var stores = []struct {
	store Store
	unit  float64
}{{F32, 0x1p-24}, {BF16, 0x1p-8}, {F16, 0x1p-11}}
