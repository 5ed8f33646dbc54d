package devices

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/cuda/dynlib"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Spec{"auto": {Kind: Auto}, "cpu": {Kind: CPU}, "cuda": {Kind: CUDA}, "cuda:0": {Kind: CUDA}, "cuda:12": {CUDA, 12}} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s", s, got)
		}
	}
	for _, s := range []string{"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:01", "cuda:+1", "cuda:256", "cpu:1", "auto:0", "cuda:1 "} {
		if _, err := Parse(s); err == nil || !strings.Contains(err.Error(), "expected auto, cpu, cuda or cuda:INDEX") {
			t.Errorf("%q: error %v", s, err)
		}
	}
}

// without makes this a machine without an NVIDIA driver.
func without(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libcuda.so.1")
	t.Setenv("AUTODEV_LIBCUDA", path)
	return path
}

// on makes the stand-in the machine's driver.
func on(t *testing.T) {
	t.Helper()
	l := cudatest.Library(t, "")
	t.Setenv("AUTODEV_LIBCUDA", l.CUDA)
	t.Setenv("AUTODEV_LIBCUBLASLT", l.CublasLt)
}

// TestNoDriver: a machine without a driver is nothing to tell people; one whose driver is of no use is.
func TestNoDriver(t *testing.T) {
	t.Setenv("AUTODEV_LIBCUDA", "")
	driver := fmt.Errorf("cuda: %w", &dynlib.NotFoundError{Spec: dynlib.CUDA()})
	for _, c := range []struct {
		err  error
		want bool
	}{
		{driver, true},
		{fmt.Errorf("cuda: %w", dynlib.ErrUnsupported), true},
		{&dynlib.NotFoundError{Spec: dynlib.CublasLt(13)}, false},
		{errors.New("cuda: the driver is too old"), false},
	} {
		if noDriver(c.err) != c.want {
			t.Errorf("%v: expected %v", c.err, c.want)
		}
	}
	t.Setenv("AUTODEV_LIBCUDA", "here")
	if noDriver(driver) {
		t.Error("a driver that was named is not there: expected to be told")
	}
}

func TestOpenWithoutDriver(t *testing.T) {
	path := without(t)
	var said bytes.Buffer
	s, err := Resolve(Spec{Kind: Auto}, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil || s.Kind != CPU {
		t.Fatalf("auto is %v, %v", s, err)
	}
	if text := said.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "computing on the CPU") {
		t.Errorf("said: %s", text)
	}
	d, err := Open(s, Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	if d.Spec.Kind != CPU || d.Name() == "" {
		t.Errorf("opened %v, %s", d.Spec, d.Name())
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	_, err = Resolve(Spec{Kind: CUDA}, slog.Default())
	if err == nil || !errors.Is(err, dynlib.ErrUnsupported) && (!strings.Contains(err.Error(), "looked in") || !strings.Contains(err.Error(), path)) {
		t.Errorf("error %v", err)
	}
	if _, err := Open(Spec{Kind: Auto}, Options{}); err == nil {
		t.Error("auto was opened")
	}
}

func TestOpenCUDA(t *testing.T) {
	on(t)
	for spec, want := range map[Spec]Spec{{Kind: Auto}: {Kind: CUDA}, {Kind: CUDA}: {Kind: CUDA}} {
		s, err := Resolve(spec, slog.Default())
		if err != nil || s != want || Short(s) != compute.BF16 {
			t.Fatalf("%v is %v, %v", spec, s, err)
		}
		d, err := Open(s, Options{Fits: func(free int64) string { return "half of it fits" }})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(d.Name(), "cuda:0 (") {
			t.Errorf("opened %s", d.Name())
		}
		var bytes [compute.NumSpaces]int64
		bytes[compute.Arena] = 1 << 40
		if _, err := d.Alloc(bytes); err == nil || !strings.HasSuffix(err.Error(), "half of it fits") {
			t.Errorf("error %v", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Resolve(Spec{Kind: CUDA, Index: 200}, slog.Default()); err == nil || !strings.Contains(err.Error(), "there is no device 200, expected 0 to 0 (0 is AutoDev stand-in)") {
		t.Errorf("error %v", err)
	}
}

// TestCheck: what a device has no kernels for depends on the card, and on whether there are gradients; the processor has kernels for all.
func TestCheck(t *testing.T) {
	l := cudatest.Library(t, "")
	on(t)
	for _, c := range []struct {
		kind       Kind
		capability int64
		m          Model
		want       string
	}{
		{CPU, 90, Model{1000, true}, ""},
		{CUDA, 90, Model{256, true}, ""},
		{CUDA, 90, Model{257, false}, "head dimension of 257, expected at most 256"},
		{CUDA, 75, Model{256, false}, ""},
		{CUDA, 75, Model{128, true}, ""},
		{CUDA, 75, Model{256, true}, "head dimension of 256 needs 68736 bytes of shared memory, the device has 65536"},
	} {
		if err := l.Set("capability", c.capability); err != nil {
			t.Fatal(err)
		}
		err := Check(Spec{Kind: c.kind}, c.m)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v", c, err)
		}
	}
}

// Cards before compute capability 8.0 multiply in float16; the processor has bfloat16, emulated or not.
func TestShort(t *testing.T) {
	if s := Short(Spec{Kind: CPU}); s != compute.BF16 {
		t.Errorf("the CPU multiplies in %v", s)
	}
	t.Run("no card", func(t *testing.T) {
		without(t)
		if s := Short(Spec{Kind: CUDA}); s != compute.F32 {
			t.Errorf("a card that is not there multiplies in %v", s)
		}
	})
	l := cudatest.Library(t, "")
	on(t)
	for capability, want := range map[int64]compute.DType{70: compute.F16, 75: compute.F16, 80: compute.BF16, 90: compute.BF16} {
		if err := l.Set("capability", capability); err != nil {
			t.Fatal(err)
		}
		if s := Short(Spec{Kind: CUDA}); s != want {
			t.Errorf("a card of compute capability %d multiplies in %v, expected %v", capability, s, want)
		}
	}
}

func TestStorage(t *testing.T) {
	for _, c := range []struct {
		k    Kind
		d    compute.DType
		want compute.Storage
	}{
		{CPU, compute.F32, compute.Uniform(compute.F32)}, {CPU, compute.BF16, compute.Uniform(compute.F32)}, {CUDA, compute.F32, compute.Uniform(compute.F32)},
		{CUDA, compute.BF16, compute.Mixed(compute.BF16)}, {CUDA, compute.F16, compute.Mixed(compute.F16)},
	} {
		if got := Storage(c.k, c.d); got != c.want {
			t.Errorf("%s, %v: %v, expected %v", c.k, c.d, got, c.want)
		}
	}
}

func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux is known to say how much memory there is")
	}
	if n := Memory(); n < 64<<20 || n > 1<<50 {
		t.Errorf("this machine has %d bytes of memory", n)
	}
}
