// Package kernels holds the CUDA kernels: their sources (.cu and ad_cuda.h), their compiled PTX (ptx/NAME.sm_NN.ptx, checked in,
// embedded) and how the one is made from the other. See package cuda for how to add one.
package kernels

import (
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
)

//go:generate go run ./ptxgen

//go:embed ptx/*.ptx
var embedded embed.FS

// Module is the PTX of one .cu file for one target.
type Module struct {
	Name   string // of the .cu file, without extension
	Target Target
	PTX    []byte
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
// cannot run are left out: Entry of a kernel in one of them says so.
func For(sm, driver int) ([]Module, error) {
	best := map[string]Module{}
	var names []string
	all, err := All()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		old, seen := best[m.Name]
		if !seen {
			names = append(names, m.Name)
		}
		better := m.Target.SM > old.Target.SM || m.Target.SM == old.Target.SM && m.Target.Specific
		if m.Target.runs(sm, driver) && better {
			best[m.Name] = m
		} else if !seen {
			best[m.Name] = Module{}
		}
	}
	var chosen []Module
	for _, name := range names {
		if m := best[name]; m.PTX != nil {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// All returns every embedded module, by file name.
func All() ([]Module, error) {
	files, err := fs.ReadDir(embedded, "ptx")
	if err != nil {
		return nil, err
	}
	all := make([]Module, 0, len(files))
	for _, f := range files {
		name, target, ok := strings.Cut(strings.TrimSuffix(f.Name(), ".ptx"), ".")
		t, err := ParseTarget(target)
		if !ok || err != nil {
			return nil, fmt.Errorf("ptx/%s: expected NAME.sm_NN.ptx", f.Name())
		}
		ptx, err := embedded.ReadFile("ptx/" + f.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, Module{name, t, ptx})
	}
	return all, nil
}

// Param is the type of a kernel's parameter.
type Param string

// Parameter types, as PTX has them. Pointers and 64-bit integers are both U64.
const (
	U32 Param = "u32"
	F32 Param = "f32"
	U64 Param = "u64"
)

// Entry is a kernel of a module.
type Entry struct {
	Name       string
	Params     []Param
	MaxThreads int // a block
}

var (
	entryHead = regexp.MustCompile(`(?s)\.entry (\w+)\((.*?)\)\s*((?:\.\w+[^\n{]*\n)*)\{`)
	paramLine = regexp.MustCompile(`\.param (?:\.align \d+ )?\.(\w+)`)
	maxntid   = regexp.MustCompile(`\.maxntid (\d+)`)
)

// Entries returns the module's kernels.
func (m Module) Entries() ([]Entry, error) {
	var entries []Entry
	for _, found := range entryHead.FindAllStringSubmatch(string(m.PTX), -1) {
		e := Entry{Name: found[1]}
		for _, p := range paramLine.FindAllStringSubmatch(found[2], -1) {
			switch t := Param(strings.Replace(strings.Replace(p[1], "b", "u", 1), "s", "u", 1)); t {
			case U32, F32, U64:
				e.Params = append(e.Params, t)
			default:
				return nil, fmt.Errorf("%s: parameter %d of %s is a .%s, expected pointers, 32-bit or 64-bit integers or floats", m.Name, len(e.Params), e.Name, p[1])
			}
		}
		bound := maxntid.FindStringSubmatch(found[3])
		if bound == nil {
			return nil, fmt.Errorf("%s: %s has no bound of threads: AD_KERNEL gives it one", m.Name, e.Name)
		}
		e.MaxThreads, _ = strconv.Atoi(bound[1]) // digits
		entries = append(entries, e)
	}
	return entries, nil
}
