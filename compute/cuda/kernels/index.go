package kernels

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// IndexName is the file of folder ptx that lists the kernels: a line "MODULE.sm_NN KERNEL MAXTHREADS PARAM..." each, modules by name,
// with the word "early" before the parameters of kernels that may be launched early.
const IndexName = "index.txt"

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
	MaxThreads int  // a block
	Early      bool // it waits for the kernels before it (ad_wait): it may be launched before they have ended
}

const earlyWord = "early"

// Index returns the modules' lines of the index.
func Index(modules []Module) string {
	var b strings.Builder
	for _, m := range modules {
		for _, e := range m.Entries {
			fmt.Fprintf(&b, "%s.%v %s %d", m.Name, m.Target, e.Name, e.MaxThreads)
			if e.Early {
				b.WriteString(" " + earlyWord)
			}
			for _, p := range e.Params {
				fmt.Fprintf(&b, " %s", p)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// parseIndex undoes Index.
func parseIndex(text string) ([]Module, error) {
	var all []Module
	last := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, fmt.Errorf("ptx/%s: line %d: %d words, expected at least MODULE.sm_NN KERNEL MAXTHREADS", IndexName, n, len(fields))
		}
		e := Entry{Name: fields[1]}
		var err error
		if e.MaxThreads, err = strconv.Atoi(fields[2]); err != nil {
			return nil, fmt.Errorf("ptx/%s: line %d: threads: %w", IndexName, n, err)
		}
		params := fields[3:]
		if len(params) > 0 && params[0] == earlyWord {
			e.Early, params = true, params[1:]
		}
		for _, p := range params {
			e.Params = append(e.Params, Param(p))
		}
		if fields[0] != last {
			last = fields[0]
			name, target, _ := strings.Cut(last, ".")
			t, err := ParseTarget(target)
			if err != nil {
				return nil, fmt.Errorf("ptx/%s: line %d: %w", IndexName, n, err)
			}
			all = append(all, Module{Name: name, Target: t})
		}
		m := &all[len(all)-1]
		m.Entries = append(m.Entries, e)
	}
	return all, nil
}

var (
	entryHead = regexp.MustCompile(`(?s)\.entry (\w+)\((.*?)\)\s*((?:\.\w+[^\n{]*\n)*)\{`)
	paramLine = regexp.MustCompile(`\.param (?:\.align \d+ )?\.(\w+)`)
	maxntid   = regexp.MustCompile(`\.maxntid (\d+)`)
)

// Entries returns the kernels of PTX.
func Entries(ptx []byte) ([]Entry, error) {
	var entries []Entry
	heads := entryHead.FindAllSubmatchIndex(ptx, -1)
	for i, found := range entryHead.FindAllSubmatch(ptx, -1) {
		e := Entry{Name: string(found[1])}
		end := len(ptx)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		e.Early = bytes.Contains(ptx[heads[i][1]:end], []byte("griddepcontrol.wait"))
		for _, p := range paramLine.FindAllSubmatch(found[2], -1) {
			switch t := Param(strings.Replace(strings.Replace(string(p[1]), "b", "u", 1), "s", "u", 1)); t {
			case U32, F32, U64:
				e.Params = append(e.Params, t)
			default:
				return nil, fmt.Errorf("parameter %d of %s is a .%s, expected pointers, 32-bit or 64-bit integers or floats", len(e.Params), e.Name, p[1])
			}
		}
		bound := maxntid.FindSubmatch(found[3])
		if bound == nil {
			return nil, fmt.Errorf("%s has no bound of threads: AD_KERNEL gives it one", e.Name)
		}
		e.MaxThreads, _ = strconv.Atoi(string(bound[1])) // digits
		entries = append(entries, e)
	}
	return entries, nil
}
