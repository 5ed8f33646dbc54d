// Package standin builds a libcuda.so.1 and a libcublasLt.so that run AutoDev's kernels on the processor, from the same .cu files as the
// GPU's PTX, so that the whole CUDA path is tested where there is no GPU. Only tests import it (through cudatest).
//
// block.cc runs blocks: each thread is a fiber; barriers, shuffles, mma and asynchronous copies switch fibers, in an order that a seed
// decides. products.cc runs products of warpgroups (wgmma), at a moment that the seed decides too. driver.cc is the driver API over it,
// cublaslt.cc the matrix products, standin.h and warpgroup.h what kernels see. What it catches: missing barriers and waits (by schedules),
// sums used and operands overwritten while a product is under way, copies that products do not see for want of a fence, reads of what was
// never written (allocations and shared memory are NaNs), accesses outside allocations and shared arrays (unreadable pages), warp
// operations that lanes do not call together, host memory used before a copy is done (work is done late), calls in an order that a driver
// refuses. What it does not: races between blocks beyond what the host's threads show, weak memory order, bank conflicts, time,
// registers, ordinary stores into shared memory that products read without a fence, and divergence that a real warp would resolve otherwise.
//
// Settings come from AUTODEV_STANDIN_SEED, _THREADS, _MEMORY, _CAPABILITY, _DRIVER, _DEVICES, _LOSE_AFTER, _LOSE_CODE, _WORKSPACE, _BLAS, _EPILOGUES when the
// library is loaded, and from Library.Set (block.h says what each means).
package standin

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/cpu"

	"autodev/compute/cuda/dynlib"
)

//go:embed src/*
var sources embed.FS

// ErrNoCompiler says that there is no C++ compiler to build with.
var ErrNoCompiler = errors.New("no C++ compiler (clang++ or g++) is installed: the stand-in for CUDA cannot be built")

// Library is a built stand-in.
type Library struct {
	CUDA     string // path of libcuda.so.1
	CublasLt string // path of libcublasLt.so
	set      uintptr
	reset    uintptr
	fault    uintptr
}

// Build builds the stand-in with the kernels of dir in cache, unless it is there already: its folder's name is the hash of
// everything that goes into it. only names the .cu files to take, none meaning all: a stand-in of some kernels loads only the
// modules of those. plant is a bug to plant, as FILE.cu:FLAG of an AD_BUG that the file or a header has, or empty.
func Build(ctx context.Context, dir, cache string, only []string, plant string) (*Library, error) {
	compiler, err := findCompiler()
	if err != nil {
		return nil, err
	}
	units, err := collect(dir, only, plant)
	if err != nil {
		return nil, err
	}
	flags := []string{"-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-Wall", "-Werror", "-pthread"}
	if runtime.GOARCH == "amd64" && cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		flags = append(flags, "-mavx2", "-mfma", "-mf16c")
	}
	version, err := exec.CommandContext(ctx, compiler, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", compiler, err)
	}
	salt := fmt.Sprint(compiler, string(version), flags)
	whole := sha256.New()
	var build errgroup.Group
	build.SetLimit(max(1, runtime.NumCPU()))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	for _, f := range units.headers {
		if err := os.WriteFile(filepath.Join(scratch, f.name), f.text, 0o644); err != nil {
			return nil, err
		}
	}
	objects := make([]string, len(units.files))
	for i, u := range units.files {
		h := sha256.New()
		fmt.Fprint(h, salt, u.name, u.plant, "\x00", string(u.text))
		for _, f := range units.headers {
			fmt.Fprint(h, "\x00", f.name, "\x00", string(f.text))
		}
		sum := hex.EncodeToString(h.Sum(nil))[:24]
		fmt.Fprint(whole, sum)
		objects[i] = filepath.Join(cache, u.name+"-"+sum+".o")
		build.Go(func() error { return compile(ctx, compiler, flags, scratch, u, objects[i]) })
	}
	if err := build.Wait(); err != nil {
		return nil, err
	}
	folder := filepath.Join(cache, "lib-"+hex.EncodeToString(whole.Sum(nil))[:24])
	l := &Library{CUDA: filepath.Join(folder, "libcuda.so.1"), CublasLt: filepath.Join(folder, "libcublasLt.so")}
	if _, err := os.Stat(folder); err == nil {
		return l, nil
	}
	var driver, blas []string
	for i, u := range units.files {
		if u.name == "cublaslt.cc" {
			blas = append(blas, objects[i])
		} else {
			driver = append(driver, objects[i])
		}
	}
	made := filepath.Join(scratch, "lib")
	if err := os.Mkdir(made, 0o755); err != nil {
		return nil, err
	}
	// Each stand-in has a name of its own, so that those of several planted bugs can be loaded into one process.
	soname := "libcuda-" + filepath.Base(folder) + ".so.1"
	link := func(args ...string) error {
		return command(ctx, compiler, append([]string{"-shared", "-pthread", "-Wl,-z,defs"}, args...)...)
	}
	if err := link(append([]string{"-Wl,-Bsymbolic", "-Wl,-soname," + soname, "-o", filepath.Join(made, "libcuda.so.1")}, driver...)...); err != nil {
		return nil, err
	}
	if err := link(append(append([]string{"-Wl,-soname,libcublasLt-" + filepath.Base(folder) + ".so", "-Wl,-rpath,$ORIGIN", "-o", filepath.Join(made, "libcublasLt.so")}, blas...), filepath.Join(made, "libcuda.so.1"))...); err != nil {
		return nil, err
	}
	if err := os.Rename(made, folder); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(l.CUDA); there != nil { // another process was first
			return nil, err
		}
	}
	return l, nil
}

