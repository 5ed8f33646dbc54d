package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// flagsFirst moves flags that follow arguments before them, since urfave/cli stops looking for flags at the first argument and
// people write `autodev data cat SRC --format jsonl`. What follows "--" stays where it is.
func flagsFirst(a *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out := args[:1:1]
	rest := args[1:]
	commands := a.Commands
	var flags []cli.Flag
	for len(rest) > 0 {
		c := find(commands, rest[0])
		if c == nil {
			break
		}
		out = append(out, rest[0])
		rest, commands, flags = rest[1:], c.Subcommands, c.Flags
	}
	var options, words []string
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			words = append(append(words, arg), rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		options = append(options, arg)
		if strings.Contains(arg, "=") || !takesValue(flags, strings.TrimLeft(arg, "-")) {
			continue
		}
		if len(rest) == 0 {
			// Its value is missing. Without arguments behind it, urfave/cli sees that too.
			return append(out, options...)
		}
		options = append(options, rest[0])
		rest = rest[1:]
	}
	return append(append(out, options...), words...)
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				d, ok := f.(cli.DocGenerationFlag)
				return ok && d.TakesValue()
			}
		}
	}
	return false
}
