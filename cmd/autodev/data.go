package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"autodev/data"
	"autodev/data/fim"
	"autodev/data/pack"
	"autodev/data/source"
	"autodev/models"
)

func dataCommand() *cli.Command {
	return &cli.Command{
		Name:  "data",
		Usage: "look at training and evaluation data",
		Description: "SRC is a .parquet or .jsonl(.gz) file, a quoted glob, a folder of such files, a folder of source code (.gitignore is respected), or an\n" +
			"http(s) URL of a .parquet or .jsonl file.",
		Subcommands: []*cli.Command{
			{
				Name:      "cat",
				Usage:     "print documents",
				ArgsUsage: "SRC…",
				Flags:     append(sourceFlags(), &cli.StringFlag{Name: "format", Value: "jsonl", Usage: "`FORMAT` to print: jsonl (repository, path, language, content) or text"}),
				Action:    dataCat,
			},
			{
				Name:      "stats",
				Usage:     "print a table of documents, bytes, lines and repositories by language",
				ArgsUsage: "SRC…",
				Flags: append(sourceFlags(),
					&cli.StringFlag{Name: "tokenizer", Usage: "also count tokens with the tokenizer at `PATH` (tokenizer.json or its folder)"},
					&cli.StringFlag{Name: "format", Value: "table", Usage: "`FORMAT` to print: table or json"}),
				Action: dataStats,
			},
			{
				Name:      "windows",
				Usage:     "print the training windows that documents become, decoded",
				ArgsUsage: "SRC…",
				Flags: append(sourceFlags(),
					&cli.StringFlag{Name: "tokenizer", Usage: "tokenizer at `PATH` (tokenizer.json or its folder)", Value: models.Tiny},
					&cli.IntFlag{Name: "sequence", Value: 1024, Usage: "`TOKENS` in a window"},
					&cli.IntFlag{Name: "count", Value: 2, Usage: "print `N` windows"},
					&cli.Uint64Flag{Name: "seed", Usage: "random `SEED`"},
					&cli.Float64Flag{Name: "fim-rate", Value: fim.Default().Rate, Usage: "`PROBABILITY` of a FIM example"},
					&cli.Float64Flag{Name: "fim-spm-rate", Value: fim.Default().SPMRate, Usage: "`PROBABILITY` that it is suffix first"},
					&cli.StringFlag{Name: "fim-level", Value: string(fim.Char), Usage: "cut at `LEVEL`: char or token"},
					&cli.BoolFlag{Name: "cross-documents", Usage: "string documents together as the original protocol does"}),
				Action: dataWindows,
			},
			fromEventsCommand(),
		},
	}
}

// sourceFlags are the flags that say how a source is read.
func sourceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "column", Value: "content", Usage: "column or JSON `KEY` of the text"},
		&cli.StringSliceFlag{Name: "language", Usage: "only documents of `LANGUAGE`; may be repeated"},
		&cli.StringFlag{Name: "input", Value: source.FormatAuto, Usage: "what SRC is, if its name does not say: `KIND` parquet, jsonl or folder"},
		&cli.IntFlag{Name: "max-docs", Usage: "read only the first `N` documents"},
	}
}

func openSource(c *cli.Context) (*source.Set, error) {
	if !c.Args().Present() {
		return nil, usageError("%s: no SRC is given; see autodev data %s --help", c.Command.Name, c.Command.Name)
	}
	if c.Int("max-docs") < 0 {
		return nil, usageError("--max-docs %d: expected 0 (all) or more", c.Int("max-docs"))
	}
	if formats := []string{source.FormatAuto, source.FormatParquet, source.FormatJSONL, source.FormatFolder}; !slices.Contains(formats, c.String("input")) {
		return nil, usageError("--input %s: expected one of %s", c.String("input"), strings.Join(formats, ", "))
	}
	return source.Open(c.Context, source.Options{
		Column:       c.String("column"),
		Languages:    c.StringSlice("language"),
		Format:       c.String("input"),
		MaxDocuments: c.Int("max-docs"),
	}, c.Args().Slice()...)
}

