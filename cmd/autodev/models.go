package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"

	"autodev/compute/devices"
	"autodev/infer"
	"autodev/lora"
	"autodev/model"
	"autodev/model/packed"
	"autodev/models"
	"autodev/tokenizer"
	"autodev/train"
)

// openModel loads the checkpoint and the tokenizer of the model called name: a folder, or the embedded one for "" and its name.
func openModel(ctx context.Context, name string) (*model.Checkpoint, *tokenizer.Tokenizer, error) {
	ckpt, err := openWeights(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	tok, err := openTokenizer(name)
	return ckpt, tok, err
}

// openBase opens the model called name to train from.
func openBase(ctx context.Context, name string) (*train.Base, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load %s: %w", modelLabel(name), err)
	}
	f, err := modelFolder(name)
	if err != nil {
		return nil, err
	}
	tok, err := openTokenizer(name)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &train.Base{Config: f.Config, Weights: f, FS: f.FS, Tokenizer: tok, Close: f.Close}, nil
}

// openWeights loads a model as float32. It need not have a tokenizer.
func openWeights(ctx context.Context, name string) (*model.Checkpoint, error) {
	fsys, embedded, err := models.Open(name)
	if err != nil {
		return nil, err
	}
	if embedded {
		return model.LoadFS(ctx, fsys, models.Tiny)
	}
	return model.Load(ctx, name)
}

// modelFolder opens the folder called name, which may be the embedded one.
func modelFolder(name string) (*model.Folder, error) {
	fsys, embedded, err := models.Open(name)
	if err != nil {
		return nil, err
	}
	if embedded {
		name = models.Tiny
	}
	return model.OpenFS(fsys, name)
}

// mergeInto adds the adapter in a folder to the weights of ckpt, the model called name.
func mergeInto(ckpt *model.Checkpoint, name, adapter string) (*lora.Adapter, error) {
	a, err := lora.Load(adapter, ckpt.Config)
	if err != nil {
		return nil, err
	}
	if err := a.Merge(ckpt.Weights); err != nil {
		return nil, fmt.Errorf("merge %s into %s: %w", adapter, modelLabel(name), err)
	}
	return a, nil
}

// adapted is a model folder with an adapter added to every parameter that is read.
type adapted struct {
	*model.Folder
	adapter *lora.Adapter
}

func (m adapted) Read(name string) (*model.Tensor, error) { return m.ReadInto(name, nil) }

func (m adapted) ReadInto(name string, buf []float32) (*model.Tensor, error) {
	t, err := m.Folder.ReadInto(name, buf)
	if err != nil {
		return nil, err
	}
	return t, m.adapter.MergeTensor(t)
}

// withAdapter returns the parameters of f, with the adapter in a folder added unless adapter is "".
func withAdapter(f *model.Folder, adapter string) (model.Source, error) {
	if adapter == "" {
		return f, nil
	}
	a, err := lora.Load(adapter, f.Config)
	if err != nil {
		return nil, err
	}
	return adapted{f, a}, nil
}

// isPacked reports whether the model called name is a packed folder.
func isPacked(name string) bool {
	return name != "" && name != models.Tiny && packed.Is(os.DirFS(name))
}

// inferenceFlags choose a model to run.
func inferenceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "model", Usage: "model `FOLDER`, packed or not, or " + models.Tiny, Value: models.Tiny},
		&cli.StringFlag{Name: "adapter", Usage: "`FOLDER` of a PEFT LoRA adapter of the model"},
		&cli.StringFlag{Name: "weights", Usage: "`FORMAT` to keep weights in: " + weightsText() + ", or float16 on CUDA devices (default: what the folder is packed in, else float32, on CUDA bf16, or float16 where the card has no bfloat16)"},
		&cli.StringFlag{Name: "kv-cache", Usage: "`FORMAT` to keep keys and values in: float32, bf16, int8, float16 on CUDA devices, or auto (float32 beside float32 weights, else bf16, or float16 on cards without it)", Value: "auto"},
		&cli.StringFlag{Name: "huge-pages", Usage: "copy packed weights into huge pages of the process's own, which processes do not share but read faster than the mapped file: on (before anything else), off, or auto (in the background, if memory allows)", Value: "auto"},
		&cli.IntFlag{Name: "threads", Usage: "0 takes all processors"},
		deviceFlag(),
	}
}

// weightsText lists the formats of weights.
func weightsText() string {
	var names []string
	for _, w := range infer.WeightFormats() {
		names = append(names, string(w))
	}
	return strings.Join(names, ", ")
}

// parseWeights reads --weights, which may be "".
func parseWeights(s string) (infer.Weights, error) {
	if s == "" {
		return "", nil
	}
	w, err := infer.ParseWeights(s)
	if err != nil {
		return "", usageError("--weights %s: expected one of %s, or float16 on CUDA devices", s, weightsText())
	}
	return w, nil
}

