package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
	"autodev/configs"
	"autodev/model"
	"autodev/models"
	"autodev/train"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name:  "plan",
		Usage: "say how much memory a recipe needs, before anything is allocated",
		Description: "Makes the plans that a run of the recipe would make, for the CPU and for CUDA, with and without gradient checkpointing, and\n" +
			"says what they hold, what blocks keep in train.memory_gb, and the largest micro-batch that fits. Of a model only config.json and\n" +
			"the headers of its weights are read, of the data nothing.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "the recipe, a YAML `FILE`"},
			&cli.GenericFlag{Name: "set", Usage: "override a setting of the recipe, `KEY.PATH=VALUE` (any number of times)", Value: &settings{}},
			&cli.StringFlag{Name: "device", Usage: "plan for this kind of device only: cpu or cuda"},
			&cli.StringFlag{Name: "memory", Usage: "of the device, `SIZE` in bytes or with KB, MB or GB (default: of the CPU, this machine's); without --device, CUDA's"},
			&cli.StringFlag{Name: "format", Usage: "text or json", Value: "text"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unexpected argument %q; settings are given as --set KEY.PATH=VALUE", c.Args().First())
			}
			o := train.MemoryOptions{Open: openShape, Memory: map[devices.Kind]int64{devices.CPU: devices.Memory()}}
			given := devices.CUDA
			switch d := devices.Kind(c.String("device")); d {
			case "":
			case devices.CPU, devices.CUDA:
				o.Devices, given = []devices.Kind{d}, d
			default:
				return usageError("--device %s: expected cpu or cuda", d)
			}
			if c.IsSet("memory") {
				n, err := parseBytes(c.String("memory"))
				if err != nil {
					return usageError("--memory: %w", err)
				}
				o.Memory[given] = n
			}
			if f := c.String("format"); f != "text" && f != "json" {
				return usageError("--format %s: expected text or json", f)
			}
			r, err := loadRecipe(c)
			if err != nil {
				return err
			}
			return plan(c.Context, r, o, c.String("format") == "json", c.App.Writer)
		},
	}
}

// loadRecipe reads the recipe that --config names with what --set changes.
func loadRecipe(c *cli.Context, sets ...string) (configs.Recipe, error) {
	if c.String("config") == "" {
		return configs.Recipe{}, usageError("--config is missing: the recipe, a YAML file (configs/ has some to start from)")
	}
	r, err := configs.Load(c.String("config"), append([]string(*c.Generic("set").(*settings)), sets...)...)
	var unreadable *fs.PathError
	if err != nil && !errors.As(err, &unreadable) {
		err = misuse{err}
	}
	return r, err
}

// openShape opens the model called name without its weights, which need not be there, nor need the tokenizer.
func openShape(_ context.Context, name string) (*train.Base, error) {
	config, err := modelConfig(name)
	if err != nil {
		return nil, err
	}
	b := &train.Base{Config: config}
	switch f, err := modelFolder(name); {
	case err == nil:
		// The headers fit the configuration.
		if err := f.Close(); err != nil {
			return nil, err
		}
	case !errors.Is(err, model.ErrNoWeights):
		return nil, err
	}
	fsys, _, err := models.Open(name)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(model.TokenizerFiles(), func(file string) bool { _, err := fs.Stat(fsys, file); return err == nil }) {
		b.Tokenizer, err = openTokenizer(name)
	}
	return b, err
}

func plan(ctx context.Context, r configs.Recipe, o train.MemoryOptions, asJSON bool, out io.Writer) error {
	m, err := train.PlanMemory(ctx, r, o)
	if err != nil {
		return err
	}
	if !asJSON {
		return m.WriteTable(out)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(b))
	return err
}
