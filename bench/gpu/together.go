package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"autodev/compute/devices"
	"autodev/infer"
	"autodev/model"
)

// together completes several prompts at a time through infer's engine, as a server does: tokens a second of all of them. Passes read the weights once
// for all sequences. Prompts are short, so that nearly all passes are of one token for each sequence.
func together(ctx context.Context, args []string) (_ any, err error) {
	f := flag.NewFlagSet("together", flag.ContinueOnError)
	folder := f.String("model", "", "model folder")
	file := f.String("tokens-file", "", "as of step: prompts, and the tokens that are followed, are its windows")
	name := f.String("device", "cuda", devices.Expected)
	weights := f.String("weights", "", "format of the weights: the device's usual one when empty")
	list := f.String("sequences", "1,4,8,16", "how many at a time, one after the other")
	prompt, n := f.Int("prompt", 32, "tokens"), f.Int("tokens", 256, "of each completion")
	if err := parse(f, args); err != nil {
		return nil, err
	}
	var sequences []int
	for _, s := range strings.Split(*list, ",") {
		many, err := strconv.Atoi(s)
		if err != nil || many < 1 {
			return nil, fmt.Errorf("-sequences: found %q, expected numbers from 1 on, separated by commas", s)
		}
		sequences = append(sequences, many)
	}
	spec, err := devices.Parse(*name)
	if err != nil {
		return nil, err
	}
	source, err := model.Open(*folder)
	if err != nil {
		return nil, err
	}
	defer func() { err = join(err, source.Close()) }()
	w, err := readWindows(*file, *prompt+*n, source.Config.Vocab)
	if err != nil {
		return nil, err
	}
	m, err := infer.Load(ctx, *folder, source.Config, source, nil, infer.Options{Device: spec, Weights: infer.Weights(*weights)})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	type rate struct {
		Sequences int     `json:"sequences"`
		Rate      float64 `json:"tokens_per_second"`
		Passes    int64   `json:"passes"`
	}
	r := struct {
		Device  string `json:"device"`
		Weights string `json:"weights"`
		Rates   []rate `json:"rates"`
	}{Device: m.Info().Device, Weights: string(m.Info().Weights)}
	for _, many := range sequences {
		e := infer.NewEngine(m, infer.EngineOptions{Concurrency: many, CacheBytes: -1})
		best := rate{Sequences: many}
		for range 3 { // the first loads kernels and captures graphs
			before := e.Stats().Passes
			var g errgroup.Group
			start := time.Now()
			for i := range many {
				at := i * (*prompt + *n) % (len(w.ids) - *prompt - *n + 1)
				req := infer.Request{Prompt: infer.Prompt{IDs: w.ids[at:][:*prompt]}, MaxTokens: *n, Replay: w.ids[at+*prompt:][:*n], Speculate: infer.SpeculateOff, Client: strconv.Itoa(i)}
				g.Go(func() error {
					_, err := e.Complete(ctx, []infer.Request{req}, nil)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				e.Close()
				return nil, err
			}
			if tokens := float64(many*(*n)) / time.Since(start).Seconds(); tokens > best.Rate {
				best.Rate, best.Passes = tokens, e.Stats().Passes-before
			}
		}
		e.Close()
		r.Rates = append(r.Rates, best)
	}
	return r, nil
}
