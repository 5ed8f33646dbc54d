// Package cudatest opens devices for tests: the stand-in, built from the kernels beside it, or with AUTODEV_TEST_GPU=1 the machine's GPU.
package cudatest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"autodev/compute/cuda/driver"
	"autodev/compute/cuda/dynlib"
	"autodev/compute/cuda/standin"
)

var (
	mutex sync.Mutex
	built = map[string]*standin.Library{}
)

// GPU reports whether the tests run on a real GPU: libraries are then searched for as in production.
func GPU() bool { return os.Getenv("AUTODEV_TEST_GPU") == "1" }

var hold sync.Once

// keepContext holds the card's context until the process ends: making one for each test takes longer than most tests.
func keepContext(t testing.TB) {
	t.Helper()
	a, err := driver.Load("")
	if err != nil {
		t.Fatal(err)
	}
	d, err := a.Device(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.RetainPrimary(d); err != nil {
		t.Fatal(err)
	}
}

// Library returns the stand-in with a bug planted (FILE.cu:FLAG, see AD_BUG) or none, reset. The test is skipped, loudly, where there is no C++
// compiler, and where the tests run on a GPU. AUTODEV_STANDIN_KERNELS may name the .cu files to build it from ("layernorm.cu bias_gelu.cu"), to
// work on some kernels while others do not compile; kernels of other files then fail as an invalid image.
func Library(t testing.TB, plant string) *standin.Library {
	t.Helper()
	if GPU() {
		t.Skip("SKIPPED: this test is about the stand-in, AUTODEV_TEST_GPU is set")
	}
	mutex.Lock()
	defer mutex.Unlock()
	l := built[plant]
	if l == nil {
		_, file, _, ok := runtime.Caller(0)
		cache, err := os.UserCacheDir()
		if err != nil || !ok {
			cache = os.TempDir()
		}
		l, err = standin.Build(context.Background(), filepath.Join(filepath.Dir(file), "..", "kernels"), filepath.Join(cache, "autodev-standin"), strings.Fields(os.Getenv("AUTODEV_STANDIN_KERNELS")), plant)
		if errors.Is(err, standin.ErrNoCompiler) {
			t.Skipf("SKIPPED: NOTHING OF CUDA IS TESTED: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Load(); errors.Is(err, dynlib.ErrUnsupported) {
			t.Skipf("SKIPPED: NOTHING OF CUDA IS TESTED: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		built[plant] = l
	}
	l.Reset()
	return l
}

// Seeds calls f as subtests under five schedules of the stand-in, or once on the GPU. The library's paths are empty on the GPU.
func Seeds(t *testing.T, f func(t *testing.T, cudaPath, cublasPath string)) {
	t.Helper()
	SeedsAs(t, 0, f)
}

// SeedsAs is Seeds on a stand-in that poses as a card of a compute capability (times 10), 0 for what it is by itself. On the GPU it is Seeds.
func SeedsAs(t *testing.T, capability int64, f func(t *testing.T, cudaPath, cublasPath string)) {
	t.Helper()
	if GPU() {
		hold.Do(func() { keepContext(t) })
		f(t, "", "")
		return
	}
	for seed := range int64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := Library(t, "")
			if err := l.Set("seed", seed); err != nil {
				t.Fatal(err)
			}
			if capability != 0 {
				if err := l.Set("capability", capability); err != nil {
					t.Fatal(err)
				}
			}
			f(t, l.CUDA, l.CublasLt)
			if fault := l.Fault(); fault != "" && !t.Failed() {
				t.Errorf("the stand-in reports: %s", fault)
			}
		})
	}
}

// Close fails the test unless every element of got is within absolute + relative·|want| of want's; NaNs and infinities must be equal.
func Close(t testing.TB, what string, got, want []float32, absolute, relative float64) {
	t.Helper()
	if at, ok := Differs(got, want, absolute, relative); ok {
		t.Errorf("%s: element %d is %v, expected %v within %g + %g of it (%d elements)", what, at, got[at], want[at], absolute, relative, len(want))
	}
}

// Differs returns the element that is furthest outside the tolerance, if there is one.
func Differs(got, want []float32, absolute, relative float64) (at int, differs bool) {
	worst := 1.0
	for i, w := range want {
		g, w := float64(got[i]), float64(w)
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		excess := math.Abs(g-w) / (absolute + relative*math.Abs(w))
		if math.IsNaN(excess) || math.IsInf(excess, 0) {
			return i, true
		}
		if excess > worst {
			worst, at, differs = excess, i, true
		}
	}
	return at, differs
}
