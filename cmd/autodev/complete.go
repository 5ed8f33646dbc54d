package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/infer"
)

func completeCommand() *cli.Command {
	return &cli.Command{
		Name:  "complete",
		Usage: "complete code once, at the end of a file or between two",
		Description: "Prints the text that follows the prefix (and leads to the suffix). A prompt too long for the model is cut at the\n" +
			"ends away from the cursor.",
		Flags: append(inferenceFlags(),
			&cli.StringFlag{Name: "prefix-file", Usage: "`FILE` with the text before the cursor; - is standard input (required)"},
			&cli.StringFlag{Name: "suffix-file", Usage: "`FILE` with the text after the cursor; - is standard input"},
			&cli.IntFlag{Name: "max-tokens", Usage: "tokens to generate at most", Value: 64},
			&cli.Float64Flag{Name: "temperature", Usage: "0 takes the most probable token every time"},
			&cli.IntFlag{Name: "top-k", Usage: "choose among the K most probable tokens (0: all)"},
			&cli.Float64Flag{Name: "top-p", Usage: "choose among the most probable tokens that together reach probability P", Value: 1},
			&cli.Uint64Flag{Name: "seed", Usage: "of the choice among tokens"},
			&cli.StringSliceFlag{Name: "stop", Usage: "`TEXT` that ends the completion; may be repeated"},
			&cli.StringFlag{Name: "fim", Usage: "fill-in-the-middle tokens: auto (with a suffix), always or never", Value: "auto"},
			fimOrderFlag(),
			speculateFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object with token ids and timings"},
		),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("complete: found argument %q, expected flags only", c.Args().First())
			}
			f, err := inferenceOf(c)
			if err != nil {
				return err
			}
			r, err := completeRequest(c)
			if err != nil {
				return err
			}
			return complete(c.Context, f, r, c.Bool("json"), c.App.Writer)
		},
	}
}

// completeRequest turns flags and files into a request.
func completeRequest(c *cli.Context) (r infer.Request, err error) {
	r = infer.Request{
		MaxTokens: c.Int("max-tokens"),
		Sampling:  infer.Sampling{Temperature: c.Float64("temperature"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"), Seed: c.Uint64("seed")},
		Stop:      c.StringSlice("stop"),
	}
	if err := r.Sampling.Check(); err != nil {
		return r, usageError("--%s", strings.ReplaceAll(err.Error(), "_", "-"))
	}
	switch {
	case c.String("prefix-file") == "":
		return r, usageError("--prefix-file is missing, expected a file, or - for standard input")
	case r.MaxTokens < 0:
		return r, usageError("--max-tokens %d: expected 0 or more", r.MaxTokens)
	case c.String("prefix-file") == "-" && c.String("suffix-file") == "-":
		return r, usageError("--prefix-file and --suffix-file are both standard input, expected one of them")
	}
	var ok bool
	if r.Prompt.FIM, ok = map[string]infer.FIM{"auto": infer.FIMAuto, "always": infer.FIMAlways, "never": infer.FIMNever}[c.String("fim")]; !ok {
		return r, usageError("--fim %s: expected auto, always or never", c.String("fim"))
	}
	if r.Prompt.Order, err = fimOrder(c.String("fim-order")); err != nil {
		return r, err
	}
	if r.Speculate, err = speculation(c.String("speculate")); err != nil {
		return r, err
	}
	prefix, err := readInput(c, c.String("prefix-file"))
	if err != nil {
		return r, fmt.Errorf("--prefix-file: %w", err)
	}
	r.Prompt.Prefix = string(prefix)
	if name := c.String("suffix-file"); name != "" {
		suffix, err := readInput(c, name)
		if err != nil {
			return r, fmt.Errorf("--suffix-file: %w", err)
		}
		r.Prompt.Suffix = string(suffix)
	}
	return r, nil
}

// completeOutput is what complete --json prints.
type completeOutput struct {
	Model        string             `json:"model"`
	PromptIDs    []int32            `json:"prompt_ids"`
	IDs          []int32            `json:"ids"`
	Text         string             `json:"text"`
	FinishReason infer.FinishReason `json:"finish_reason"`
	StopText     string             `json:"stop_text,omitempty"`
	Shortened    bool               `json:"prompt_shortened"`
	Drafted      int                `json:"drafted_tokens"`
	Accepted     int                `json:"accepted_tokens"`
	Timings      completeTimings    `json:"timings"`
}

type completeTimings struct {
	LoadMS          float64 `json:"load_ms"`
	PromptMS        float64 `json:"prompt_ms"`
	DecodeMS        float64 `json:"decode_ms"`
	PromptPerSecond float64 `json:"prompt_tokens_per_second"`
	DecodePerSecond float64 `json:"decode_tokens_per_second"`
}

func complete(ctx context.Context, f inference, r infer.Request, asJSON bool, out io.Writer) error {
	began := time.Now()
	m, _, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	loaded := time.Since(began)
	var emit func(infer.Chunk) error
	if !asJSON {
		emit = func(c infer.Chunk) error {
			_, err := io.WriteString(out, c.Text)
			return err
		}
	}
	res, err := m.Generate(ctx, r, emit)
	if err != nil {
		return err
	}
	if !asJSON {
		if !strings.HasSuffix(res.Text, "\n") {
			_, err = io.WriteString(out, "\n")
		}
		return err
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	return e.Encode(completeOutput{
		Model: modelID(f.model, f.adapter), PromptIDs: res.PromptIDs, IDs: append([]int32{}, res.IDs...), Text: res.Text,
		FinishReason: res.FinishReason, StopText: res.StopText, Shortened: res.Shortened, Drafted: res.Drafted, Accepted: res.Accepted,
		Timings: completeTimings{
			LoadMS: ms(loaded), PromptMS: ms(res.Timings.Prompt), DecodeMS: ms(res.Timings.Decode),
			PromptPerSecond: res.Timings.PromptRate(len(res.PromptIDs)), DecodePerSecond: res.Timings.DecodeRate(len(res.IDs)),
		},
	})
}
