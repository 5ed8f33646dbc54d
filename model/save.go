package model

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"autodev/internal/atomicdir"
	"autodev/internal/sizedfile"
	"autodev/model/dtype"
	"autodev/model/safetensors"
)

// SaveOptions says how a folder is written. The zero value writes float32 in the family's own layout.
type SaveOptions struct {
	DType         dtype.DType  // F32 when empty, or F16 or BF16, rounded to nearest even
	MaxShardBytes int64        // tensor bytes per weight file; 5 GB when 0
	Layout        Architecture // the family to write as; the model's own when empty
	Assets        fs.FS        // a model folder whose tokenizer, chat template and generation_config.json are copied; none when nil
}

const (
	defaultShardBytes = 5_000_000_000
	generationFile    = "generation_config.json"
	chatTemplateFile  = "chat_template.jinja"
)

// Save writes the model as a folder that transformers loads: the folder appears whole or not at all, and a model folder
// that was at dir is replaced. A folder of anything else is not: it is an error. Same model, same bytes.
func Save(ctx context.Context, dir string, c Config, w *Weights, o SaveOptions) error {
	return save(dir, func(tmp string) error { return SaveInto(ctx, tmp, c, w, o) })
}

// SaveFrom is Save for parameters that come from anywhere: each is read when its turn to be written comes, so that a model need
// not fit into memory.
func SaveFrom(ctx context.Context, dir string, c Config, src Source, o SaveOptions) error {
	return save(dir, func(tmp string) error { return saveInto(ctx, tmp, c, src, o) })
}

func save(dir string, fill func(tmp string) error) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		// Other programs have a config.json too.
		if _, err := ReadConfig(os.DirFS(dir), filepath.ToSlash(dir)); err != nil {
			return fmt.Errorf("save %s: the folder is there, expected none or a model's that may be replaced: %w", dir, err)
		}
	}
	if err := atomicdir.Write(dir, fill); err != nil {
		return fmt.Errorf("save %s: %w", dir, err)
	}
	return nil
}

// SaveInto writes the files of Save into the existing folder dir; the caller sees to it that dir appears whole. The parameters
// may come from anywhere, as with SaveFrom.
func SaveInto(ctx context.Context, dir string, c Config, src Source, o SaveOptions) error {
	if converted, err := c.convert(cmp.Or(o.Layout, c.Architecture)); err == nil {
		if w, ok := src.(*Weights); !ok {
			// Each parameter is checked when it is read.
		} else if err := w.Check(converted); err != nil {
			return fmt.Errorf("save %s: %w", dir, err)
		}
	}
	return saveInto(ctx, dir, c, src, o)
}

func saveInto(ctx context.Context, dir string, c Config, src Source, o SaveOptions) error {
	if o.DType == "" {
		o.DType = dtype.F32
	}
	if o.Layout == "" {
		o.Layout = c.Architecture
	}
	if o.MaxShardBytes == 0 {
		o.MaxShardBytes = defaultShardBytes
	}
	if o.DType != dtype.F32 && o.DType != dtype.F16 && o.DType != dtype.BF16 {
		return fmt.Errorf("save %s: element type %s, expected F32, F16 or BF16", dir, o.DType)
	}
	if o.MaxShardBytes < 1 {
		return fmt.Errorf("save %s: shards of %d bytes, expected at least 1", dir, o.MaxShardBytes)
	}
	c, err := c.convert(o.Layout)
	if err == nil {
		err = c.Validate()
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", dir, err)
	}
	if err := saveConfig(dir, c, o.DType, nil, o.Assets); err != nil {
		return err
	}
	return saveWeights(ctx, dir, c, src, o)
}

// SaveConfig writes what a folder of c holds beside its weights into the existing folder dir: config.json with the fields of
// extra added, the files of assets that belong to the tokenizer, the chat template, and generation_config.json.
func SaveConfig(dir string, c Config, extra map[string]any, assets fs.FS) error {
	c, err := c.convert(c.Architecture)
	if err != nil {
		return fmt.Errorf("save %s: %w", dir, err)
	}
	return saveConfig(dir, c, dtype.F32, extra, assets)
}

