package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"autodev/configs"
	"autodev/infer"
	"autodev/infer/chat"
	"autodev/serve/assist"
)

func assistCommand() *cli.Command {
	return &cli.Command{
		Name:      "assist",
		Usage:     "explain, review, document, improve or test code, or apply a function of your own",
		ArgsUsage: "NAME",
		Description: "Prints the answer while it is written: prose as Markdown, or code as it would stand in the file. With --apply the code takes\n" +
			"the place of the lines, when it is complete and the file is still what was read. --list shows the functions.",
		Flags: append(append(inferenceFlags(), assistFlags()...),
			&cli.StringFlag{Name: "file", Usage: "`FILE` with the code (required)"},
			&cli.StringFlag{Name: "lines", Usage: "`FIRST:LAST` line of the code, from 1 (default: the whole file)"},
			&cli.StringFlag{Name: "language", Usage: "of the code (default: as the file's name says)"},
			&cli.StringFlag{Name: "instruction", Usage: "what you want beside, or for edit all that you want"},
			&cli.BoolFlag{Name: "apply", Usage: "write the code into the file, or tests into a new one, in place of printing it"},
			&cli.StringFlag{Name: "format", Usage: "text, html (of prose) or json", Value: "text"},
			&cli.StringFlag{Name: "backend", Usage: "`NAME` of what answers, in place of the function's: local, or one of the file of --assist"},
			&cli.Uint64Flag{Name: "seed", Usage: "of the choice among tokens"},
			&cli.BoolFlag{Name: "list", Usage: "show the functions"},
			&cli.StringFlag{Name: "show", Usage: "print the file of the built-in function `NAME`, to make your own of it"},
		),
		Action: func(c *cli.Context) error {
			s, err := assistance(c)
			if err != nil {
				return err
			}
			switch {
			case c.String("show") != "":
				text, err := assist.BuiltinSource(c.String("show"))
				if err != nil {
					return usageError("--show %w", err)
				}
				_, err = io.WriteString(c.App.Writer, text)
				return err
			case c.Bool("list"):
				return listFunctions(c.App.Writer, s, c.String("format"))
			}
			return applyFunction(c, s)
		},
	}
}

// assistFlags are what serve and assist share.
func assistFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "assist", Usage: "`FILE` that says which assistance functions there are and what answers them (configs/examples/assist.yaml)"},
		&cli.BoolFlag{Name: "local-only", Usage: "refuse to use services elsewhere: no connection is opened"},
	}
}

// assistance opens the functions that assistFlags name.
func assistance(c *cli.Context) (*assist.Service, error) {
	config := configs.Assist{Default: assist.LocalBackend}
	if name := c.String("assist"); name != "" {
		var err error
		if config, err = configs.LoadAssist(name); err != nil {
			var mistake *configs.Error
			if errors.As(err, &mistake) {
				return nil, misuse{err}
			}
			return nil, err
		}
	}
	s, err := assist.Open(config, c.Bool("local-only"))
	if err != nil {
		if c.Bool("local-only") && len(config.Backends) > 0 {
			return nil, usageError("--local-only: %w", err)
		}
		return nil, err
	}
	s.Warn(slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)))
	return s, nil
}

