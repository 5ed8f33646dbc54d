package main

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"autodev/model"
)

func loraCommand() *cli.Command {
	return &cli.Command{
		Name:        "lora",
		Usage:       "work with LoRA adapters",
		Subcommands: []*cli.Command{loraMergeCommand()},
	}
}

func loraMergeCommand() *cli.Command {
	return &cli.Command{
		Name:  "merge",
		Usage: "add a PEFT LoRA adapter to its model's weights and write the result as a model",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "model folder `DIR`; default the embedded one"},
			&cli.StringFlag{Name: "adapter", Usage: "adapter folder `DIR`"},
			&cli.StringFlag{Name: "out", Usage: "folder `DIR` of the merged model; it must not hold anything yet"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unexpected argument %q", c.Args().First())
			}
			for _, name := range []string{"adapter", "out"} {
				if c.String(name) == "" {
					return usageError("--%s is missing", name)
				}
			}
			return mergeAdapter(c.Context, c.String("model"), c.String("adapter"), c.String("out"), c.App.Writer)
		},
	}
}

func mergeAdapter(ctx context.Context, name, adapter, out string, w io.Writer) error {
	if err := mustBeNew(out); err != nil {
		return err
	}
	ckpt, err := openWeights(ctx, name)
	if err != nil {
		return err
	}
	a, err := mergeInto(ckpt, name, adapter)
	if err != nil {
		return err
	}
	if err := model.Save(ctx, out, ckpt.Config, ckpt.Weights, model.SaveOptions{Assets: ckpt.FS}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s: %d modules merged\n", out, len(a.Modules))
	return err
}
