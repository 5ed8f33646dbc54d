package main

import (
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"autodev/models"
	"autodev/tokenizer"
)

func tokenizeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tokenize",
		Usage:     "turn text into token ids, or ids into text",
		ArgsUsage: " ",
		Description: "Prints the ids of the text, separated by spaces; with --decode, the exact text of the ids.\n" +
			"Special tokens spelled out in the text count as text unless --special is given.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "tokenizer", Usage: "`PATH` of a tokenizer.json, or of a folder with it or with vocab.json and merges.txt (default: the embedded model's)"},
			&cli.StringFlag{Name: "file", Value: "-", Usage: "read `FILE`; - is standard input"},
			&cli.BoolFlag{Name: "special", Usage: "recognise special tokens in the text"},
			&cli.BoolFlag{Name: "decode", Usage: "read ids and print their text"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("tokenize: found argument %q; give the text by --file or on standard input", c.Args().First())
			}
			if c.Bool("decode") && c.Bool("special") {
				return usageError("tokenize: --special has no meaning with --decode")
			}
			tok, err := openTokenizer(c.String("tokenizer"))
			if err != nil {
				return err
			}
			input, err := readInput(c, c.String("file"))
			if err != nil {
				return err
			}
			var output []byte
			switch {
			case c.Bool("decode"):
				ids, err := tok.ParseIDs(string(input))
				if err != nil {
					return fmt.Errorf("%s: %w", c.String("file"), err)
				}
				output = tok.DecodeBytes(ids)
			case c.Bool("special"):
				output = tokenizer.FormatIDs(nil, tok.EncodeSpecial(string(input)))
			default:
				output = tokenizer.FormatIDs(nil, tok.Encode(string(input)))
			}
			_, err = c.App.Writer.Write(output)
			return err
		},
	}
}

// openTokenizer loads a vocabulary from a path, or the embedded one for "" and the embedded model's name.
func openTokenizer(name string) (*tokenizer.Tokenizer, error) {
	if name != "" && name != models.Tiny {
		return tokenizer.Load(name)
	}
	fsys, _, err := models.Open(name)
	if err != nil {
		return nil, err
	}
	return tokenizer.LoadFS(fsys, ".")
}

// readInput reads a file, or standard input for "-".
func readInput(c *cli.Context, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.App.Reader)
	}
	return os.ReadFile(name)
}
