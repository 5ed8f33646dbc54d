package main

import (
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/serve/guard"
)

func keysCommand() *cli.Command {
	file := &cli.StringFlag{Name: "file", Usage: "the keys are at `PATH`, which autodev serve --api-keys reads; it notices changes by itself"}
	return &cli.Command{
		Name:  "keys",
		Usage: "make, list and revoke the API keys of a server",
		Description: "A key is shown once, when it is made. The file has its SHA-256 alone: a key is 160 random bits, which nobody finds by\n" +
			"trying, so that a slow hash would protect nothing more.",
		Subcommands: []*cli.Command{
			{
				Name:      "add",
				Usage:     "make a key and print it",
				ArgsUsage: "NAME",
				Flags: []cli.Flag{
					file,
					&cli.IntFlag{Name: "requests-per-minute", Usage: "at most `N` (0: no limit)"},
					&cli.Int64Flag{Name: "tokens-per-day", Usage: "at most `N`, of prompts and answers (0: no limit)"},
					&cli.IntFlag{Name: "concurrent", Usage: "at most `N` requests at the same time (0: no limit)"},
					&cli.BoolFlag{Name: "admin", Usage: "the key may also exchange models and adapters while the server runs"},
				},
				Action: keysAdd,
			},
			{Name: "list", Usage: "print the names and limits of the keys", Flags: []cli.Flag{file}, Action: keysList},
			{Name: "revoke", Usage: "remove a key", ArgsUsage: "NAME", Flags: []cli.Flag{file}, Action: keysRevoke},
		},
	}
}

// keysArgs returns the file and, of a command that takes one, the name.
func keysArgs(c *cli.Context, names int) (file, name string, err error) {
	if file = c.String("file"); file == "" {
		return "", "", usageError("--file is missing, expected the file of keys")
	}
	if c.Args().Len() != names {
		return "", "", usageError("keys %s: found %d arguments, expected %d", c.Command.Name, c.Args().Len(), names)
	}
	return file, c.Args().First(), nil
}

func keysAdd(c *cli.Context) error {
	file, name, err := keysArgs(c, 1)
	if err != nil {
		return err
	}
	key := guard.Key{
		Name: name, Created: time.Now(), Admin: c.Bool("admin"),
		Limits: guard.Limits{RequestsPerMinute: c.Int("requests-per-minute"), TokensPerDay: c.Int64("tokens-per-day"), Concurrent: c.Int("concurrent")},
	}
	if err := key.Check(); err != nil {
		return misuse{err}
	}
	secret, err := guard.AddKey(file, key)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, secret)
	return err
}

func keysList(c *cli.Context) error {
	file, _, err := keysArgs(c, 0)
	if err != nil {
		return err
	}
	keys, err := guard.ReadKeys(file)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "name\tcreated\trequests/min\ttokens/day\tat once\tadmin")
	limit := func(n int64) string {
		if n == 0 {
			return "–"
		}
		return strconv.FormatInt(n, 10)
	}
	for _, k := range keys {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, k.Created.Format(time.DateOnly), limit(int64(k.Limits.RequestsPerMinute)), limit(k.Limits.TokensPerDay), limit(int64(k.Limits.Concurrent)), map[bool]string{true: "yes", false: "–"}[k.Admin])
	}
	return t.Flush()
}

func keysRevoke(c *cli.Context) error {
	file, name, err := keysArgs(c, 1)
	if err != nil {
		return err
	}
	return guard.RevokeKey(file, name)
}
