package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	gort "runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"autodev/compute/cpu"
	"autodev/eval/runtime"
	"autodev/infer"
	"autodev/internal/atomicfile"
	"autodev/internal/progress"
	"autodev/models"
)

func benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "measure speed and memory",
		Subcommands: []*cli.Command{
			{
				Name:  "runtime",
				Usage: "time, speed and memory of completions by weight format, with and without cache, speculation and threads",
				Description: "Every variant generates the same number of tokens in processes of its own, and outputs that must be equal are compared:\n" +
					"the command fails where they are not. Close what else is busy on the machine; the table shows what it gave meanwhile.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "model", Usage: "model `FOLDER`, or " + models.Tiny, Value: models.Tiny},
					&cli.StringSliceFlag{Name: "weights", Usage: "formats, each with = and a folder of its own where it is not --model's: float32,int8=`FOLDER`", Value: cli.NewStringSlice("float32", "bf16", "int8", "int4")},
					&cli.StringSliceFlag{Name: "kv-cache", Usage: "formats of keys and values: float32, bf16, int8, or auto (float32 beside float32 weights, else bf16)", Value: cli.NewStringSlice(string(infer.CacheAuto))},
					&cli.IntFlag{Name: "prompt-tokens", Usage: "length of the prompt", Value: 256},
					&cli.IntFlag{Name: "new-tokens", Usage: "generated, neither more nor fewer", Value: 64},
					&cli.StringFlag{Name: "prompt", Usage: "`FILE` of text for the prompt, from its beginning (default: Go source code)"},
					&cli.IntSliceFlag{Name: "threads", Usage: "numbers of threads (default: 1 and all processors)"},
					&cli.StringFlag{Name: "huge-pages", Usage: "of packed weights, as serve has it: on (copied while loading), off, or auto (copied while the first tokens are measured, too)", Value: string(infer.HugePagesAuto)},
					&cli.IntFlag{Name: "repeat", Usage: "measurements of each variant", Value: 5},
					&cli.BoolFlag{Name: "uncached", Usage: "measure generation without a cache too, which is slow", Value: true},
					&cli.BoolFlag{Name: "speculation", Usage: "measure speculative decoding too", Value: true},
					&cli.Uint64Flag{Name: "seed", Usage: "of the order of measurements"},
					&cli.StringFlag{Name: "format", Usage: "printed: " + strings.Join(runtime.Formats(), ", "), Value: "table"},
					&cli.StringFlag{Name: "json", Usage: "write everything measured to `FILE` as JSON"},
					&cli.StringFlag{Name: "out", Usage: "write the table, JSON and the plots as SVG and PNG to `FOLDER`"},
				},
				Action: func(c *cli.Context) error {
					if c.Args().Present() {
						return usageError("bench runtime: found argument %q, expected flags only", c.Args().First())
					}
					return benchRuntime(c.Context, benchRuntimeFlags{
						model: c.String("model"), weights: c.StringSlice("weights"), kv: c.StringSlice("kv-cache"), threads: c.IntSlice("threads"),
						promptTokens: c.Int("prompt-tokens"), newTokens: c.Int("new-tokens"), prompt: c.String("prompt"), hugePages: c.String("huge-pages"),
						repeat: c.Int("repeat"), uncached: c.Bool("uncached"), speculation: c.Bool("speculation"), seed: c.Uint64("seed"),
						format: c.String("format"), json: c.String("json"), out: c.String("out"),
					}, c.App.Writer, c.App.ErrWriter)
				},
			},
			benchTypingCommand(),
			{
				Name:   benchProcess,
				Usage:  "one measurement of bench runtime: JSON from standard input to standard output",
				Hidden: true,
				Action: func(c *cli.Context) error {
					return runtime.Child(c.Context, c.App.Reader, c.App.Writer, openMeasured)
				},
			},
		},
	}
}

// benchProcess is the command that bench runtime starts for every measurement.
const benchProcess = "runtime-process"

type benchRuntimeFlags struct {
	model                           string
	weights, kv                     []string
	threads                         []int
	promptTokens, newTokens, repeat int
	prompt, hugePages               string
	uncached, speculation           bool
	seed                            uint64
	format, json, out               string
}

func (f *benchRuntimeFlags) check() error {
	for _, n := range []struct {
		flag       string
		value, min int
	}{{"prompt-tokens", f.promptTokens, 1}, {"new-tokens", f.newTokens, 2}, {"repeat", f.repeat, 1}} {
		if n.value < n.min {
			return usageError("--%s %d: expected at least %d", n.flag, n.value, n.min)
		}
	}
	if len(f.threads) == 0 {
		f.threads = slices.Compact([]int{1, gort.NumCPU()})
	}
	for i, n := range f.threads {
		if n < 1 || slices.Contains(f.threads[:i], n) {
			return usageError("--threads %d: expected different numbers of at least 1", n)
		}
	}
	for i, name := range f.kv {
		if !slices.Contains(infer.CacheFormats(), infer.Cache(name)) || slices.Contains(f.kv[:i], name) {
			return usageError("--kv-cache %s: expected different formats among auto, float32, bf16 and int8", name)
		}
	}
	if _, err := infer.ParseHugePages(f.hugePages); err != nil {
		return usageError("--huge-pages %s: expected auto, on or off", f.hugePages)
	}
	if !slices.Contains(runtime.Formats(), f.format) {
		return usageError("--format %s: expected one of %s", f.format, strings.Join(runtime.Formats(), ", "))
	}
	return nil
}

