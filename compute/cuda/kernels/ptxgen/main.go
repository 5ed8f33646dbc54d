// Command ptxgen compiles the .cu files of the working folder into ptx/. Without the compiler it leaves what is there and says so. A file that
// holds the right text already stays as it is, whichever version of the compression wrote it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"autodev/compute/cuda/kernels"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx)
	switch {
	case errors.Is(err, kernels.ErrNoClang):
		fmt.Fprintln(os.Stderr, "PTX IS NOT REGENERATED:", err)
	case err != nil:
		fmt.Fprintln(os.Stderr, "ptxgen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	sources, err := kernels.Sources(".")
	if err != nil {
		return err
	}
	var modules []kernels.Module
	var files []string // of the modules
	for _, src := range sources {
		targets, err := kernels.Targets(src)
		if err != nil {
			return err
		}
		for _, t := range targets {
			modules = append(modules, kernels.Module{Name: kernels.ModuleName(src), Target: t})
			files = append(files, src)
		}
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(runtime.NumCPU())
	for i := range modules {
		all.Go(func() error { return generate(ctx, files[i], &modules[i]) })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("ptx", kernels.IndexName), []byte(kernels.Index(modules)), 0o644); err != nil {
		return err
	}
	made := map[string]bool{kernels.IndexName: true}
	for _, m := range modules {
		made[kernels.OutputName(m.Name, m.Target)] = true
	}
	old, err := os.ReadDir("ptx")
	if err != nil {
		return err
	}
	for _, f := range old {
		if !made[f.Name()] {
			if err := os.Remove(filepath.Join("ptx", f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// generate compiles src as the module, writes its file unless it holds the same text, and fills in its kernels.
func generate(ctx context.Context, src string, m *kernels.Module) error {
	ptx, err := kernels.Compile(ctx, src, m.Target)
	if err != nil {
		return err
	}
	if m.Entries, err = kernels.Entries(ptx); err != nil {
		return fmt.Errorf("%s for %v: %w", src, m.Target, err)
	}
	out := filepath.Join("ptx", kernels.OutputName(m.Name, m.Target))
	if old, err := os.ReadFile(out); err == nil {
		if text, err := kernels.Decompress(old); err == nil && bytes.Equal(text, ptx) {
			return nil
		}
	}
	compressed, err := kernels.Compress(ptx)
	if err != nil {
		return err
	}
	return os.WriteFile(out, compressed, 0o644)
}
