package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"autodev/demo"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "teach the embedded model Go, from the standard library on this machine, and let it complete code",
		Description: "Full fine-tuning and LoRA with progress, the perplexity table of both, a server on the result and three completions.\n" +
			"At most ten minutes on two cores; needs no network.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep models and records in `DIR` (default: a temporary folder that is removed)"},
			&cli.StringFlag{Name: "goroot", Usage: "learn from the Go toolchain in `DIR` (default: go env GOROOT)"},
			&cli.DurationFlag{Name: "budget", Usage: "for the two trainings; on a slow machine they take fewer steps", Value: 6 * time.Minute},
			&cli.IntFlag{Name: "steps", Usage: "of each training, however long they take (default: the recipe's, within the budget)"},
			&cli.IntFlag{Name: "threads", Usage: "0 takes all processors"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("demo: found argument %q, expected flags only", c.Args().First())
			}
			if c.Int("steps") < 0 || c.Int("threads") < 0 || c.Duration("budget") <= 0 {
				return usageError("demo: --steps and --threads expect 0 or more, --budget more than 0")
			}
			return demo.Run(c.Context, demo.Options{
				Out: c.App.Writer, ErrOut: c.App.ErrWriter, Open: openModel, Dir: c.String("dir"), GoRoot: c.String("goroot"),
				Budget: c.Duration("budget"), Steps: c.Int("steps"), Threads: c.Int("threads"),
			})
		},
	}
}
