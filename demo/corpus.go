package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"autodev/data"
	"autodev/data/source"
	"autodev/data/split"
)

// heldOut is the share of packages kept for evaluation, drawn by splitSeed.
const (
	heldOut   = 0.06
	splitSeed = 1
)

// maxFile leaves out tables and generated code, which teach little and would weigh most.
const maxFile = 100 << 10

// corpus is the standard library as training and evaluation documents.
type corpus struct {
	train, eval data.Slice
	packages    int
	bytes       int // of train
}

// goRoot asks the Go toolchain on this machine where it lives.
func goRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if root := strings.TrimSpace(string(out)); err == nil && root != "" {
		return root, nil
	}
	if root := os.Getenv("GOROOT"); root != "" {
		return root, nil
	}
	return "", fmt.Errorf("the demo learns from the source of Go's standard library; `go env GOROOT` did not say where it is (%w): install Go or name the folder with --goroot", err)
}

// readCorpus reads the Go files below root/src, split by package. Tests, commands, vendored and large files are left out.
func readCorpus(ctx context.Context, root string) (corpus, error) {
	o := source.Options{Languages: []string{"go"}, Format: source.FormatFolder, MaxFileBytes: maxFile}
	src, err := source.Open(ctx, o, filepath.Join(root, "src"))
	if err != nil {
		return corpus{}, fmt.Errorf("standard library: %w", err)
	}
	var c corpus
	packages := map[string]bool{}
	for d, err := range data.Documents(ctx, src) {
		if err != nil {
			return corpus{}, err
		}
		if !wanted(d.Path) {
			continue
		}
		d.Repository = path.Dir(d.Path)
		packages[d.Repository] = true
		if split.HeldOut(d, splitSeed, heldOut) {
			c.eval = append(c.eval, d)
		} else {
			c.train = append(c.train, d)
			c.bytes += len(d.Content)
		}
	}
	c.packages = len(packages)
	if len(c.train) == 0 || len(c.eval) == 0 {
		return corpus{}, errors.New("standard library " + root + ": found too few packages to split into some to learn from and some to evaluate on")
	}
	return c, nil
}

func wanted(file string) bool {
	if strings.HasSuffix(file, "_test.go") {
		return false
	}
	for part := range strings.SplitSeq(path.Dir(file), "/") {
		switch part {
		case "testdata", "vendor", "cmd":
			return false
		}
	}
	return true
}
