package wheels

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Constant is one of ours with the value its header gave when the table was written.
type Constant struct {
	Name   string // in the header
	Ours   int
	Header int
}

// Compare checks the constants against their table and, where there is one, against the header itself: of the folder that AUTODEV_CUDA_INCLUDE
// names (that of a toolkit), or of the wheels nvidia-cuda-runtime and nvidia-cublas.
func Compare(t *testing.T, header string, constants []Constant) {
	t.Helper()
	for _, c := range constants {
		if c.Ours != c.Header {
			t.Errorf("%s is %d, expected %d", c.Name, c.Ours, c.Header)
		}
	}
	path := find("*/include/" + header)
	if folder := os.Getenv("AUTODEV_CUDA_INCLUDE"); folder != "" {
		path = filepath.Join(folder, header)
	}
	if path == "" {
		t.Logf("%s itself was not read: %s", header, missing)
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := parse(string(text))
	for _, c := range constants {
		if v, ok := all[c.Name]; !ok {
			t.Errorf("%s has no %s", header, c.Name)
		} else if v != c.Ours {
			t.Errorf("%s is %d, %s has %d", c.Name, c.Ours, header, v)
		}
	}
	t.Logf("%d constants compared with %s", len(constants), path)
}

var definition = regexp.MustCompile(`(?m)^[\s,]*(?:#define\s+(\w+)\s+|(\w+)\s*=\s*)([^,\n/]+)`)

// parse returns the definitions whose values are numbers, or other names and numbers joined by |.
func parse(text string) map[string]int {
	all := map[string]int{}
	for _, m := range definition.FindAllStringSubmatch(text, -1) {
		value, ok := 0, true
		for term := range strings.SplitSeq(strings.Trim(strings.TrimSpace(m[3]), "()"), "|") {
			term = strings.TrimSpace(term)
			if n, err := strconv.ParseInt(term, 0, 64); err == nil {
				value |= int(n)
			} else if n, known := all[term]; known {
				value |= n
			} else {
				ok = false
			}
		}
		if ok {
			all[m[1]+m[2]] = value
		}
	}
	return all
}
