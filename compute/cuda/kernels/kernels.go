// Package kernels holds the CUDA kernels: their sources (.cu and ad_cuda.h), their compiled PTX (ptx/NAME.sm_NN.ptx.zst and the index of
// what is in them, checked in, embedded) and how the one is made from the other. See package cuda for how to add one.
//
//   - kernels.go: modules and which of them a device runs;
//   - index.go: the kernels of each module, so that a module is decompressed only when one of them is needed;
//   - compile.go: sources to PTX; ptxgen writes the folder ptx.
package kernels

import (
	"embed"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

//go:generate go run ./ptxgen

//go:embed ptx
var embedded embed.FS

// Module is one .cu file compiled for one target.
type Module struct {
	Name    string // of the .cu file, without extension
	Target  Target
	Entries []Entry
}

// Target is what PTX is compiled for: sm_NN, with Specific sm_NNa, which runs on exactly that architecture.
type Target struct {
	SM       int // compute capability times 10
	Specific bool
}

func (t Target) String() string {
	if t.Specific {
		return fmt.Sprintf("sm_%da", t.SM)
	}
	return fmt.Sprintf("sm_%d", t.SM)
}

// PTXVersion is the version of PTX, times 10, that the target's files are written in: the lowest that has what the target needs.
func (t Target) PTXVersion() int {
	if t.Specific || t.SM >= 90 {
		return 80
	}
	return 70
}

// DriverVersion is the least CUDA version of a driver that reads the target's PTX, as cuDriverGetVersion gives it.
func (t Target) DriverVersion() int {
	if t.PTXVersion() >= 80 {
		return 12000
	}
	return 11000
}

// runs reports whether a device of compute capability sm (times 10) and a driver version can run the target.
func (t Target) runs(sm, driver int) bool {
	return driver >= t.DriverVersion() && (t.SM == sm || t.SM < sm && !t.Specific)
}

// ParseTarget reads sm_80 or sm_90a.
func ParseTarget(s string) (Target, error) {
	digits, ok := strings.CutPrefix(s, "sm_")
	digits, specific := strings.CutSuffix(digits, "a")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return Target{}, fmt.Errorf("target %q, expected sm_NN or sm_NNa", s)
	}
	return Target{n, specific}, nil
}

// For returns each module in the best version for a device of compute capability sm (times 10) with a driver version. Modules that the device
// cannot run are left out.
func For(sm, driver int) ([]Module, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	var chosen []Module
	place := map[string]int{}
	for _, m := range all {
		if !m.Target.runs(sm, driver) {
			continue
		}
		i, seen := place[m.Name]
		if !seen {
			place[m.Name] = len(chosen)
			chosen = append(chosen, m)
		} else if old := chosen[i].Target; m.Target.SM > old.SM || m.Target.SM == old.SM && m.Target.Specific {
			chosen[i] = m
		}
	}
	return chosen, nil
}

// All returns every embedded module, by name.
func All() ([]Module, error) {
	text, err := embedded.ReadFile("ptx/" + IndexName)
	if err != nil {
		return nil, err
	}
	return parseIndex(string(text))
}

// PTX returns the module's text, decompressed.
func (m Module) PTX() ([]byte, error) {
	compressed, err := embedded.ReadFile("ptx/" + OutputName(m.Name, m.Target))
	if err != nil {
		return nil, err
	}
	ptx, err := Decompress(compressed)
	if err != nil {
		return nil, fmt.Errorf("ptx/%s: %w", OutputName(m.Name, m.Target), err)
	}
	return ptx, nil
}

// OutputName is the name of the file that holds a module's PTX.
func OutputName(module string, t Target) string { return module + "." + t.String() + ".ptx.zst" }

// Compress returns the zstd frame that PTX is kept as: a function of the text and of the library's version alone.
func Compress(ptx []byte) ([]byte, error) {
	// One goroutine: blocks do not depend on how they were shared out.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(ptx, nil), nil
}

// Decompress undoes Compress.
func Decompress(frame []byte) ([]byte, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	ptx, err := r.DecodeAll(frame, nil)
	if err == nil && len(ptx) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return ptx, err
}
