package kernels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Clang is the compiler whose PTX is checked in: Debian's package and command of this name. Another version writes other bytes.
const Clang = "clang-22"

// ErrNoClang says that the compiler is not installed.
var ErrNoClang = errors.New(Clang + " is not installed (Debian's package of that name, nothing from NVIDIA)")

// defaultTargets are those of a .cu file without a line of its own.
var defaultTargets = []Target{{SM: 70}, {SM: 80}}

var targetsLine = regexp.MustCompile(`(?m)^// targets:(.*)$`)

// Sources returns the .cu files of dir.
func Sources(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s holds no .cu file", dir)
	}
	return files, err
}

// Targets returns what a .cu file is compiled for: its line "// targets: sm_80 sm_90a", or sm_70 and sm_80.
func Targets(file string) ([]Target, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := targetsLine.FindSubmatch(src)
	if found == nil {
		return slices.Clone(defaultTargets), nil
	}
	var targets []Target
	for _, s := range strings.Fields(string(found[1])) {
		t, err := ParseTarget(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// ModuleName is the name of the module that a .cu file makes.
func ModuleName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".cu") }

// Compile compiles a .cu file to PTX. The bytes depend on the file, ad_cuda.h and the compiler's version alone.
func Compile(ctx context.Context, file string, t Target) ([]byte, error) {
	clang, err := exec.LookPath(Clang)
	if err != nil {
		return nil, ErrNoClang
	}
	cmd := exec.CommandContext(ctx, clang, "-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch="+t.String(), "-nocudainc", "-nocudalib",
		"-Xclang", "-target-feature", "-Xclang", fmt.Sprintf("+ptx%d", t.PTXVersion()), "-std=c++20", "-O3", "-Wall", "-Wextra", "-Werror", "-S",
		"-o", "-", filepath.Base(file))
	cmd.Dir = filepath.Dir(file)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s for %v: %w\n%s", filepath.Base(file), t, err, messages.Bytes())
	}
	return out.Bytes(), nil
}
