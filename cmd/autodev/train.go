package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
	"autodev/configs"
	"autodev/train"
)

func trainCommand() *cli.Command {
	return &cli.Command{
		Name:  "train",
		Usage: "train a model as a recipe says: full or LoRA",
		Description: "The recipe is a YAML file (see configs/). A run that was stopped or killed goes on where it was when the same command is\n" +
			"given again, and ends with the same bytes. The finished model or adapter is in the folder final of the output.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "the recipe, a YAML `FILE`"},
			&cli.GenericFlag{Name: "set", Usage: "override a setting of the recipe, `KEY.PATH=VALUE` (any number of times)", Value: &settings{}},
			&cli.StringFlag{Name: "out", Usage: "output `DIR`, instead of the recipe's"},
			&cli.StringFlag{Name: "resume", Usage: "auto goes on from the newest checkpoint in the output folder, never refuses to", Value: string(train.ResumeAuto)},
			&cli.IntFlag{Name: "threads", Usage: "processor threads, instead of the recipe's; 0 takes all"},
			&cli.StringFlag{Name: "device", Usage: "`DEVICE` to train on, instead of the recipe's: " + devices.Expected},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unexpected argument %q; settings are given as --set KEY.PATH=VALUE", c.Args().First())
			}
			resume := train.Resume(c.String("resume"))
			if resume != train.ResumeAuto && resume != train.ResumeNever {
				return usageError("--resume: found %q, expected auto or never", resume)
			}
			if c.Int("threads") < 0 {
				return usageError("--threads %d: expected 0 or more", c.Int("threads"))
			}
			var sets []string
			if c.IsSet("out") {
				sets = append(sets, "out="+quoteYAML(c.String("out")))
			}
			if c.IsSet("threads") {
				sets = append(sets, fmt.Sprintf("threads=%d", c.Int("threads")))
			}
			if c.IsSet("device") {
				if _, err := devices.Parse(c.String("device")); err != nil {
					return usageError("--device %s: expected %s", c.String("device"), devices.Expected)
				}
				sets = append(sets, "device="+quoteYAML(c.String("device")))
			}
			r, err := loadRecipe(c, sets...)
			if err != nil {
				return err
			}
			if r.Out == "" {
				return usageError("%s: out: found nothing, expected a folder for the results, here or with --out", c.String("config"))
			}
			return runTraining(c.Context, r, resume, c.App.Writer, c.App.ErrWriter)
		},
	}
}

// settings collects --set as it is given: urfave's lists would split values at commas.
type settings []string

func (s *settings) Set(v string) error { *s = append(*s, v); return nil }
func (s *settings) String() string     { return "" }

// quoteYAML makes a value of --set that is text whatever it looks like.
func quoteYAML(s string) string { return fmt.Sprintf("%q", s) }

func runTraining(ctx context.Context, r configs.Recipe, resume train.Resume, out, progress io.Writer) error {
	sum, err := train.Run(ctx, r, train.Options{Resume: resume, Open: openBase, Progress: progress})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d steps, %d tokens", sum.Steps, sum.Tokens)
	if sum.Steps > sum.Resumed {
		fmt.Fprintf(out, ", last loss %.4f, %.0f tokens/s", sum.Loss, sum.TokensPerSecond)
	}
	if sum.Skipped > 0 {
		fmt.Fprintf(out, ", %d steps skipped for overflowing float16", sum.Skipped)
	}
	if sum.Eval != nil {
		fmt.Fprintf(out, ", perplexity %.4f", sum.Eval.Perplexity)
	}
	_, err = fmt.Fprintf(out, " in %v, %.2f GB planned\n%s\n", sum.Duration.Round(time.Second/10), float64(sum.PlannedBytes)/1e9, sum.Final)
	return err
}
