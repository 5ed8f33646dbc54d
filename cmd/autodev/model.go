package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/packed"
	"autodev/models"
	"autodev/tokenizer"
)

func modelCommand() *cli.Command {
	return &cli.Command{
		Name:  "model",
		Usage: "look at, convert, quantise and make model folders",
		Subcommands: []*cli.Command{
			{
				Name:        "info",
				Usage:       "say what a model folder or a GGUF file holds; all headers are checked, no weights are read",
				ArgsUsage:   "DIR",
				Description: "DIR is a folder of Hugging Face transformers, or " + models.Tiny + ", the embedded model, or a file FILE.gguf.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "format", Usage: "table or json", Value: "table"},
					&cli.BoolFlag{Name: "tensors", Usage: "list the tensors of the weight files"},
					&cli.BoolFlag{Name: "verify", Usage: "read all weights of a packed folder and compare their digest with that in config.json"},
				},
				Action: func(c *cli.Context) error {
					dir, err := onePositional(c, "DIR")
					if err != nil {
						return err
					}
					if isGGUF(dir) {
						return ggufInfo(dir, c.String("format"), c.Bool("tensors"), c.App.Writer)
					}
					return modelInfo(c.Context, dir, c.String("format"), c.Bool("tensors"), c.Bool("verify"), c.App.Writer)
				},
			},
			convertCommand(),
			quantizeCommand(),
			randomCommand(),
		},
	}
}

// onePositional returns the command's only argument.
func onePositional(c *cli.Context, what string) (string, error) {
	if n := c.NArg(); n != 1 {
		return "", usageError("%s: %d arguments, expected one: %s", c.Command.HelpName, n, what)
	}
	return c.Args().First(), nil
}

// parseBytes reads a size: digits with an optional decimal unit.
func parseBytes(s string) (int64, error) {
	number, unit := strings.ToUpper(strings.TrimSpace(s)), int64(1)
	for suffix, n := range map[string]int64{"KB": 1e3, "MB": 1e6, "GB": 1e9} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(rest), n
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("size %q, expected a positive number of bytes, or one with KB, MB or GB", s)
	}
	return n * unit, nil
}

// tokenizerInfo is what model info says about a tokenizer.
type tokenizerInfo struct {
	Tokens int            `json:"tokens"`
	FIM    map[string]int `json:"fim_tokens,omitempty"` // ids by role
	Error  string         `json:"error,omitempty"`
}

// folderInfo is what model info says.
type folderInfo struct {
	model.Info
	Quantization *packed.Quantization `json:"quantization,omitempty"` // of a packed folder
	Tokenizer    *tokenizerInfo       `json:"tokenizer"`              // null when the folder has none
	Tensors      []model.TensorInfo   `json:"tensors,omitempty"`
}

// inspect looks at a folder of plain weights.
func inspect(dir string, tensors bool) (v folderInfo, err error) {
	f, err := modelFolder(dir)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	v = folderInfo{Info: f.Info(), Tokenizer: inspectTokenizer(f.FS)}
	if tensors {
		v.Tensors = f.Tensors()
	}
	return v, nil
}

// inspectPacked looks at a packed folder.
func inspectPacked(ctx context.Context, dir string, tensors, verify bool) (v folderInfo, err error) {
	f, err := packed.Open(dir)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if verify {
		if err := f.Verify(ctx); err != nil {
			return v, err
		}
	}
	v = folderInfo{Info: f.Config.Info(), Quantization: &f.Quantization, Tokenizer: inspectTokenizer(f.FS)}
	v.Folder, v.Layout = f.Dir, "packed"
	v.WeightBytes = map[string]int64{f.Quantization.Weights: f.Quantization.Bytes}
	params := f.Config.Params()
	v.Files = []model.FileInfo{{Name: packed.File, Bytes: f.Quantization.Bytes, Tensors: len(params)}}
	for _, p := range params {
		e, _ := f.Entry(p.Name)
		d := dtype.DType(e.Format)
		if !slices.Contains(v.DTypes, d) {
			v.DTypes = append(v.DTypes, d)
		}
		if tensors {
			v.Tensors = append(v.Tensors, model.TensorInfo{Name: p.Name, DType: d, Shape: e.Shape, File: packed.File})
		}
	}
	slices.Sort(v.DTypes)
	return v, nil
}

