package main

import (
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"autodev/data"
	"autodev/data/source"
	"autodev/internal/progress"
	"autodev/model"
	"autodev/tokenizer"
)

func tokenizerCommand() *cli.Command {
	return &cli.Command{
		Name:        "tokenizer",
		Usage:       "train vocabularies",
		Subcommands: []*cli.Command{tokenizerTrainCommand()},
	}
}

func tokenizerTrainCommand() *cli.Command {
	return &cli.Command{
		Name:      "train",
		Usage:     "learn a byte-level BPE vocabulary from documents",
		ArgsUsage: "SOURCE...",
		Description: "A SOURCE is a parquet or JSON-lines file, a glob of them, a folder of them, a folder of source code, or a URL.\n" +
			"Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json, which transformers loads.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "write into the folder `DIR`"},
			&cli.IntFlag{Name: "vocab-size", Usage: "`N` tokens: the special ones, the 256 bytes and the merges"},
			&cli.StringSliceFlag{Name: "special", Usage: "add the special token `TOK`; repeat for more (default: <|endoftext|> and the FIM tokens)"},
			&cli.BoolFlag{Name: "digits-individually", Value: true, Usage: "make every digit a token"},
			&cli.Int64Flag{Name: "min-frequency", Value: 2, Usage: "merge pairs that occur at least `N` times"},
			&cli.StringSliceFlag{Name: "language", Usage: "read only documents in `LANG`; repeat for more"},
			&cli.IntFlag{Name: "max-docs", Usage: "read only the first `N` documents"},
			&cli.BoolFlag{Name: "quiet", Usage: "show no progress"},
		},
		Action: func(c *cli.Context) error {
			switch {
			case c.String("out") == "":
				return usageError("tokenizer train: --out is missing")
			case !c.IsSet("vocab-size"):
				return usageError("tokenizer train: --vocab-size is missing")
			case !c.Args().Present():
				return usageError("tokenizer train: no source given")
			}
			if _, err := os.Stat(filepath.Join(c.String("out"), model.ConfigFile)); err == nil {
				return usageError("--out %s: the folder of a model, whose tokenizer would be replaced, expected another", c.String("out"))
			}
			set, err := source.Open(c.Context, source.Options{Languages: c.StringSlice("language"), MaxDocuments: c.Int("max-docs")}, c.Args().Slice()...)
			if err != nil {
				return err
			}
			config := tokenizer.TrainConfig{
				VocabSize:          c.Int("vocab-size"),
				Specials:           c.StringSlice("special"),
				DigitsIndividually: c.Bool("digits-individually"),
				MinFrequency:       c.Int64("min-frequency"),
			}
			if !c.IsSet("special") {
				config.Specials = []string{"<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"}
			}
			if !c.Bool("quiet") {
				show, end := trainProgress(c.App.ErrWriter)
				defer end()
				config.Progress = show
			}
			tok, err := tokenizer.Train(c.Context, config, contents(data.Documents(c.Context, set)))
			if err != nil {
				return err
			}
			if err := tok.Save(c.String("out")); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s: %d tokens\n", c.String("out"), tok.VocabSize())
			return err
		},
	}
}

func contents(documents iter.Seq2[data.Document, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for d, err := range documents {
			if !yield(d.Content, err) {
				return
			}
		}
	}
}

// trainProgress shows the two phases of training on w; end removes what is shown.
func trainProgress(w io.Writer) (show func(tokenizer.TrainProgress), end func()) {
	reading, merging := progress.New(w, "reading", "documents"), progress.New(w, "merging", "merges")
	show = func(p tokenizer.TrainProgress) {
		if p.Merges == 0 {
			reading.Set(int(p.Documents), -1)
			return
		}
		reading.Close()
		merging.Set(p.Merges, p.MaxMerges)
	}
	return show, merging.Close
}