type unit struct {
	name, plant string
	text        []byte
}

type units struct{ files, headers []unit }

// collect reads the library's own sources and the kernels of dir.
func collect(dir string, only []string, plant string) (u units, err error) {
	add := func(name string, text []byte) {
		switch {
		case strings.HasSuffix(name, ".h"):
			u.headers = append(u.headers, unit{name: name, text: text})
		case strings.HasSuffix(name, ".cu"):
			u.files = append(u.files, unit{name: name, text: text})
			if flag, ok := strings.CutPrefix(plant, name+":"); ok {
				u.files[len(u.files)-1].plant = flag
			}
		case strings.HasSuffix(name, ".cc"):
			u.files = append(u.files, unit{name: name, text: text})
		}
	}
	own, err := fs.Glob(sources, "src/*")
	if err != nil {
		return u, err
	}
	for _, name := range own {
		text, err := sources.ReadFile(name)
		if err != nil {
			return u, err
		}
		add(path.Base(name), text)
	}
	theirs, err := os.ReadDir(dir)
	if err != nil {
		return u, err
	}
	for _, f := range theirs {
		if f.IsDir() || !slices.Contains([]string{".cu", ".h"}, filepath.Ext(f.Name())) {
			continue
		}
		if strings.HasSuffix(f.Name(), ".cu") && len(only) > 0 && !slices.Contains(only, f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return u, err
		}
		add(f.Name(), text)
	}
	return u, nil
}

func findCompiler() (string, error) {
	for _, c := range []string{"clang++", "g++"} {
		if path, err := exec.LookPath(c); err == nil {
			return path, nil
		}
	}
	return "", ErrNoCompiler
}

func compile(ctx context.Context, compiler string, flags []string, scratch string, u unit, object string) error {
	if _, err := os.Stat(object); err == nil {
		return nil
	}
	src, made := filepath.Join(scratch, u.name), filepath.Join(scratch, filepath.Base(object))
	if err := os.WriteFile(src, u.text, 0o644); err != nil {
		return err
	}
	args := append(slices.Clone(flags), "-DAD_STANDIN", "-I", scratch, "-c", "-o", made)
	if u.plant != "" {
		args = append(args, "-DAD_PLANT_"+u.plant+"=,")
	}
	if err := command(ctx, compiler, append(args, "-x", "c++", src)...); err != nil {
		return err
	}
	return os.Rename(made, object)
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}

// Load loads the library into the process, once.
func (l *Library) Load() error {
	lib, err := dynlib.CUDA().Open(l.CUDA)
	if err != nil {
		return err
	}
	return lib.Symbols(map[string]*uintptr{"standin_set": &l.set, "standin_reset": &l.reset, "standin_fault": &l.fault})
}

// Reset makes the device new: no allocations, no failure, settings as the environment has them.
func (l *Library) Reset() { dynlib.Call(l.reset) }

// Set changes a setting (see the package comment, in lower case).
func (l *Library) Set(name string, value int64) error {
	s := append([]byte(name), 0)
	if dynlib.Call(l.set, uintptr(unsafe.Pointer(&s[0])), uintptr(value)) != 0 {
		return fmt.Errorf("the stand-in has no setting %q", name)
	}
	return nil
}

// Fault says what ended the device: the kernel, the thread, the address or what the threads did wrong. Empty if nothing did.
func (l *Library) Fault() string {
	b := make([]byte, 1024)
	dynlib.Call(l.fault, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return strings.TrimRight(string(b), "\x00")
}
