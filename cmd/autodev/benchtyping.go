package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	gort "runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/eval/typing"
	"autodev/infer"
	"autodev/internal/atomicfile"
	"autodev/internal/edits"
	"autodev/internal/progress"
	"autodev/serve"
	"autodev/serve/registry"
	"autodev/serve/wire"
)

func benchTypingCommand() *cli.Command {
	return &cli.Command{
		Name:  "typing",
		Usage: "time to a suggestion while somebody types, beside llama.cpp's server",
		Description: "Replays how files are edited, with mistakes, jumps and suggestions taken, against a server in this process and, where asked for, llama.cpp's:\n" +
			"every keystroke asks for a suggestion and cancels the one before. Answers are compared with those of an engine without cache and\n" +
			"speculation; the command fails where one differs.",
		Flags: append(inferenceFlags(),
			&cli.StringFlag{Name: "data", Usage: "`FOLDER` of files to type, in the form that autodev data reads (default: this program's own)"},
			&cli.StringSliceFlag{Name: "language", Usage: "of the files", Value: cli.NewStringSlice(edits.Languages()...)},
			&cli.IntFlag{Name: "files", Usage: "to type in", Value: 4},
			&cli.IntFlag{Name: "write", Usage: "lines that are written in a place of each file, and half as many in a second", Value: 8},
			&cli.Uint64Flag{Name: "seed", Usage: "of what the user does"},
			&cli.Float64Flag{Name: "speed", Usage: "how many times as fast as people the user types", Value: 1},
			&cli.DurationFlag{Name: "debounce", Usage: "from a keystroke to its request", Value: 50 * time.Millisecond},
			&cli.IntFlag{Name: "max-tokens", Usage: "of a suggestion", Value: 24},
			&cli.StringFlag{Name: "suggest", Usage: "model: what the models say; script: what is in the files, at the cost of choosing these tokens, for models with random weights", Value: "model"},
			&cli.Float64Flag{Name: "known", Usage: "share of lines that the script knows from their beginning; others it knows from somewhere in them", Value: 0.35},
			linesFlag(),
			healFlag(),
			reuseFlag(),
			fimOrderFlag(),
			speculateFlag(),
			&cli.StringFlag{Name: "url", Usage: "`ADDRESS` of a server of ours under way, with the same model and options, in place of one in this process: http://127.0.0.1:8000"},
			&cli.StringFlag{Name: "llama-server", Usage: "`PROGRAM` of llama.cpp's, to compare with"},
			&cli.StringFlag{Name: "gguf", Usage: "its model `FILE`, of the same weights (autodev model convert --to gguf)"},
			&cli.StringFlag{Name: "llama-args", Usage: "more `ARGUMENTS` for it, beside --spm-infill and one slot"},
			&cli.StringFlag{Name: "llama-url", Usage: "`ADDRESS` of one under way"},
			&cli.IntFlag{Name: "check", Usage: "answers compared with an engine without cache and speculation", Value: 20},
			&cli.StringFlag{Name: "format", Usage: "printed: " + strings.Join(typing.Formats(), ", "), Value: "table"},
			&cli.StringFlag{Name: "json", Usage: "write everything measured to `FILE` as JSON"},
		),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("bench typing: found argument %q, expected flags only", c.Args().First())
			}
			f := benchTypingFlags{
				data: c.String("data"), languages: c.StringSlice("language"), files: c.Int("files"), write: c.Int("write"), seed: c.Uint64("seed"), speed: c.Float64("speed"),
				debounce: c.Duration("debounce"), tokens: c.Int("max-tokens"), suggest: c.String("suggest"), known: c.Float64("known"),
				url: c.String("url"), llamaServer: c.String("llama-server"), gguf: c.String("gguf"), llamaArgs: strings.Fields(c.String("llama-args")), llamaURL: c.String("llama-url"),
				check: c.Int("check"), format: c.String("format"), json: c.String("json"),
			}
			if err := f.valid(); err != nil {
				return err
			}
			var err error
			if f.inference, err = inferenceOf(c); err != nil {
				return err
			}
			if f.order, err = fimOrder(c.String("fim-order")); err != nil {
				return err
			}
			if f.speculate, err = speculation(c.String("speculate")); err != nil {
				return err
			}
			if f.reuse, err = reuseOf(c); err != nil {
				return err
			}
			lines, err := linesOf(c.String("lines"))
			if err != nil {
				return err
			}
			if f.heal = c.Bool("heal"); f.suggest == "model" {
				f.shape = infer.Shape{Lines: lines, NoOverlap: true, NoLoops: true}
			}
			return benchTyping(c.Context, f, c.App.Writer, c.App.ErrWriter)
		},
	}
}

