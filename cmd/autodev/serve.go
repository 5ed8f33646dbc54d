package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"autodev/compute/cuda"
	"autodev/infer"
	"autodev/serve"
	"autodev/serve/admin"
	"autodev/serve/assist"
	"autodev/serve/registry"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve completions, chat and assistance functions over HTTP, to the clients of many servers",
		Description: "Prints one line with the address when ready; logs requests, never their text, to standard error.\n" +
			"A first interrupt lets requests under way finish, for as long as --grace says. On Unix, SIGHUP reads the model again without dropping any.",
		Flags: append(slices.Concat(inferenceFlags(), operationsFlags(), assistFlags()),
			&cli.StringFlag{Name: "name", Usage: "the model's id for clients (default: its folder's name)"},
			&cli.IntFlag{Name: "concurrency", Usage: "completions that share passes over the weights, where there is memory for them", Value: 8},
			&cli.IntFlag{Name: "queue", Usage: "requests that may wait for their turn", Value: 64},
			&cli.StringSliceFlag{Name: "lora", Usage: "`NAME=FOLDER` of a PEFT LoRA adapter that is served as a model of its own, beside the model itself"},
			&cli.StringFlag{Name: "adapters", Usage: "`FOLDER` below which adapters may be loaded by name while the server runs (POST /v1/load_lora_adapter)"},
			&cli.BoolFlag{Name: "strict-models", Usage: "turn away requests for a model of another name, which otherwise get the one there is"},
			linesFlag(),
			healFlag(),
			reuseFlag(),
			fimOrderFlag(),
			speculateFlag(),
			&cli.IntFlag{Name: "prompt-cache", Usage: "`MIB` of memory for recent prompts, so that one that begins alike is not read again (-1: within 15 % of the weights, but one of the longest at least; 0: none)", Value: -1},
			&cli.StringFlag{Name: "log", Usage: "text, json or off", Value: "text"},
		),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("serve: found argument %q, expected flags only", c.Args().First())
			}
			f, err := inferenceOf(c)
			if err != nil {
				return err
			}
			order, err := fimOrder(c.String("fim-order"))
			if err != nil {
				return err
			}
			speculate, err := speculation(c.String("speculate"))
			if err != nil {
				return err
			}
			lines, err := linesOf(c.String("lines"))
			if err != nil {
				return err
			}
			reuse, err := reuseOf(c)
			if err != nil {
				return err
			}
			operations, err := operationsOf(c)
			if err != nil {
				return err
			}
			functions, err := assistance(c)
			if err != nil {
				return err
			}
			adapters, err := namedFolders(c.StringSlice("lora"))
			if err != nil {
				return err
			}
			return serveModel(c.Context, serveFlags{
				inference: f,
				shape:     infer.Shape{Lines: lines, NoOverlap: true, NoLoops: true}, heal: c.Bool("heal"), reuse: reuse, functions: functions,
				lora: adapters, adapters: c.String("adapters"), strict: c.Bool("strict-models"),
				operations: operations, name: c.String("name"), queue: c.Int("queue"), concurrency: c.Int("concurrency"), log: c.String("log"),
				order: order, speculate: speculate, promptCache: c.Int("prompt-cache"),
			}, c.App.Writer, c.App.ErrWriter)
		},
	}
}

func fimOrderFlag() cli.Flag {
	return &cli.StringFlag{Name: "fim-order", Usage: "of prompts with a suffix: psm, spm (the suffix first: typing goes on where the prompt ended) or auto (spm for models that know it)", Value: "auto"}
}

func speculateFlag() cli.Flag {
	return &cli.StringFlag{Name: "speculate", Usage: "guess tokens from the prompt and check several at a time, with the same result: auto (where it is faster) or off", Value: "auto"}
}

// fimOrder reads the value of fimOrderFlag.
func fimOrder(value string) (infer.Order, error) {
	o, ok := map[string]infer.Order{"auto": infer.OrderAuto, "psm": infer.PSM, "spm": infer.SPM}[value]
	if !ok {
		return 0, usageError("--fim-order %s: expected auto, psm or spm", value)
	}
	return o, nil
}

// speculation reads the value of speculateFlag.
func speculation(value string) (infer.Speculate, error) {
	s, ok := map[string]infer.Speculate{"auto": infer.SpeculateAuto, "off": infer.SpeculateOff}[value]
	if !ok {
		return 0, usageError("--speculate %s: expected auto or off", value)
	}
	return s, nil
}

type serveFlags struct {
	inference
	operations
	name, log   string
	shape       infer.Shape
	heal        bool
	reuse       infer.Reuse
	functions   *assist.Service
	lora        []registry.Adapter
	adapters    string
	strict      bool
	queue       int
	concurrency int
	order       infer.Order
	speculate   infer.Speculate
	promptCache int // MiB; −1: as much as is sensible
}

func serveModel(ctx context.Context, f serveFlags, out, errOut io.Writer) (err error) {
	if f.queue < 1 {
		return usageError("--queue %d: expected 1 or more", f.queue)
	}
	if f.concurrency < 1 {
		return usageError("--concurrency %d: expected 1 or more", f.concurrency)
	}
	if f.promptCache < -1 {
		return usageError("--prompt-cache %d: expected -1 or more", f.promptCache)
	}
	var logger *slog.Logger
	switch f.log {
	case "text":
		logger = slog.New(slog.NewTextHandler(errOut, nil))
	case "json":
		logger = slog.New(slog.NewJSONHandler(errOut, nil))
	case "off":
	default:
		return usageError("--log %s: expected text, json or off", f.log)
	}
	// A hangup while the model loads has it read again afterwards.
	signals, release := hangups()
	defer release()
	// Listening comes first: a port in use must not cost the time to load a model.
	around, err := f.operations.start(ctx, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, around.Close()) }()
	if f.name == "" {
		f.name = modelID(f.model, f.adapter)
	}
	// A process that has lost its card has no use for it: what started the service is to start it again.
	ctx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	f.lost = lose
	models := registry.New(f.strict)
	defer models.Close()
	manager, err := registry.NewManager(ctx, models, f.load)
	if err != nil {
		return err
	}
	for _, a := range f.lora {
		if err := manager.LoadAdapter(ctx, a.Name, a.Path); err != nil {
			return err
		}
	}
	defer reloadOn(ctx, signals, manager, logger)()
	s, err := serve.Operate(models, serve.Options{
		Logger: logger, Limits: around.limits, Announce: f.announce, Grace: f.grace,
		Protocols: append(serve.ProtocolsWith(serve.Parts{Events: serve.Recorder(around.events), Assist: f.functions}), f.functions.Protocol(), admin.New(manager, f.adapters)),
	}, around.Operations)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(out, around.ready(f.name)); err != nil {
		return err
	}
	if err := notifyReady(); err != nil {
		return err
	}
	err = s.Serve(ctx, around.listeners...)
	if lost := (*cuda.LostError)(nil); errors.As(context.Cause(ctx), &lost) {
		err = errors.Join(err, lost)
	}
	return err
}
