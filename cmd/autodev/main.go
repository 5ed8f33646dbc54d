// Command autodev takes a code language model from a checkpoint to a completion in an editor: it trains, evaluates and
// serves. Each subcommand is one file: flags → options → one call into the library → print. No logic lives here.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks the command to finish; a second one ends the process, as it would without us.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args, streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// streams are what a command reads and prints to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	a := app()
	a.Reader, a.Writer, a.ErrWriter = s.in, s.out, s.err
	return report(ctx, s.err, a.RunContext(ctx, flagsFirst(a, args)))
}

func app() *cli.App {
	a := &cli.App{
		Name:     "autodev",
		Usage:    "fine-tune, evaluate and serve code language models",
		Version:  version(),
		Commands: commands(),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unknown command %q; autodev --help lists the commands", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		// Errors are reported once, by run.
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           onUsageError,
		HideHelpCommand:        true,
		Suggest:                true,
		EnableBashCompletion:   true,
		UseShortOptionHandling: false,
	}
	for _, c := range a.Commands {
		prepare(c)
	}
	return a
}

func commands() []*cli.Command {
	return []*cli.Command{
		trainCommand(),
		planCommand(),
		evalCommand(),
		benchCommand(),
		serveCommand(),
		keysCommand(),
		healthCommand(),
		completeCommand(),
		assistCommand(),
		demoCommand(),
		modelCommand(),
		loraCommand(),
		dataCommand(),
		tokenizeCommand(),
		tokenizerCommand(),
	}
}

// prepare gives a command and its subcommands the common handling of misuse.
func prepare(c *cli.Command) {
	c.OnUsageError = onUsageError
	c.HideHelpCommand = true
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = func(ctx *cli.Context) error {
			if ctx.Args().Present() {
				return usageError("unknown command %q; autodev %s --help lists the commands", ctx.Args().First(), c.Name)
			}
			return cli.ShowSubcommandHelp(ctx)
		}
	}
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error {
	var m misuse
	if errors.As(err, &m) {
		return err
	}
	// The flag package writes -name, where people write --name.
	return misuse{errors.New(oneDash.ReplaceAllString(err.Error(), " --$1"))}
}

var oneDash = regexp.MustCompile(` -([a-z])`)

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			rev = " " + s.Value
		}
	}
	return info.Main.Version + rev
}
