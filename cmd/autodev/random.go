package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"autodev/model"
	"autodev/model/dtype"
	"autodev/models"
)

// shapes are the dimensions of well-known models, for measurements without their weights.
func shapes() map[string]string {
	const bigcode = `{"model_type": "gpt_bigcode", "vocab_size": %d, "n_positions": %d, "n_embd": %d, "n_layer": %d, "n_head": %d, "n_inner": %d, "multi_query": true,
		"activation_function": "gelu_pytorch_tanh", "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "bos_token_id": 0, "eos_token_id": 0}`
	return map[string]string{
		"santacoder":        fmt.Sprintf(bigcode, 49280, 2048, 2048, 24, 16, 8192),
		"starcoderbase-1b":  fmt.Sprintf(bigcode, 49152, 8192, 2048, 24, 16, 8192),
		"tiny_starcoder_py": fmt.Sprintf(bigcode, 49152, 8192, 768, 20, 12, 3072),
	}
}

func randomCommand() *cli.Command {
	var names []string
	for name := range shapes() {
		names = append(names, name)
	}
	slices.Sort(names)
	return &cli.Command{
		Name:  "random",
		Usage: "write a model folder with random initial weights, to train from or to measure speed with",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "like", Usage: "`MODEL` whose dimensions to take: " + strings.Join(names, ", ")},
			&cli.StringFlag{Name: "config", Usage: "`FILE` config.json to take them from instead"},
			&cli.StringFlag{Name: "dtype", Usage: "f32, bf16 or f16", Value: "f16"},
			&cli.StringFlag{Name: "max-shard-size", Usage: "of a weight file: bytes, or a number with KB, MB or GB", Value: "5GB"},
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` to write; it must not hold anything yet"},
			&cli.StringFlag{Name: "tokenizer", Usage: "model `FOLDER` whose tokenizer's files to copy"},
			&cli.Uint64Flag{Name: "seed"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("unexpected argument %q", c.Args().First())
			}
			text, ok := shapes()[c.String("like")]
			switch {
			case c.String("out") == "":
				return usageError("--out is missing, expected the folder to write")
			case (c.String("like") == "") == (c.String("config") == ""):
				return usageError("expected either --like or --config")
			case c.String("like") != "" && !ok:
				return usageError("--like %s: expected one of %s", c.String("like"), strings.Join(names, ", "))
			}
			name := c.String("like")
			if name == "" {
				name = c.String("config")
				b, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				text = string(b)
			}
			config, err := model.ParseConfig([]byte(text), name)
			if err != nil {
				return err
			}
			o := model.SaveOptions{}
			if o.DType, err = dtype.ParseFloat(c.String("dtype")); err != nil {
				return usageError("--dtype: %w", err)
			}
			if o.MaxShardBytes, err = parseBytes(c.String("max-shard-size")); err != nil {
				return usageError("--max-shard-size: %w", err)
			}
			if dir := c.String("tokenizer"); dir != "" {
				if _, err := openTokenizer(dir); err != nil {
					return fmt.Errorf("--tokenizer: %w", err)
				}
				if o.Assets, _, err = models.Open(dir); err != nil {
					return fmt.Errorf("--tokenizer: %w", err)
				}
			}
			return modelRandom(c.Context, config, c.String("out"), c.Uint64("seed"), o, c.App.Writer)
		},
	}
}

func modelRandom(ctx context.Context, config model.Config, dir string, seed uint64, o model.SaveOptions, out io.Writer) error {
	if err := mustBeNew(dir); err != nil {
		return err
	}
	if err := model.SaveFrom(ctx, dir, config, model.Random(config, seed), o); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s\t%s parameters, %s\n", dir, group(config.NumParams()), o.DType)
	return err
}
