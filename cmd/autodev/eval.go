package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
	"autodev/data/source"
	"autodev/eval"
	"autodev/infer"
	"autodev/internal/atomicfile"
	"autodev/internal/progress"
	"autodev/lora"
	"autodev/models"
)

func evalCommand() *cli.Command {
	return &cli.Command{
		Name:        "eval",
		Usage:       "measure models",
		Subcommands: []*cli.Command{perplexityCommand()},
	}
}

func perplexityCommand() *cli.Command {
	return &cli.Command{
		Name:  "perplexity",
		Usage: "perplexity of models on documents, one row a model, compared with the first",
		Description: "Rows come in this order: every --model, then every --adapter on top of the first --model.\n" +
			"exact scores every token of each document but its first; strided and original join the documents into one stream;\n" +
			"original is the protocol of the published tables (window: the model's longest, stride 512, first 100 documents).",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "model", Usage: "model folder, or " + models.Tiny, Value: cli.NewStringSlice(models.Tiny)},
			&cli.StringSliceFlag{Name: "adapter", Usage: "folder of a PEFT LoRA adapter of the first model"},
			&cli.StringSliceFlag{Name: "weights", Usage: "score every row with its weights in this `FORMAT`, as inference keeps them: " + weightsText() + " (default: what the folder is packed in, or float32)"},
			&cli.StringSliceFlag{Name: "data", Usage: "documents: parquet or JSON-lines file, folder, glob or http(s) address"},
			&cli.StringSliceFlag{Name: "language", Usage: "keep documents of this language"},
			&cli.StringFlag{Name: "input", Usage: "what --data is, if its name does not say: `KIND` parquet, jsonl or folder", Value: source.FormatAuto},
			&cli.StringFlag{Name: "column", Usage: "the text's column", Value: "content"},
			&cli.StringFlag{Name: "protocol", Usage: "exact, strided or original", Value: string(eval.Exact)},
			&cli.IntFlag{Name: "window", Usage: "tokens given to a model at once (default: the shortest context of the models)"},
			&cli.IntFlag{Name: "stride", Usage: "tokens between windows (default: half the window; 512 for original)"},
			&cli.IntFlag{Name: "max-docs", Usage: "score the first N documents only (default: all; 100 for original)"},
			&cli.StringFlag{Name: "format", Usage: strings.Join(eval.Formats(), ", "), Value: "table"},
			&cli.StringFlag{Name: "per-token", Usage: "write the loss of every scored token to `FILE` as JSON lines"},
			&cli.Uint64Flag{Name: "seed", Usage: "of the bootstrap"},
			&cli.IntFlag{Name: "threads", Usage: "0 takes all"},
			deviceFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unexpected argument %q; documents are given with --data", c.Args().First())
			}
			device, err := parseDevice(c.String("device"))
			if err != nil {
				return err
			}
			return perplexity(c.Context, perplexityFlags{
				device: device,
				models: c.StringSlice("model"), adapters: c.StringSlice("adapter"), weights: c.StringSlice("weights"), data: c.StringSlice("data"),
				source:   source.Options{Column: c.String("column"), Format: c.String("input"), Languages: c.StringSlice("language")},
				protocol: eval.Protocol(c.String("protocol")), window: c.Int("window"), stride: c.Int("stride"), maxDocs: c.Int("max-docs"),
				format: c.String("format"), perToken: c.String("per-token"), seed: c.Uint64("seed"), threads: c.Int("threads"),
			}, c.App.Writer, c.App.ErrWriter)
		},
	}
}

type perplexityFlags struct {
	device                  devices.Spec
	models, adapters        []string
	weights, data           []string
	formats                 []infer.Weights // weights, checked
	source                  source.Options
	protocol                eval.Protocol
	window, stride, maxDocs int
	format, perToken        string
	seed                    uint64
	threads                 int
}

func (f *perplexityFlags) check() error {
	if len(f.data) == 0 {
		return usageError("--data is missing: a parquet or JSON-lines file, a folder, a glob or an http(s) address")
	}
	if !slices.Contains(eval.Protocols(), f.protocol) {
		return usageError("--protocol %s: expected one of %s", f.protocol, strings.Trim(strings.ReplaceAll(fmt.Sprint(eval.Protocols()), " ", ", "), "[]"))
	}
	if !slices.Contains(eval.Formats(), f.format) {
		return usageError("--format %s: expected one of %s", f.format, strings.Join(eval.Formats(), ", "))
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"window", f.window}, {"stride", f.stride}, {"max-docs", f.maxDocs}, {"threads", f.threads}} {
		if n.value < 0 {
			return usageError("--%s %d: expected a positive number", n.flag, n.value)
		}
	}
	f.formats = nil
	for _, name := range f.weights {
		w, err := parseWeights(name)
		if err != nil {
			return err
		}
		f.formats = append(f.formats, w)
	}
	if f.protocol == eval.Original && f.maxDocs == 0 {
		f.maxDocs = eval.OriginalDocuments
	}
	return nil
}

func perplexity(ctx context.Context, f perplexityFlags, out, errOut io.Writer) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	f.source.MaxDocuments = f.maxDocs
	src, err := source.Open(ctx, f.source, f.data...)
	if err != nil {
		return err
	}
	docs, err := eval.ReadDocuments(ctx, src)
	if err != nil {
		return err
	}
	logSkipped(src)
	candidates, err := f.candidates()
	if err != nil {
		return err
	}
	c := eval.Comparison{Protocol: f.protocol, Window: f.window, Stride: f.stride, Data: strings.Join(f.data, " "), Seed: f.seed}
	var bar *progress.Bar
	c.Progress = func(model string) func(done, total int) {
		bar.Close()
		bar = progress.New(errOut, model, "tokens")
		return bar.Set
	}
	if f.perToken != "" {
		file, err := atomicfile.Create(f.perToken)
		if err != nil {
			return fmt.Errorf("--per-token: %w", err)
		}
		defer func() {
			if err == nil {
				err = file.CloseAtomicallyReplace()
			}
			err = errors.Join(err, file.Cleanup())
		}()
		c.PerToken = file
	}
	table, err := c.Compare(ctx, candidates, docs)
	bar.Close()
	if err != nil {
		return err
	}
	return table.Write(ctx, out, f.format)
}

// candidates lists the rows: every model, then every adapter on the first model, each in every format of weights.
func (f *perplexityFlags) candidates() ([]eval.Candidate, error) {
	weights := f.formats
	if len(weights) == 0 {
		weights = []infer.Weights{""}
	}
	var cs []eval.Candidate
	add := func(model, adapter string) error {
		config, err := modelConfig(model)
		if err != nil {
			return err
		}
		if adapter != "" {
			// A wrong adapter must not cost the time to score the models before it.
			if _, err := lora.Load(adapter, config); err != nil {
				return err
			}
		}
		for _, w := range weights {
			row, err := inference{model: model, adapter: adapter, weights: w, threads: f.threads}.on(f.device)
			if err != nil {
				return err
			}
			cs = append(cs, eval.Candidate{Name: row.label(), Context: config.Positions, Open: row.openEval})
		}
		return nil
	}
	for _, m := range f.models {
		if err := add(m, ""); err != nil {
			return nil, err
		}
	}
	for _, a := range f.adapters {
		if err := add(f.models[0], a); err != nil {
			return nil, err
		}
	}
	return cs, nil
}

// openEval is open for a comparison.
func (f inference) openEval(ctx context.Context) (eval.Model, error) {
	m, tok, err := f.open(ctx)
	if err != nil {
		return eval.Model{}, err
	}
	return eval.Model{Scorer: m, Encoder: tok, Close: m.Close}, nil
}
