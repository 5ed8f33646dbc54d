// Command gpu is AutoDev's side of the comparison on a GPU: what run.py starts beside PyTorch (peer.py). Each command prints one
// line of JSON, but for predict, which is for people.
//
//	gpu info                              the card, the driver, the libraries
//	gpu products -tokens 32768            cuBLASLt's algorithms at the training step's shapes, and what the card can do at most
//	gpu step -model M -tokens-file T ...  a training run: losses, tokens/s, memory; with -profile every kernel's time and rate
//	gpu decode -model M -tokens-file T    prompt, one token after the other, scoring, through package infer
//	gpu together -model M -tokens-file T  completions of several prompts at a time, through its engine
//	gpu predict -rank 64 -checkpointing   how long a step will take by a card's rates, call by call, and its memory: needs no card
//
// It is a program of its own, and no part of autodev, because it goes past the recipes: the same windows for both sides, plans
// looked at call by call.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"autodev/compute/cuda"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gpu:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) (any, error){"info": info, "products": products, "step": step, "decode": decode, "together": together, "predict": predict}
	if len(args) == 0 || commands[args[0]] == nil {
		return fmt.Errorf("found arguments %q, expected info, products, step, decode, together or predict", args)
	}
	result, err := commands[args[0]](ctx, args[1:])
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if table, ok := result.(io.WriterTo); ok {
		_, err := table.WriteTo(os.Stdout)
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// parse reads the flags of a command, which takes nothing else.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("found argument %q, expected flags only", f.Arg(0))
	}
	return nil
}

func info(_ context.Context, args []string) (_ any, err error) {
	if err := parse(flag.NewFlagSet("info", flag.ContinueOnError), args); err != nil {
		return nil, err
	}
	d, err := cuda.New(cuda.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, d.Close()) }()
	var free, total int64
	err = d.Do(func(q *cuda.Queue) (err error) {
		free, total, err = q.MemInfo()
		return err
	})
	p := d.Properties()
	return map[string]any{
		"device": d.Name(), "capability": p.Capability, "multiprocessors": p.Multiprocessors, "l2": p.L2, "memory": total, "free": free,
		"bandwidth_by_clock": p.Bandwidth, "driver_cuda": fmt.Sprintf("%d.%d", p.Driver/1000, p.Driver%1000/10), "libcuda": p.LibCUDA, "libcublasLt": p.LibCublasLt,
	}, err
}

func join(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
