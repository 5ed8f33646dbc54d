// Command ptxgen compiles the .cu files of the working folder into ptx/. Without the compiler it leaves what is there and says so.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

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
	made := map[string]bool{}
	for _, src := range sources {
		targets, err := kernels.Targets(src)
		if err != nil {
			return err
		}
		for _, t := range targets {
			ptx, err := kernels.Compile(ctx, src, t)
			if err != nil {
				return err
			}
			name := kernels.OutputName(src, t)
			made[name] = true
			if err := os.WriteFile(filepath.Join("ptx", name), ptx, 0o644); err != nil {
				return err
			}
		}
	}
	old, err := filepath.Glob("ptx/*.ptx")
	if err != nil {
		return err
	}
	for _, f := range old {
		if !made[filepath.Base(f)] {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}