func listFunctions(out io.Writer, s *assist.Service, format string) error {
	if format == "json" {
		return printJSON(out, s.List())
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tTITLE\tOUTPUT\tPLACE\tBACKEND")
	for _, f := range s.List() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", f.Name, f.Title, f.Output, f.Place, f.Backend)
	}
	return t.Flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// assistOutput is what assist --format json prints.
type assistOutput struct {
	Function string        `json:"function"`
	Model    string        `json:"model"`
	Text     string        `json:"text"`
	Edit     *assist.Edit  `json:"edit,omitempty"`
	Usage    assist.Usage  `json:"usage"`
	Finish   assist.Finish `json:"finish_reason"`
	Applied  string        `json:"applied,omitempty"` // the file that was written
}

func applyFunction(c *cli.Context, s *assist.Service) error {
	switch {
	case c.NArg() == 0:
		return usageError("assist: the name of a function is missing; --list shows them")
	case c.NArg() > 1:
		return usageError("assist: found argument %q, expected one name and flags", c.Args().Get(1))
	}
	f := s.Function(c.Args().First())
	format := c.String("format")
	switch {
	case f == nil:
		return usageError("assist: there is no function %q; --list shows them", c.Args().First())
	case c.String("file") == "":
		return usageError("--file is missing, expected a file with code")
	case format != "text" && format != "html" && format != "json":
		return usageError("--format %s: expected text, html or json", format)
	case c.Bool("apply") && f.Output != assist.Code:
		return usageError("--apply: %s writes prose, expected a function that writes code", f.Name)
	}
	first, last, err := lineRange(c.String("lines"))
	if err != nil {
		return err
	}
	infers, err := inferenceOf(c)
	if err != nil {
		return err
	}
	source, err := assist.OpenSource(c.String("file"), first, last)
	var invalid *assist.InvalidError
	if errors.As(err, &invalid) {
		return usageError("--%w", err)
	}
	if err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	r := source.Request()
	r.Language, r.Instruction = c.String("language"), c.String("instruction")
	closeModel := func() {}
	backend, err := s.Backend(f, c.String("backend"), func() (_ assist.Backend, err error) {
		var local assist.Backend
		local, closeModel, err = localBackend(c.Context, infers)
		return local, err
	})
	defer func() { closeModel() }()
	if errors.As(err, &invalid) {
		return usageError("--%w", err)
	}
	if err != nil {
		return err
	}
	prose := assist.Text
	if format == "html" {
		prose = assist.HTML
	}
	var emit func(string) error
	streams := format != "json" && !c.Bool("apply")
	if streams {
		emit = func(text string) error {
			_, err := io.WriteString(c.App.Writer, text)
			return err
		}
	}
	a, err := f.Run(c.Context, backend, r, prose, c.Uint64("seed"), emit)
	if streams && a.Text != "" && !strings.HasSuffix(a.Text, "\n") {
		_, err2 := io.WriteString(c.App.Writer, "\n")
		err = errors.Join(err, err2)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	out := assistOutput{Function: f.Name, Model: a.Model, Text: a.Text, Edit: a.Edit, Usage: a.Reply.Usage, Finish: a.Reply.Finish}
	if c.Bool("apply") {
		if out.Applied, err = source.Apply(a.Edit); err != nil {
			return err
		}
		if format != "json" {
			_, err = fmt.Fprintf(c.App.Writer, "%s: written\n", out.Applied)
			return err
		}
	}
	if format == "json" {
		return printJSON(c.App.Writer, out)
	}
	return nil
}

// lineRange reads the value of --lines.
func lineRange(value string) (first, last int, err error) {
	if value == "" {
		return 0, 0, nil
	}
	a, b, ok := strings.Cut(value, ":")
	if !ok {
		b = a
	}
	first, err1 := strconv.Atoi(a)
	last, err2 := strconv.Atoi(b)
	if err1 != nil || err2 != nil || first < 1 || last < first {
		return 0, 0, usageError("--lines %s: expected FIRST:LAST, two line numbers from 1", value)
	}
	return first, last, nil
}

// localBackend opens the model that inferenceFlags name, and returns what closes it.
func localBackend(ctx context.Context, f inference) (assist.Backend, func(), error) {
	template, err := chatTemplate(f.model)
	if err != nil {
		return nil, func() {}, err
	}
	m, tok, err := f.open(ctx)
	if err != nil {
		return nil, func() {}, err
	}
	l := &assist.Local{Name: modelID(f.model, f.adapter), Engine: oneModel{m}}
	if tok != nil {
		p := chat.NewPrompter(template, tok)
		l.Chat, l.Instruct = p, p.Instruct()
	}
	return l, m.Close, nil
}

// oneModel is a model without an engine: nobody else uses it.
type oneModel struct{ *infer.Model }

func (m oneModel) Complete(ctx context.Context, r infer.Request, emit func(infer.Chunk) error) (infer.Result, error) {
	return m.Generate(ctx, r, emit)
}
