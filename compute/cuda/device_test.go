package cuda

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cublaslt"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cuda/driver"
	"autodev/compute/cuda/dynlib"
	"autodev/compute/cuda/standin"
)

func TestNoLibrarySaysWhereItLooked(t *testing.T) {
	l := cudatest.Library(t, "")
	_, err := New(Options{CUDA: filepath.Join(t.TempDir(), "libcuda.so.1")})
	var notFound *dynlib.NotFoundError
	if !errors.As(err, &notFound) || len(notFound.Tried) != 1 || !strings.Contains(err.Error(), "AUTODEV_LIBCUDA") {
		t.Errorf("without libcuda: %v", err)
	}
	if _, err := New(Options{CUDA: l.CUDA, CublasLt: t.TempDir()}); !errors.As(err, &notFound) || !strings.Contains(err.Error(), "AUTODEV_LIBCUBLASLT") {
		t.Errorf("without libcublasLt: %v", err)
	}
	t.Setenv("AUTODEV_LIBCUDA", l.CUDA)
	t.Setenv("AUTODEV_LIBCUBLASLT", filepath.Dir(l.CublasLt))
	openDevice(t, Options{})
}

func TestBadDevices(t *testing.T) {
	for _, c := range []struct {
		name     string
		index    int
		settings map[string]int64
		want     string
	}{
		{"index", 3, map[string]int64{"devices": 2}, "there is no device 3, expected 0 to 1 (0 is AutoDev stand-in, 1 is AutoDev stand-in)"},
		{"old driver", 0, map[string]int64{"driver": 10020}, "the NVIDIA driver supports CUDA 10.2, expected at least 11.0"},
		{"no device", 0, map[string]int64{"devices": 0}, "CUDA_ERROR_NO_DEVICE"},
		{"old card", 0, map[string]int64{"capability": 61}, "compute capability 6.1, expected at least 7.0"},
		{"cuBLASLt without Volta", 0, map[string]int64{"capability": 70, "blas": 130000}, "has version 13.0, expected at most 12 for a driver that supports CUDA 13.0 and AutoDev stand-in (compute capability 7.0): AUTODEV_LIBCUBLASLT may name another"},
		{"cuBLASLt newer than the driver", 0, map[string]int64{"driver": 12040, "blas": 130400}, "has version 13.4, expected at most 12 for a driver that supports CUDA 12.4 and AutoDev stand-in"},
		{"memory for the workspace", 0, map[string]int64{"memory": 1 << 20}, "out of device memory: 32.0 MiB asked, 1.0 MiB of 1.0 MiB are free"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := cudatest.Library(t, "")
			for name, v := range c.settings {
				if err := l.Set(name, v); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := New(Options{Index: c.index, CUDA: l.CUDA, CublasLt: l.CublasLt}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %q", err, c.want)
			}
		})
	}
}

// TestLibrariesAreApart: each of several loaded drivers has its own products, whichever was loaded first.
func TestLibrariesAreApart(t *testing.T) {
	versions := []int{131007, 131042}
	libraries := []*standin.Library{cudatest.Library(t, ""), cudatest.Library(t, "layernorm.cu:block_sum_barrier")}
	for i, l := range libraries {
		if err := l.Set("blas", int64(versions[i])); err != nil {
			t.Fatal(err)
		}
	}
	for i, l := range libraries {
		blas, err := cublaslt.Load(l.CublasLt, 13)
		if err != nil {
			t.Fatal(err)
		}
		if v := blas.Version(); v != versions[i] {
			t.Errorf("%s has version %d, expected %d", l.CublasLt, v, versions[i])
		}
	}
}

func TestKernelsForOldCards(t *testing.T) {
	d, _ := onStandin(t, "", map[string]int64{"capability": 70})
	if got, want, err := runLayerNorm(t, d, 2, 64, F16); err != nil {
		t.Error(err)
	} else {
		cudatest.Close(t, "layernorm on sm_70", got, want, 1e-5, 0x1p-10)
	}
	if _, _, err := runMMA(t, d, 16, 8, 16, F16); err == nil || !strings.Contains(err.Error(), "none for compute capability 7.0") {
		t.Errorf("tensor cores on sm_70: %v", err)
	}
}

