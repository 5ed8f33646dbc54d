package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	suggestions "autodev/serve/events"
)

func fromEventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "from-events",
		Usage:     "print documents of suggestions that were taken, to train on",
		ArgsUsage: "FOLDER|FILE…",
		Description: "Reads what autodev serve --events FOLDER --events-content keeps and prints JSON lines. The folder can also be a data source as it is;\n" +
			"this leaves out suggestions that were taken again, or are part of what was taken next in the same file.",
		Flags:  []cli.Flag{&cli.StringFlag{Name: "model", Usage: "only suggestions of the model with this `ID`"}},
		Action: dataFromEvents,
	}
}

func dataFromEvents(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("from-events: no folder or file is given; see autodev data from-events --help")
	}
	files, err := eventFiles(c.Args().Slice())
	if err != nil {
		return err
	}
	var d suggestions.Documents
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = suggestions.ReadLines(f, name, func(l suggestions.Line) error {
			if want := c.String("model"); want == "" || l.Model == want {
				d.Add(l)
			}
			return c.Context.Err()
		})
		f.Close() // it was only read
		if err != nil {
			return err
		}
	}
	return printDocuments(c.App.Writer, &d)
}

func printDocuments(w io.Writer, d *suggestions.Documents) error {
	out := bufio.NewWriter(w)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	err := d.All(func(l suggestions.Line) error {
		return e.Encode(struct {
			Path     string `json:"path,omitempty"`
			Language string `json:"language,omitempty"`
			Content  string `json:"content"`
		}{l.Path, l.Language, *l.Content})
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

// eventFiles returns the files of folders, oldest first, and the files that are named.
func eventFiles(names []string) (files []string, err error) {
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, name)
			continue
		}
		entries, err := os.ReadDir(name) // in the order of days
		if err != nil {
			return nil, err
		}
		before := len(files)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "events-") && strings.HasSuffix(e.Name(), ".jsonl") {
				files = append(files, filepath.Join(name, e.Name()))
			}
		}
		if len(files) == before {
			return nil, fmt.Errorf("%s: has no events-*.jsonl, expected a folder of autodev serve --events", name)
		}
	}
	return files, nil
}