func saveConfig(dir string, c Config, d dtype.DType, extra map[string]any, assets fs.FS) error {
	config, err := c.configJSON(d, extra)
	if err != nil {
		return fmt.Errorf("save %s: %s: %w", dir, ConfigFile, err)
	}
	if err := writeFile(filepath.Join(dir, ConfigFile), config); err != nil {
		return err
	}
	copied, err := copyAssets(dir, assets)
	if err != nil || copied {
		return err
	}
	ids := c.tokenIDs()
	ids["_from_model_config"] = true
	gen, err := marshal(ids)
	if err != nil {
		return fmt.Errorf("save %s: %s: %w", dir, generationFile, err)
	}
	return writeFile(filepath.Join(dir, generationFile), gen)
}

// saveWeights writes model.safetensors, or shards and their index when one file would be too large.
func saveWeights(ctx context.Context, dir string, c Config, src Source, o SaveOptions) error {
	var shards [][]safetensors.Tensor
	var total, size int64
	for _, p := range c.Params() {
		t := c.fileTensor(p, src, o.DType)
		n := t.Size()
		if len(shards) == 0 || size+n > o.MaxShardBytes && size > 0 {
			shards = append(shards, nil)
			size = 0
		}
		last := len(shards) - 1
		shards[last] = append(shards[last], t)
		size += n
		total += n
	}
	weightMap := map[string]string{}
	for i, s := range shards {
		name := SafetensorsFile
		if len(shards) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
		for j := range s {
			weightMap[s[j].Name] = name
			write := s[j].Data
			s[j].Data = func(w io.Writer) error {
				if err := ctx.Err(); err != nil {
					return err
				}
				return write(w)
			}
		}
		if err := writeTensors(filepath.Join(dir, name), s); err != nil {
			return err
		}
	}
	if len(shards) == 1 {
		return nil
	}
	b, err := marshal(map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": weightMap})
	if err != nil {
		return fmt.Errorf("%s: %w", SafetensorsIndex, err)
	}
	return writeFile(filepath.Join(dir, SafetensorsIndex), b)
}

// fileTensor returns parameter p as c's family keeps it. It is read, and a rearranged copy exists, only while it is written.
func (c Config) fileTensor(p ParamSpec, src Source, d dtype.DType) safetensors.Tensor {
	x := c.pieces(layoutOf(c.Architecture), p)[0] // both families written keep a parameter in one tensor
	return safetensors.Tensor{Name: x.name, DType: d, Shape: x.shape, Data: func(w io.Writer) error {
		t, err := src.Read(p.Name)
		if err != nil {
			return err
		}
		if x.move == same {
			return safetensors.Float32(x.name, x.shape, t.Data, d).Data(w)
		}
		tmp := make([]float32, len(t.Data))
		if x.move == transpose {
			transposeInto(tmp, t.Data, p.Shape[0], p.Shape[1])
		} else {
			width := len(t.Data) / p.Shape[0]
			groupRows(tmp, t.Data, c.Heads, c.HeadDim(), width, true)
		}
		return safetensors.Float32(x.name, x.shape, tmp, d).Data(w)
	}}
}

func writeTensors(name string, ts []safetensors.Tensor) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := bufio.NewWriterSize(f, 1<<20)
	if err := safetensors.Write(b, ts, map[string]string{"format": "pt"}); err != nil {
		return fmt.Errorf("write %s: %w", name, sizedfile.Cause(err))
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", name, sizedfile.Cause(err))
	}
	return nil
}

func writeFile(name string, b []byte) error {
	if err := os.WriteFile(name, b, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, sizedfile.Cause(err))
	}
	return nil
}

// copyAssets copies what belongs to a model beside configuration and weights, and reports whether generation_config.json was
// among it.
func copyAssets(dir string, from fs.FS) (generation bool, err error) {
	if from == nil {
		return false, nil
	}
	for _, name := range append(TokenizerFiles(), chatTemplateFile, generationFile) {
		src, _, err := sizedfile.OpenFS(from, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("copy %s: %w", name, sizedfile.Cause(err))
		}
		err = copyTo(filepath.Join(dir, name), src)
		if err := errors.Join(err, src.Close()); err != nil {
			return false, fmt.Errorf("copy %s: %w", name, err)
		}
		generation = generation || name == generationFile
	}
	return generation, nil
}

func copyTo(name string, src io.Reader) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, src); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