func TestPrepareChecksArguments(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	err := d.Do(func(q *Queue) error {
		p := alloc[float32](t, q, 64)
		grid := Grid{Blocks: Dim{1}, Threads: Dim{32}}
		for _, c := range []struct {
			name string
			grid Grid
			args []any
			want string
		}{
			{"layernorm_f64", grid, nil, "there is none"},
			{"layernorm_f32", grid, []any{p, p, p, p, 8}, "5 arguments, expected 6"},
			{"layernorm_f32", grid, []any{p, p, p, p, p, float32(1)}, "argument 4"},
			{"layernorm_f32", grid, []any{p, p, p, 3, 1 << 40, float32(1)}, "argument 4"},
			{"layernorm_f32", grid, []any{p, p, p, p, 8, 1.0}, "argument 5 is the float64"},
			{"layernorm_f32", Grid{Blocks: Dim{1}, Threads: Dim{512}}, nil, "512 threads a block, expected at most 256"},
			{"layernorm_f32", Grid{Blocks: Dim{0}, Threads: Dim{32}}, nil, "extent 0 is 0"},
			{"layernorm_f32", Grid{Blocks: Dim{1}, Threads: Dim{32}, Shared: 1 << 20}, nil, "bytes of shared memory"},
		} {
			if _, err := q.Prepare(c.name, c.grid, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, expected %q", c.name, err, c.want)
			}
		}
		// More than 48 KiB is asked of the driver.
		big, err := q.Prepare("layernorm_f32", Grid{Blocks: Dim{1}, Threads: Dim{32}, Shared: 200 << 10}, p, p, p, p, 8, float32(1))
		if err != nil {
			return err
		}
		return errors.Join(big.Enqueue(q), q.Sync())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOutOfMemory(t *testing.T) {
	l := cudatest.Library(t, "")
	if err := l.Set("memory", 16<<20); err != nil {
		t.Fatal(err)
	}
	d := openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt, Fits: func(free int64) string {
		if free != 12<<20 {
			t.Errorf("%d bytes are free", free)
		}
		return "a micro-batch of 2 fits"
	}})
	var bytes [compute.NumSpaces]int64
	bytes[compute.Weights], bytes[compute.Arena] = 8<<20, 8<<20
	_, err := d.Alloc(bytes)
	var oom *OutOfMemoryError
	if !errors.As(err, &oom) || oom.Asked != 16<<20 || oom.Free != 12<<20 || !strings.HasSuffix(err.Error(), "a micro-batch of 2 fits") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	bytes[compute.Arena] = 4 << 20
	m, err := d.Alloc(bytes) // nothing was kept
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Free(); err != nil {
		t.Error(err)
	}
}

func TestMemory(t *testing.T) {
	l := cudatest.Library(t, "")
	d := openDevice(t, Options{CUDA: l.CUDA, CublasLt: l.CublasLt, Poison: true})
	var bytes [compute.NumSpaces]int64
	bytes[compute.Weights], bytes[compute.Arena], bytes[compute.Inputs] = 256, 128, 64
	m, err := d.Alloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	w := compute.Buffer{Space: compute.Weights, Offset: 64, DType: compute.F32, Shape: []int{3, 2}}
	got := make([]float32, 6)
	if err := m.Read(w, got); err != nil || !slices.Equal(got, make([]float32, 6)) {
		t.Errorf("fresh weights are %v (%v)", got, err)
	}
	if err := m.Write(w, []float32{1, 2, 3, 4, 5, 6}); err != nil {
		t.Error(err)
	}
	if err := m.Read(w, got); err != nil || got[5] != 6 {
		t.Errorf("weights are %v (%v)", got, err)
	}
	a := compute.Buffer{Space: compute.Arena, DType: compute.F64, Shape: []int{1}}
	nan := make([]float64, 1)
	if err := m.Read(a, nan); err != nil || nan[0] == nan[0] {
		t.Errorf("the poisoned arena holds %v (%v)", nan, err)
	}
	if err := m.Zero(compute.Arena); err != nil {
		t.Error(err)
	}
	if err := m.Read(a, nan); err != nil || nan[0] != 0 {
		t.Errorf("the cleared arena holds %v (%v)", nan, err)
	}
	for _, b := range []compute.Buffer{
		{Space: compute.Weights, Offset: 256, DType: compute.F32, Shape: []int{1}},
		{Space: compute.Weights, Offset: 4, DType: compute.F32, Shape: []int{1}},
		{Space: compute.Moments, DType: compute.F32, Shape: []int{1}},
		{Space: compute.Inputs, DType: compute.I32, Shape: []int{1}},
	} {
		if err := m.Read(b, make([]float32, 1)); err == nil {
			t.Errorf("%v was read", b)
		}
	}
	if err := errors.Join(m.Free(), m.Free()); err != nil {
		t.Error(err)
	}
	if err := m.Read(w, got); !errors.Is(err, errFreed) {
		t.Errorf("reading freed memory: %v", err)
	}
}

// A card that fails in the middle of a run: the error names the first failure, everything after it says that the device is lost.
func TestLostDevice(t *testing.T) {
	d, l := onStandin(t, "", nil)
	if err := errors.Join(l.Set("lose_after", 2), l.Set("lose_code", int64(driver.ECCUncorrectable))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := runLayerNorm(t, d, 1, 32, F32); err != nil {
		t.Fatal(err)
	}
	_, _, err := runLayerNorm(t, d, 1, 32, F32)
	var lost *LostError
	if !errors.As(err, &lost) || !errors.Is(err, driver.ECCUncorrectable) || !strings.Contains(err.Error(), "kernel layernorm_rows_f32") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	if _, _, err := runLayerNorm(t, d, 1, 32, F32); !errors.As(err, &lost) {
		t.Errorf("afterwards: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := d.Do(func(*Queue) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A captured graph does what the launches did, with a forked queue inside, and sees what memory holds when it is launched.
func TestGraph(t *testing.T) {
	eachSeed(t, func(t *testing.T, d *Device) {
		err := d.Do(func(q *Queue) error {
			const n = 256
			a, b, c := upload(t, q, random(1, n, F32)), alloc[float32](t, q, n), alloc[float32](t, q, n)
			gelu := func(y, x Ptr) *Launch {
				l, err := biasGELU(q, y, x, 0, 1, n, F32)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			first, second, third := gelu(b, a), gelu(c, b), gelu(a, c)
			product, err := q.PrepareMatmul(cublaslt.Product{M: 16, N: 16, K: 16}, cublaslt.Operands{A: a, B: a, D: b, Alpha: 1})
			if err != nil {
				return err
			}
			run := func() error {
				if err := first.Enqueue(q); err != nil {
					return err
				}
				side, err := q.Fork()
				if err != nil {
					return err
				}
				return errors.Join(second.Enqueue(side), q.Join(), third.Enqueue(q), product.Enqueue(q), q.Copy(c, b, 4*n))
			}
			var want [2][]float32
			for i := range want {
				if err := errors.Join(Write(q, a, random(uint64(i), n, F32)), run(), q.Sync()); err != nil {
					return err
				}
				want[i] = download[float32](t, q, c, n)
			}
			graph, err := q.Capture(run)
			if err != nil {
				return err
			}
			for i := range want {
				if err := errors.Join(Write(q, a, random(uint64(i), n, F32)), graph.Enqueue(q), q.Sync()); err != nil {
					return err
				}
				if got := download[float32](t, q, c, n); !slices.Equal(got, want[i]) {
					t.Errorf("replay %d differs from the launches", i)
				}
			}
			// A wait inside a capture is refused, and the queue lives on.
			if _, err := q.Capture(q.Sync); !errors.Is(err, driver.StreamCaptureUnsupported) {
				t.Errorf("a wait inside a capture: %v", err)
			}
			if took, err := q.Time(run); err != nil || took <= 0 {
				t.Errorf("the launches took %v (%v)", took, err)
			}
			return errors.Join(q.Sync(), graph.Free(q))
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Pinned memory is read late: what is written to it before the queue is synchronised reaches the device.
func TestPinned(t *testing.T) {
	d, _ := onStandin(t, "", nil)
	err := d.Do(func(q *Queue) error {
		p := alloc[uint8](t, q, 64)
		host, err := q.Pinned(64)
		if err != nil {
			return err
		}
		host[0] = 1
		if err := Write(q, p, host); err != nil {
			return err
		}
		host[0] = 2
		if err := q.Sync(); err != nil {
			return err
		}
		if got := download[uint8](t, q, p, 1); got[0] != 2 {
			t.Errorf("the device has %d: the stand-in copied early", got[0])
		}
		own := []uint8{3}
		if err := Write(q, p, own); err != nil {
			return err
		}
		own[0] = 4
		if got := download[uint8](t, q, p, 1); got[0] != 3 {
			t.Errorf("the device has %d: ordinary memory was read late", got[0])
		}
		return q.FreePinned(host)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Launching allocates nothing on the Go side but what purego does.
func BenchmarkLaunch(b *testing.B) {
	d, _ := onStandin(b, "", nil)
	if err := d.Do(func(q *Queue) error {
		p := alloc[float32](b, q, 32)
		l, err := biasGELU(q, p, p, 0, 1, 32, F32)
		if err != nil {
			return err
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := errors.Join(l.Enqueue(q)); err != nil {
				return err
			}
		}
		return q.Sync()
	}); err != nil {
		b.Fatal(err)
	}
}
