package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/gguf"
	"autodev/models"
)

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "write a model in today's format of Hugging Face transformers, or as one GGUF file for llama.cpp and Ollama",
		ArgsUsage: "DIR",
		Description: "DIR is a folder of Hugging Face transformers, or " + models.Tiny + ", the embedded model. --to safetensors writes a folder: model.safetensors " +
			"with config.json and tokenizer. --to gguf writes one file with the tokenizer in it.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "model folder `DIR`, another way to name it"},
			&cli.StringFlag{Name: "to", Usage: "safetensors or gguf", Value: "safetensors"},
			&cli.StringFlag{Name: "out", Usage: "folder or file `PATH` to write; it must not hold anything yet (gguf: default MODEL-TYPE.gguf)"},
			&cli.StringFlag{Name: "dtype", Usage: "safetensors: f32, bf16 or f16", Value: "f32"},
			&cli.StringFlag{Name: "layout", Usage: "safetensors: gpt_bigcode or gpt2 (default: the model's own family)"},
			&cli.StringFlag{Name: "max-shard-size", Usage: "safetensors: size of a weight file: bytes, or a number with KB, MB or GB", Value: "5GB"},
			&cli.StringFlag{Name: "type", Usage: "gguf: element type of the matrices, f16, bf16, q8_0, q4_0 or f32", Value: "f16"},
			&cli.StringFlag{Name: "adapter", Usage: "gguf: PEFT LoRA adapter folder `DIR` that is merged first"},
		},
		Action: func(c *cli.Context) error {
			dir := c.String("model")
			if dir == "" || c.NArg() > 0 {
				var err error
				if dir, err = onePositional(c, "DIR"); err != nil {
					return err
				}
				if c.IsSet("model") {
					return usageError("model convert: %s and --model %s, expected one of them", dir, c.String("model"))
				}
			}
			foreign := map[string][]string{"safetensors": {"type", "adapter"}, "gguf": {"dtype", "layout", "max-shard-size"}}
			to := c.String("to")
			if foreign[to] == nil {
				return usageError("--to %s: expected safetensors or gguf", to)
			}
			for _, name := range foreign[to] {
				if c.IsSet(name) {
					return usageError("--%s: not a flag of --to %s", name, to)
				}
			}
			if to == "gguf" {
				kind, err := gguf.ParseType(c.String("type"))
				if err != nil {
					return usageError("--type: %w", err)
				}
				return convertGGUF(c.Context, dir, c.String("adapter"), c.String("out"), kind, c.App.Writer)
			}
			if c.String("out") == "" {
				return usageError("model convert: --out is missing, expected the folder to write")
			}
			o := model.SaveOptions{Layout: model.Architecture(c.String("layout"))}
			if o.Layout != "" && o.Layout != model.GPTBigCode && o.Layout != model.GPT2 {
				return usageError("--layout %s: expected %s or %s", o.Layout, model.GPTBigCode, model.GPT2)
			}
			var err error
			if o.DType, err = dtype.ParseFloat(c.String("dtype")); err != nil {
				return usageError("--dtype: %w", err)
			}
			if o.MaxShardBytes, err = parseBytes(c.String("max-shard-size")); err != nil {
				return usageError("--max-shard-size: %w", err)
			}
			return modelConvert(c.Context, dir, c.String("out"), o, c.App.Writer)
		},
	}
}

// convertGGUF writes the model in folder dir, with an adapter merged into it unless adapter is "", as the file out.
func convertGGUF(ctx context.Context, dir, adapter, out string, kind gguf.Type, w io.Writer) (err error) {
	f, err := modelFolder(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	name := modelName(f)
	if out == "" {
		out = name + "-" + kind.String() + ".gguf"
	}
	switch _, err := os.Stat(out); {
	case err == nil:
		return usageError("--out %s: exists already, expected a new file", out)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("--out: %w", err)
	}
	tok, err := openTokenizer(dir)
	if err != nil {
		return fmt.Errorf("%w (llama.cpp needs the tokenizer in the file)", err)
	}
	src, err := withAdapter(f, adapter)
	if err != nil {
		return err
	}
	x, err := gguf.Save(ctx, out, f.Config, src, tok, gguf.Options{Type: kind, Name: name})
	if err != nil {
		return err
	}
	for _, note := range x.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	fmt.Fprintf(w, "%s\t%s\t%d tensors: %s\n", out, bytesText(x.Bytes), len(x.Tensors), countTypes(x.Tensors))
	return nil
}

// modelName returns what a model is called by its folder.
func modelName(f *model.Folder) string {
	abs, err := filepath.Abs(f.Dir)
	if err != nil || filepath.Base(abs) == string(filepath.Separator) {
		return "model"
	}
	return filepath.Base(abs)
}

// countTypes says how many tensors have each element type, in the order in which they first appear.
func countTypes(tensors []gguf.Info) string {
	n := map[gguf.Type]int{}
	var order []gguf.Type
	for _, t := range tensors {
		if n[t.Type] == 0 {
			order = append(order, t.Type)
		}
		n[t.Type]++
	}
	parts := make([]string, len(order))
	for i, t := range order {
		parts[i] = fmt.Sprintf("%d %v", n[t], t)
	}
	return strings.Join(parts, ", ")
}

// isGGUF reports whether name is a file that model info shows as GGUF.
func isGGUF(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular() && strings.EqualFold(filepath.Ext(name), ".gguf")
}

// ggufInfo prints what a GGUF file holds; arrays of its metadata are shown by their length.
func ggufInfo(name, format string, tensors bool, out io.Writer) (err error) {
	if format != "table" && format != "json" {
		return usageError("--format %s: expected table or json", format)
	}
	f, err := gguf.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var parameters int64
	for _, t := range f.Tensors {
		parameters += int64(t.Len())
	}
	if format == "json" {
		v := struct {
			File       string         `json:"file"`
			Bytes      int64          `json:"bytes"`
			Version    int            `json:"version"`
			Parameters int64          `json:"parameters"`
			Metadata   map[string]any `json:"metadata"`
			Tensors    []gguf.Info    `json:"tensors,omitempty"`
		}{name, f.Size, f.Version, parameters, map[string]any{}, nil}
		for _, kv := range f.Metadata {
			v.Metadata[kv.Key] = showValue(kv.Value)
		}
		if tensors {
			v.Tensors = f.Tensors
		}
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "file\t%s, GGUF version %d, %s\n", name, f.Version, bytesText(f.Size))
	fmt.Fprintf(w, "tensors\t%d: %s\n", len(f.Tensors), countTypes(f.Tensors))
	fmt.Fprintf(w, "parameters\t%s\n", group(parameters))
	for _, kv := range f.Metadata {
		fmt.Fprintf(w, "%v\t%v\n", showValue(kv.Key), showValue(kv.Value))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if tensors {
		for _, t := range f.Tensors {
			fmt.Fprintf(w, "%v\t%v\t%v\toffset %d\n", showValue(t.Name), t.Type, t.Shape, t.Offset)
		}
	}
	return w.Flush()
}

// showValue returns a metadata value as it is shown: long text is cut, an array is its length and item type, a floating-point
// number, which JSON may not hold, is its text.
func showValue(v any) any {
	const long = 200
	switch v := v.(type) {
	case string:
		if len(v) > long {
			v = strings.ToValidUTF8(v[:long], "") + "…"
		}
		return printable(v)
	case float32:
		return fmt.Sprint(v)
	case float64:
		return fmt.Sprint(v)
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Slice {
		return fmt.Sprintf("%d × %v", r.Len(), r.Type().Elem())
	}
	return v
}