func benchRuntime(ctx context.Context, f benchRuntimeFlags, out, errOut io.Writer) error {
	if err := f.check(); err != nil {
		return err
	}
	formats, folders, err := benchWeights(f.model, f.weights)
	if err != nil {
		return err
	}
	for _, format := range formats {
		config, err := modelConfig(folders[format])
		if err != nil {
			return err
		}
		if n := f.promptTokens + f.newTokens; n > config.Positions {
			return usageError("--prompt-tokens %d --new-tokens %d: %d together, expected at most the context of %d of %s",
				f.promptTokens, f.newTokens, n, config.Positions, modelLabel(folders[format]))
		}
	}
	prompt := ""
	if f.prompt != "" {
		text, err := os.ReadFile(f.prompt)
		if err != nil {
			return fmt.Errorf("--prompt: %w", err)
		}
		prompt = string(text)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("measuring process: %w", err)
	}
	modes := []runtime.Mode{runtime.Cached}
	if f.uncached {
		modes = append(modes, runtime.Uncached)
	}
	if f.speculation {
		modes = append(modes, runtime.Speculative)
	}
	if err := prepareRuntime(f.json, f.out); err != nil {
		return err
	}
	bar := progress.New(errOut, "measuring", "measurements")
	report, err := runtime.Benchmark{
		Model: modelLabel(f.model), Variants: benchVariants(formats, f.kv, modes, f.threads),
		Source:       func(weights string) string { return folders[weights] },
		PromptTokens: f.promptTokens, NewTokens: f.newTokens, Prompt: prompt, HugePages: f.hugePages, Repeat: f.repeat, Seed: f.seed,
		Measure: runtime.Process([]string{self, "bench", benchProcess}), Progress: bar.Set,
	}.Run(ctx)
	bar.Close()
	if err != nil {
		return err
	}
	// What was measured is shown even where it proves something broken.
	return errors.Join(report.Write(out, f.format), writeRuntime(report, f.json, f.out), report.Err())
}

// benchVariants is runtime.Variants with formats of keys and values that may be auto.
func benchVariants(formats, kv []string, modes []runtime.Mode, threads []int) (vs []runtime.Variant) {
	for _, w := range formats {
		var used []string
		for _, name := range kv {
			if name = string(infer.Cache(name).For(infer.Weights(w))); !slices.Contains(used, name) {
				used = append(used, name)
			}
		}
		vs = append(vs, runtime.Variants([]string{w}, used, modes, threads)...)
	}
	return vs
}

// benchWeights reads --weights: the formats in order, and the folder of each.
func benchWeights(name string, weights []string) (formats []string, folders map[string]string, err error) {
	folders = map[string]string{}
	for _, w := range weights {
		format, folder, own := strings.Cut(strings.TrimSpace(w), "=")
		if !own {
			folder = name
		}
		switch {
		case !slices.Contains(infer.WeightFormats(), infer.Weights(format)):
			return nil, nil, usageError("--weights %s: expected formats among %s, each alone or with = and a folder", w, weightsText())
		case own && folder == "":
			return nil, nil, usageError("--weights %s: expected a folder after the =", w)
		case slices.Contains(formats, format):
			return nil, nil, usageError("--weights %s: %s is there already", w, format)
		}
		formats, folders[format] = append(formats, format), folder
	}
	if len(formats) == 0 {
		return nil, nil, usageError("--weights is empty, expected at least one format")
	}
	return formats, folders, nil
}

// openMeasured opens a model for a measuring process.
func openMeasured(ctx context.Context, s runtime.Spec) (runtime.Opened, error) {
	config, err := modelConfig(s.Model)
	if err != nil {
		return runtime.Opened{}, err
	}
	cache, err := cpu.ParseCacheFormat(s.KV)
	if err != nil {
		return runtime.Opened{}, err
	}
	m, tok, err := inference{model: s.Model, weights: infer.Weights(s.Weights), cache: infer.Cache(s.KV), threads: s.Threads, hugePages: infer.HugePages(s.HugePages)}.open(ctx)
	kv := config.Layers * cpu.NewCache(cache, config.KVHeads, config.HeadDim()).BytesPerToken()
	return runtime.Opened{Model: m, Tokenizer: tok, Config: config, KVPerToken: int64(kv)}, err
}

// prepareRuntime finds out before anything is measured whether writeRuntime will be able to write. It makes the folder.
func prepareRuntime(jsonFile, dir string) error {
	probe := func(name string) error {
		f, err := atomicfile.Create(name)
		if err != nil {
			return err
		}
		return f.Cleanup()
	}
	if jsonFile != "" {
		if err := probe(jsonFile); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	if dir != "" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		if err := probe(filepath.Join(dir, "runtime.json")); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return nil
}

// writeRuntime writes a report to files: JSON to one, unless "", and everything into a folder, unless "".
func writeRuntime(r *runtime.Report, jsonFile, dir string) error {
	write := func(name string, render func(io.Writer) error) error {
		var b bytes.Buffer
		if err := render(&b); err != nil {
			return err
		}
		return atomicfile.WriteFile(name, b.Bytes())
	}
	format := func(name string) func(io.Writer) error {
		return func(w io.Writer) error { return r.Write(w, name) }
	}
	if jsonFile != "" {
		if err := write(jsonFile, format("json")); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	if dir == "" {
		return nil
	}
	files := map[string]func(io.Writer) error{"runtime.json": format("json"), "runtime.md": format("markdown")}
	for _, f := range r.Figures() {
		files["runtime-"+f.Name+".svg"], files["runtime-"+f.Name+".png"] = f.WriteSVG, f.WritePNG
	}
	for name, render := range files {
		if err := write(filepath.Join(dir, name), render); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	return nil
}