// inferenceOf reads inferenceFlags.
func inferenceOf(c *cli.Context) (f inference, err error) {
	f = inference{model: c.String("model"), adapter: c.String("adapter"), threads: c.Int("threads")}
	if f.threads < 0 {
		return f, usageError("--threads %d: expected 0 or more", f.threads)
	}
	if f.cache, err = infer.ParseCache(c.String("kv-cache")); err != nil {
		return f, usageError("--kv-cache %s: expected auto, float32, bf16 or int8, or float16 on CUDA devices", c.String("kv-cache"))
	}
	if f.hugePages, err = infer.ParseHugePages(c.String("huge-pages")); err != nil {
		return f, usageError("--huge-pages %s: expected auto, on or off", c.String("huge-pages"))
	}
	if f.weights, err = parseWeights(c.String("weights")); err != nil {
		return f, err
	}
	device, err := parseDevice(c.String("device"))
	if err != nil {
		return f, err
	}
	return f.on(device)
}

// inference says what model to run and how.
type inference struct {
	model, adapter string
	device         devices.Spec  // never devices.Auto
	fallback       bool          // the CPU does where device has nothing for the model's weights
	weights        infer.Weights // "" is the folder's own, or float32
	cache          infer.Cache
	threads        int
	hugePages      infer.HugePages
	lost           func(error) // is told that the card is lost; may be nil
}

// open makes the model ready, with the adapter merged into it.
func (f inference) open(ctx context.Context) (*infer.Model, *tokenizer.Tokenizer, error) {
	m, tok, err := f.load(ctx)
	option := (*infer.OptionError)(nil)
	if !errors.As(err, &option) {
		return m, tok, err
	}
	if f.fallback {
		toCPU(err)
		f.device, f.fallback = devices.Spec{Kind: devices.CPU}, false
		return f.open(ctx)
	}
	return nil, nil, optionMisuse(option)
}

func (f inference) load(ctx context.Context) (_ *infer.Model, _ *tokenizer.Tokenizer, err error) {
	o := infer.Options{Device: f.device, Threads: f.threads, Weights: f.weights, Cache: f.cache, HugePages: f.hugePages, Lost: f.lost}
	if isPacked(f.model) {
		if f.adapter != "" {
			return nil, nil, usageError("--adapter %s: the weights of %s are packed, expected a model folder that an adapter can be merged into (quantise the merged model instead)", f.adapter, f.model)
		}
		tok, err := openTokenizer(f.model)
		if err != nil {
			return nil, nil, err
		}
		p, err := packed.Open(f.model)
		if err != nil {
			return nil, nil, err
		}
		m, err := infer.LoadPacked(ctx, p, tok, o)
		if err != nil {
			return nil, nil, err
		}
		settle(m)
		return m, tok, nil
	}
	folder, err := modelFolder(f.model)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	tok, err := openTokenizer(f.model)
	if err != nil {
		return nil, nil, err
	}
	src, err := withAdapter(folder, f.adapter)
	if err != nil {
		return nil, nil, err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(loadingGC)
	}
	m, err := infer.Load(ctx, folder.Dir, folder.Config, src, tok, o)
	settle(m)
	return m, tok, err
}

// loadingGC is the garbage, in percent, that may lie beside a model while it is loaded. Collecting is cheap then: there is
// next to nothing in memory but numbers.
const loadingGC = 15

// settle returns what loading left to the system, and lets garbage grow beside a model by a small part of the model rather than
// by the size of everything else. m may be nil.
func settle(m *infer.Model) {
	debug.FreeOSMemory()
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := int64(100)
	if m != nil {
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		// Requests will add about as much as this to what is there.
		const working = 96 << 20
		garbage := max(12<<20, m.Info().Bytes/48)
		percent = max(3, min(100, 100*garbage/(int64(s.HeapAlloc)+working)))
	}
	debug.SetGCPercent(int(percent))
}

// label is how the model is called in tables.
func (f inference) label() string {
	s := modelLabel(f.model)
	if f.adapter != "" {
		s += " + " + f.adapter
	}
	if f.weights != "" {
		s += " " + string(f.weights)
	}
	return s
}

// modelConfig describes the model called name without loading it.
func modelConfig(name string) (model.Config, error) {
	if isPacked(name) {
		c, _, err := packed.ReadConfig(os.DirFS(name), name)
		return c, err
	}
	fsys, embedded, err := models.Open(name)
	if err != nil {
		return model.Config{}, err
	}
	if embedded {
		name = models.Tiny
	}
	return model.ReadConfig(fsys, name)
}

// modelLabel is how a model is called in tables.
func modelLabel(name string) string {
	if name == "" {
		return models.Tiny
	}
	return name
}