// logSkipped says what was left out.
func logSkipped(set *source.Set) {
	skipped := set.Skipped()
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		slog.Warn("documents skipped", "count", skipped[reason], "reason", reason)
	}
}

func dataCat(c *cli.Context) error {
	format := c.String("format")
	if format != "jsonl" && format != "text" {
		return usageError("--format %q: expected jsonl or text", format)
	}
	set, err := openSource(c)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(c.App.Writer)
	for d, err := range data.Documents(c.Context, set) {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if err := printDocument(out, format, &d); err != nil {
			return err
		}
	}
	logSkipped(set)
	return out.Flush()
}

func printDocument(w io.Writer, format string, d *data.Document) error {
	if format == "text" {
		_, err := fmt.Fprintf(w, "==> %s %s (%s) <==\n%s\n", d.Repository, d.Path, d.Language, strings.TrimSuffix(d.Content, "\n"))
		return err
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Repository string  `json:"repository,omitempty"`
		Path       string  `json:"path,omitempty"`
		Language   string  `json:"language,omitempty"`
		Content    string  `json:"content"`
		IDs        []int32 `json:"input_ids,omitempty"`
	}{d.Repository, d.Path, d.Language, d.Content, d.IDs})
}

func dataStats(c *cli.Context) error {
	format := c.String("format")
	if format != "table" && format != "json" {
		return usageError("--format %q: expected table or json", format)
	}
	var encode func(string) []int32
	if name := c.String("tokenizer"); name != "" {
		t, err := openTokenizer(name)
		if err != nil {
			return err
		}
		encode = t.Encode
	}
	set, err := openSource(c)
	if err != nil {
		return err
	}
	stats, err := data.CollectStats(c.Context, set, encode)
	if err != nil {
		return err
	}
	logSkipped(set)
	if format == "json" {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Languages []data.LanguageStats `json:"languages"`
			Skipped   map[string]int       `json:"skipped"`
		}{stats, set.Skipped()})
	}
	return printStats(c.App.Writer, stats, encode != nil)
}

func printStats(w io.Writer, stats []data.LanguageStats, tokens bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "language\tdocuments\tbytes\tlines\trepositories\t"
	if tokens {
		head += "tokens\t"
	}
	fmt.Fprintln(t, head)
	for _, s := range stats {
		name := s.Language
		if name == "" {
			name = "(unknown)"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t", name, s.Documents, s.Bytes, s.Lines, s.Repositories)
		if tokens {
			fmt.Fprintf(t, "%d\t", s.Tokens)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func dataWindows(c *cli.Context) error {
	tok, err := openTokenizer(c.String("tokenizer"))
	if err != nil {
		return err
	}
	set, err := openSource(c)
	if err != nil {
		return err
	}
	cfg := pack.Config{
		FIM:       fim.Options{Rate: c.Float64("fim-rate"), SPMRate: c.Float64("fim-spm-rate"), Level: fim.Level(c.String("fim-level"))},
		Sentinels: fim.SentinelsOf(tok),
		Pack:      pack.Options{Sequence: c.Int("sequence"), CrossDocuments: c.Bool("cross-documents")},
		Seed:      c.Uint64("seed"),
		Epochs:    1,
	}
	stream, err := pack.NewStream(c.Context, set, tok, cfg)
	if err != nil {
		return misuse{err}
	}
	defer stream.Close()
	for n := range c.Int("count") {
		w, err := stream.Next(c.Context)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c.App.Writer, "==> window %d: %d tokens, %d scored <==\n", n, len(w.IDs), w.Scored()); err != nil {
			return err
		}
		for start := 0; start < len(w.IDs); {
			end := start + 1
			for end < len(w.IDs) && w.DocStart[end] == w.DocStart[start] {
				end++
			}
			text := tok.Decode(w.IDs[start:end])
			if !slices.ContainsFunc(w.Targets[start:end], func(t int32) bool { return t != pack.NotScored }) {
				text = "(padding)"
			}
			if _, err := fmt.Fprintf(c.App.Writer, "-- positions %d to %d\n%s\n", start, end-1, text); err != nil {
				return err
			}
			start = end
		}
	}
	return nil
}