type benchTypingFlags struct {
	inference
	data                        string
	languages                   []string
	files, write, tokens, check int
	seed                        uint64
	speed, known                float64
	debounce                    time.Duration
	suggest                     string
	shape                       infer.Shape
	heal                        bool
	reuse                       infer.Reuse
	order                       infer.Order
	speculate                   infer.Speculate
	url                         string
	llamaServer, gguf, llamaURL string
	llamaArgs                   []string
	format, json                string
}

// spareTokens are for control tokens, mistakes, and for what is encoded in more tokens where the cursor divides it.
const spareTokens = 32

func (f *benchTypingFlags) valid() error {
	for _, n := range []struct {
		flag       string
		value, min int
	}{{"files", f.files, 1}, {"write", f.write, 2}, {"max-tokens", f.tokens, 1}, {"check", f.check, 0}} {
		if n.value < n.min {
			return usageError("--%s %d: expected at least %d", n.flag, n.value, n.min)
		}
	}
	switch {
	case !(f.speed > 0):
		return usageError("--speed %v: expected a positive number", f.speed)
	case f.debounce < 0:
		return usageError("--debounce %v: expected 0 or more", f.debounce)
	case !(f.known >= 0 && f.known <= 1):
		return usageError("--known %v: expected 0 to 1", f.known)
	case f.suggest != "model" && f.suggest != "script":
		return usageError("--suggest %s: expected model or script", f.suggest)
	case f.suggest == "script" && f.url != "":
		return usageError("--suggest script: found with --url, expected a server in this process: others follow no script")
	case (f.llamaServer == "") != (f.gguf == ""):
		return usageError("--llama-server and --gguf: expected both or neither")
	case f.llamaServer != "" && f.llamaURL != "":
		return usageError("--llama-server: found with --llama-url, expected one of them")
	case !slices.Contains(typing.Formats(), f.format):
		return usageError("--format %s: expected one of %s", f.format, strings.Join(typing.Formats(), ", "))
	}
	// Both are needed only after minutes.
	for _, name := range []string{f.llamaServer, f.gguf} {
		if name == "" {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			return err
		}
	}
	return nil
}