func modelInfo(ctx context.Context, dir, format string, tensors, verify bool, out io.Writer) error {
	if format != "table" && format != "json" {
		return usageError("--format %s: expected table or json", format)
	}
	var v folderInfo
	var err error
	switch {
	case isPacked(dir):
		v, err = inspectPacked(ctx, dir, tensors, verify)
	case verify:
		return usageError("--verify: %s is not a packed folder, expected one", dir)
	default:
		v, err = inspect(dir, tensors)
	}
	if err != nil {
		return err
	}
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	p := v.Parameters
	row("folder", "%s", v.Folder)
	row("architecture", "%s, files as %s", v.Architecture, v.Layout)
	row("dimensions", "%d layers, width %d, MLP %d, %d heads of %d, %d key/value", v.Layers, v.Embed, v.Inner, v.Heads, v.HeadDim, v.KVHeads)
	row("context", "%d tokens", v.Positions)
	row("vocabulary", "%d rows", v.VocabSize)
	row("activation", "%s, LayerNorm epsilon %g", v.Activation, v.Epsilon)
	row("head", "%s", map[bool]string{true: "tied to the token embeddings", false: "its own"}[v.Tied])
	row("parameters", "%s", group(p.Total))
	for _, part := range []struct {
		name string
		n    int64
	}{{"token embeddings", p.Tokens}, {"position embeddings", p.Positions}, {"attention", p.Attention}, {"MLP", p.MLP}, {"layer norms", p.LayerNorms}, {"head", p.Head}} {
		if part.n > 0 {
			row("  "+part.name, "%s (%.1f %%)", group(part.n), 100*float64(part.n)/float64(p.Total))
		}
	}
	if q := v.Quantization; q != nil {
		text := fmt.Sprintf("%s, %.2f bits a weight", q.Weights, q.Bits)
		if q.Group > 0 {
			text += fmt.Sprintf(", a scale for %d", q.Group)
		}
		if c := q.Calibration; c != nil {
			text += fmt.Sprintf("; %s on %s tokens of %s documents", c.Method, group(int64(c.Tokens)), group(int64(c.Documents)))
		}
		row("weights", "%s", text)
		row("memory", "%s, mapped", bytesText(q.Bytes))
	} else {
		row("memory", "%s in f32, %s in bf16", bytesText(v.WeightBytes["f32"]), bytesText(v.WeightBytes["bf16"]))
	}
	row("KV cache", "%s a token in f32, %s in bf16; %s for a full context in f32", bytesText(v.KVBytes["f32"]), bytesText(v.KVBytes["bf16"]), bytesText(v.KVBytes["f32"]*int64(v.Positions)))
	row("element types", "%s", strings.Trim(fmt.Sprint(v.DTypes), "[]"))
	for _, x := range v.Files {
		row("file", "%s, %s, %d tensors", printable(x.Name), bytesText(x.Bytes), x.Tensors)
	}
	row("tokenizer", "%s", v.Tokenizer)
	if err := w.Flush(); err != nil {
		return err
	}
	// A table of its own: its names are longer.
	for _, t := range v.Tensors {
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\n", printable(t.Name), t.DType, t.Shape, printable(t.File))
	}
	return w.Flush()
}

func inspectTokenizer(fsys fs.FS) *tokenizerInfo {
	have := false
	for _, name := range []string{"tokenizer.json", "vocab.json"} {
		_, err := fs.Stat(fsys, name)
		have = have || err == nil
	}
	if !have {
		return nil
	}
	t, err := tokenizer.LoadFS(fsys, ".")
	if err != nil {
		return &tokenizerInfo{Error: err.Error()}
	}
	info := &tokenizerInfo{Tokens: t.VocabSize()}
	if fim, ok := t.FIM(); ok {
		info.FIM = map[string]int{"prefix": int(fim.Prefix), "middle": int(fim.Middle), "suffix": int(fim.Suffix)}
	}
	return info
}

func (t *tokenizerInfo) String() string {
	switch {
	case t == nil:
		return "none"
	case t.Error != "":
		return "unreadable: " + t.Error
	case t.FIM == nil:
		return fmt.Sprintf("%d tokens, none for FIM", t.Tokens)
	}
	return fmt.Sprintf("%d tokens; FIM prefix %d, middle %d, suffix %d", t.Tokens, t.FIM["prefix"], t.FIM["middle"], t.FIM["suffix"])
}

func modelConvert(ctx context.Context, dir, to string, o model.SaveOptions, out io.Writer) (err error) {
	if err := mustBeNew(to); err != nil {
		return err
	}
	f, err := modelFolder(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := f.Weights(ctx)
	if err != nil {
		return err
	}
	o.Assets = f.FS
	if err := model.Save(ctx, to, f.Config, w, o); err != nil {
		return err
	}
	written, err := model.Open(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, written.Close()) }()
	for _, x := range written.Info().Files {
		fmt.Fprintf(out, "%s/%s\t%s\t%d tensors\n", to, x.Name, bytesText(x.Bytes), x.Tensors)
	}
	return nil
}

// mustBeNew refuses to replace a folder that holds something.
func mustBeNew(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--out %s: %w", dir, err)
	case len(entries) > 0:
		return usageError("--out %s: exists already, expected a new or empty folder", dir)
	}
	return nil
}

// group writes n with a comma between thousands.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText writes a size in decimal units.
func bytesText(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
