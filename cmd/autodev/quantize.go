package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/data"
	"autodev/data/source"
	"autodev/infer"
	"autodev/infer/calibrate"
	"autodev/internal/progress"
	"autodev/models"
	"autodev/tokenizer"
)

func quantizeCommand() *cli.Command {
	return &cli.Command{
		Name:  "quantize",
		Usage: "write a packed folder: quantised weights that are mapped into memory, for serve, complete and eval",
		Description: "int8 keeps a scale for 256 weights; int4 one for 64, and the token embeddings and head in int8.\n" +
			"Methods: search gives every group the scale with the least squared error; gptq (the default with --calibration) rounds every\n" +
			"column to what makes up for the errors so far on the calibration documents; rtn is plain round-to-nearest, for comparison.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "model `FOLDER`, or " + models.Tiny, Value: models.Tiny},
			&cli.StringFlag{Name: "adapter", Usage: "`FOLDER` of a PEFT LoRA adapter to merge before"},
			&cli.StringFlag{Name: "weights", Usage: "`FORMAT` bf16, int8 or int4", Value: string(infer.Int8)},
			&cli.StringFlag{Name: "method", Usage: "search, gptq or rtn"},
			&cli.StringSliceFlag{Name: "calibration", Usage: "documents for gptq: parquet or JSON-lines file, folder, glob or http(s) address"},
			&cli.StringSliceFlag{Name: "language", Usage: "keep calibration documents of this language"},
			&cli.StringFlag{Name: "input", Usage: "what --calibration is, if its name does not say: `KIND` parquet, jsonl or folder", Value: source.FormatAuto},
			&cli.StringFlag{Name: "column", Usage: "the text's column", Value: "content"},
			&cli.IntFlag{Name: "calibration-tokens", Usage: "tokens of calibration text; the working memory grows with it", Value: 1 << 15},
			&cli.IntFlag{Name: "calibration-window", Usage: "tokens of one document at most", Value: 512},
			&cli.Uint64Flag{Name: "seed", Usage: "of the choice of calibration text"},
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` to write; it must not hold anything yet (default: the model's name and the format)"},
			&cli.IntFlag{Name: "threads", Usage: "0 takes all; changes no byte"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unexpected argument %q; the model is given with --model", c.Args().First())
			}
			f := quantizeFlags{
				model: c.String("model"), adapter: c.String("adapter"), out: c.String("out"), method: infer.PackMethod(c.String("method")),
				weights: infer.Weights(c.String("weights")), calibration: c.StringSlice("calibration"),
				source:  source.Options{Column: c.String("column"), Format: c.String("input"), Languages: c.StringSlice("language")},
				sample:  calibrate.SampleOptions{Tokens: c.Int("calibration-tokens"), Window: c.Int("calibration-window"), Seed: c.Uint64("seed")},
				threads: c.Int("threads"),
			}
			return quantize(c.Context, f, c.App.Writer, c.App.ErrWriter)
		},
	}
}

type quantizeFlags struct {
	model, adapter, out string
	weights             infer.Weights
	method              infer.PackMethod
	calibration         []string
	source              source.Options
	sample              calibrate.SampleOptions
	threads             int
}

// maxCalibrationTokens is far more than any model needs, or memory holds the activations of.
const maxCalibrationTokens = 1 << 26

// check completes the flags and reports what cannot be.
func (f *quantizeFlags) check() error {
	if f.weights != infer.BFloat16 && f.weights != infer.Int8 && f.weights != infer.Int4 {
		return usageError("--weights %s: expected bf16, int8 or int4", f.weights)
	}
	if f.method == "" {
		f.method = infer.PackSearch
		if len(f.calibration) > 0 {
			f.method = infer.PackGPTQ
		}
	}
	switch {
	case !slices.Contains(infer.PackMethods(), f.method):
		return usageError("--method %s: expected one of %s", f.method, strings.Trim(fmt.Sprint(infer.PackMethods()), "[]"))
	case f.method == infer.PackGPTQ && len(f.calibration) == 0:
		return usageError("--calibration is missing: --method %s needs documents", f.method)
	case f.method != infer.PackGPTQ && len(f.calibration) > 0:
		return usageError("--calibration: not used by --method %s, expected %s", f.method, infer.PackGPTQ)
	case f.weights == infer.BFloat16 && f.method != infer.PackSearch:
		return usageError("--method %s: not for bf16, expected %s", f.method, infer.PackSearch)
	case f.sample.Tokens < 1 || f.sample.Tokens > maxCalibrationTokens:
		return usageError("--calibration-tokens %d: expected 1 to %d", f.sample.Tokens, maxCalibrationTokens)
	case f.sample.Window < 2:
		return usageError("--calibration-window %d: expected 2 or more", f.sample.Window)
	case f.threads < 0:
		return usageError("--threads %d: expected 0 or more", f.threads)
	}
	if f.out == "" {
		f.out = filepath.Clean(modelLabel(f.model)) + "-" + string(f.weights)
	}
	return mustBeNew(f.out)
}

func quantize(ctx context.Context, f quantizeFlags, out, errOut io.Writer) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	folder, err := modelFolder(f.model)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	src, err := withAdapter(folder, f.adapter)
	if err != nil {
		return err
	}
	o := infer.PackOptions{Weights: f.weights, Method: f.method, Threads: f.threads, Assets: folder.FS}
	if f.method == infer.PackGPTQ {
		tok, err := openTokenizer(f.model)
		if err != nil {
			return err
		}
		f.sample.Window = min(f.sample.Window, folder.Config.Positions)
		if o.Calibration, err = f.documents(ctx, tok); err != nil {
			return err
		}
	}
	bar := progress.New(errOut, "quantise", "tensors")
	o.Progress = bar.Set
	began := time.Now()
	q, err := infer.Pack(ctx, f.out, folder.Config, src, o)
	bar.Close()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\t%s, %.2f bits a weight, %s, in %v\n", f.out, q.Weights, q.Bits, bytesText(q.Bytes), time.Since(began).Round(10*time.Millisecond))
	return err
}

// documents reads the calibration text.
func (f *quantizeFlags) documents(ctx context.Context, tok *tokenizer.Tokenizer) ([][]int32, error) {
	set, err := source.Open(ctx, f.source, f.calibration...)
	if err != nil {
		return nil, err
	}
	texts := func(yield func(string, error) bool) {
		for d, err := range data.Documents(ctx, set) {
			if !yield(d.Content, err) {
				return
			}
		}
	}
	windows, err := calibrate.Sample(ctx, texts, tok.Encode, f.sample)
	if err != nil {
		return nil, err
	}
	logSkipped(set)
	if len(windows) == 0 {
		return nil, fmt.Errorf("--calibration %s: no text, expected at least one document", strings.Join(f.calibration, " "))
	}
	return windows, nil
}