func benchTyping(ctx context.Context, f benchTypingFlags, out, errOut io.Writer) (err error) {
	if f.json != "" {
		if err := prepareRuntime(f.json, ""); err != nil {
			return err
		}
	}
	m, tok, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	if tok == nil || !m.Info().FIM {
		return fmt.Errorf("%s: the model cannot fill in: expected one whose tokenizer has fill-in-the-middle tokens", f.label())
	}
	scripted := f.suggest == "script"
	// llama.cpp's server shortens no text that does not fit.
	fits := func(text string) bool {
		return typing.Suits(text, f.write) && len(tok.Encode(text))+f.tokens+spareTokens <= m.Context()
	}
	texts, err := f.texts(ctx, fits)
	if err != nil {
		return err
	}
	traces := typing.Make(texts, typing.TraceOptions{Seed: f.seed, Lines: f.write, Accept: scripted, Known: f.known})
	if traces = traces[:min(len(traces), f.files)]; len(traces) == 0 {
		return fmt.Errorf("--data %s: no file is suited to being typed in: expected some of %s that fit into the model's context of %d tokens", f.data, typing.Suited, m.Context())
	}
	o := typing.Options{Debounce: f.debounce, Speed: f.speed, MaxTokens: f.tokens, Scripted: scripted, Exact: f.reuse != infer.ReuseShown, Tokens: func(s string) []int32 { return tok.Encode(s) }}
	ours := typing.Server{Name: "autodev", URL: strings.TrimSuffix(f.url, "/")}
	if f.url == "" {
		var stop func() error
		if stop, err = f.serve(ctx, m, &ours); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	report := &typing.Report{Model: f.label(), Date: time.Now().UTC(), Seed: f.seed, Speed: f.speed, Debounce: f.debounce, Tokens: f.tokens, Scripted: scripted, Traces: traces}
	servers := []typing.Server{ours}
	llama, stopLlama, err := f.startLlama(ctx, m.Context())
	if err != nil {
		return err
	}
	defer stopLlama()
	if llama != nil {
		servers = append(servers, *llama)
	}
	bar := progress.New(errOut, "typing", "keystrokes")
	timed := o
	timed.Progress = bar.Set
	report.Runs, err = typing.Replay(ctx, traces, servers, timed)
	bar.Close()
	if err != nil {
		return err
	}
	for _, run := range report.Runs {
		report.Figures = append(report.Figures, typing.FiguresOf(run, traces))
	}
	if f.check > 0 {
		bar := progress.New(errOut, "comparing", "answers")
		o := o
		o.Progress = bar.Set
		report.Checked, err = typing.Check(ctx, report.Runs[0], ours, f.reference(m), f.check, o)
		bar.Close()
		if err != nil {
			return err
		}
	}
	if f.json != "" {
		var b bytes.Buffer
		if err := report.Write(&b, "json"); err != nil {
			return err
		}
		if err := atomicfile.WriteFile(f.json, b.Bytes()); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	// What was measured is shown even where it proves something broken.
	return errors.Join(report.Write(out, f.format), report.Checked.Err())
}

// texts returns the files that traces may be made of.
func (f benchTypingFlags) texts(ctx context.Context, fits func(string) bool) (texts []string, err error) {
	if f.data == "" {
		return slices.DeleteFunc(typing.Samples(), func(text string) bool { return !fits(text) }), nil
	}
	// The languages in turns: as many files as asked for should be of several.
	byLanguage := make([][]string, len(f.languages))
	for i, language := range f.languages {
		err := edits.Files(ctx, f.data, language, func(text string) bool {
			if fits(text) {
				byLanguage[i] = append(byLanguage[i], text)
			}
			return len(byLanguage[i]) < f.files
		})
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
	}
	for n := range f.files {
		for _, all := range byLanguage {
			if n < len(all) {
				texts = append(texts, all[n])
			}
		}
	}
	return texts, nil
}

// serve starts a server of m in this process.
func (f benchTypingFlags) serve(ctx context.Context, m *infer.Model, s *typing.Server) (stop func() error, err error) {
	var l net.Listener
	if l, err = serve.Listen(ctx, "127.0.0.1:0"); err != nil {
		return nil, err
	}
	engine := infer.NewEngine(m, infer.EngineOptions{Reuse: f.reuse})
	watched := typing.Watch(engine)
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "typing", Engine: watched, Order: f.order, Speculate: f.speculate, Shape: f.shape, Heal: f.heal}}, nil)
	s.URL, s.Expect, s.Count = "http://"+l.Addr().String(), watched.Expect, watched.Count
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- serve.New(models, serve.Options{}).Serve(ctx, l) }()
	return func() error {
		cancel()
		err := <-done
		engine.Close()
		return err
	}, nil
}

// reference returns an engine that keeps nothing and guesses nothing.
func (f benchTypingFlags) reference(m *infer.Model) typing.Reference {
	return func(ctx context.Context, prefix, suffix string, tokens int) (string, error) {
		r, err := m.Generate(ctx, infer.Request{
			Prompt: infer.Prompt{Prefix: prefix, Suffix: suffix, FIM: infer.FIMAlways, Order: f.order, Heal: f.heal}, MaxTokens: tokens, Shape: f.shape, Speculate: infer.SpeculateOff,
		}, nil)
		return r.Text, err
	}
}

// startLlama returns llama.cpp's server, nil if there is to be none, and what ends it.
func (f benchTypingFlags) startLlama(ctx context.Context, context int) (s *typing.Server, stop func(), err error) {
	url, stop := strings.TrimSuffix(f.llamaURL, "/"), func() {}
	if f.llamaServer != "" {
		threads := f.threads
		if threads == 0 {
			threads = gort.NumCPU()
		}
		l, err := typing.StartLlama(ctx, typing.LlamaOptions{Program: f.llamaServer, Model: f.gguf, Threads: threads, Context: context, SPM: f.order != infer.PSM, Args: f.llamaArgs})
		if err != nil {
			return nil, nil, err
		}
		url, stop = l.URL, l.Close
	}
	if url == "" {
		return nil, stop, nil
	}
	return &typing.Server{Name: "llama.cpp", URL: url, Count: typing.CountLlama(url)}, stop, nil
}
