package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/devices"
	"autodev/configs"
	"autodev/data"
	"autodev/data/fim"
	"autodev/data/pack"
	"autodev/data/source"
	"autodev/data/split"
	"autodev/lora"
	"autodev/model"
	"autodev/tokenizer"
	"autodev/train/graph"
)

// job is a run made ready: everything the recipe names, opened, but no training state yet.
type job struct {
	recipe   configs.Recipe
	config   model.Config
	assets   fs.FS         // tokenizer and other files to put beside a saved model
	adapter  *lora.Adapter // nil for full training
	tok      *tokenizer.Tokenizer
	plans    *graph.Training
	device   *devices.Device
	groups   []graph.Hyper // without the learning rate
	scale    *lossScale    // in float16; else nil
	schedule schedule
	total    int // optimiser steps
	sequence int

	windows  pack.Windows
	sources  []*source.Set // what the recipe names, for what they left out
	print    string        // fingerprint of the training documents
	eval     data.Source   // nil: nothing to measure on
	sentinel fim.Sentinels
	base     *Base  // open until its weights have been read
	origin   string // hash of the weights that training starts from and of the tokenizer
	log      *slog.Logger
}

// prepare opens what the recipe names. total is the number of steps a resumed run has settled on, 0 for a new one.
func prepare(ctx context.Context, r configs.Recipe, o *Options, spec devices.Spec, total int) (_ *job, err error) {
	j := &job{recipe: r, log: o.Logger}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.close())
		}
	}()
	base, err := j.openModel(ctx, o)
	if err != nil {
		return nil, err
	}
	if j.sequence, err = sequenceOf(&r, j.config); err != nil {
		return nil, err
	}
	if err := j.openData(ctx, o, total); err != nil {
		return nil, err
	}
	j.schedule = newSchedule(r.Train, j.total)
	identity := sha256.New()
	if err := j.plan(ctx, spec, base, identity); err != nil {
		return nil, err
	}
	if err := j.tok.WriteJSON(identity); err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	j.origin = hex.EncodeToString(identity.Sum(nil))
	return j, j.closeBase()
}

// sequenceOf returns the tokens of a window.
func sequenceOf(r *configs.Recipe, c model.Config) (int, error) {
	n := r.Data.Sequence
	if n == 0 {
		n = c.Positions
	}
	if n > c.Positions {
		return 0, fmt.Errorf("data.sequence: found %d, expected at most the model's %d positions", n, c.Positions)
	}
	return n, nil
}

// closeBase closes the model that training starts from.
func (j *job) closeBase() error {
	b := j.base
	j.base = nil
	if b == nil || b.Close == nil {
		return nil
	}
	return b.Close()
}

// close releases what the job holds, and says what its sources left out.
func (j *job) close() error {
	errs := []error{j.closeBase()}
	if j.windows != nil {
		errs = append(errs, j.windows.Close())
	}
	for _, s := range j.sources {
		skipped := s.Skipped()
		for _, reason := range slices.Sorted(maps.Keys(skipped)) {
			j.log.Warn("documents skipped", "count", skipped[reason], "reason", reason)
		}
	}
	if j.plans != nil {
		errs = append(errs, j.plans.Free())
	}
	if j.device != nil {
		errs = append(errs, j.device.Close())
	}
	return errors.Join(errs...)
}

// openModel finds the initial weights, which it returns, and the tokenizer.
func (j *job) openModel(ctx context.Context, o *Options) (model.Source, error) {
	var weights model.Source
	if i := j.recipe.Init; i != nil {
		tok, err := tokenizer.Load(i.Tokenizer)
		if err != nil {
			return nil, err
		}
		if j.config, err = newConfig(i, tok); err != nil {
			return nil, err
		}
		dir := i.Tokenizer
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			dir = filepath.Dir(dir)
		}
		j.tok, j.assets = tok, os.DirFS(dir)
		weights = model.Random(j.config, j.recipe.Seed)
	} else {
		if o.Open == nil {
			return nil, fmt.Errorf("model %s: no way to open models was given", j.recipe.Model)
		}
		base, err := o.Open(ctx, j.recipe.Model)
		if err != nil {
			return nil, err
		}
		j.base = base
		if j.config, err = base.Config.WithVocab(base.Tokenizer.VocabSize()); err != nil {
			return nil, fmt.Errorf("model %s: %w", j.recipe.Model, err)
		}
		j.tok, j.assets, weights = base.Tokenizer, base.FS, base.Weights
	}
	j.sentinel = fim.SentinelsOf(j.tok)
	if l := j.recipe.LoRA; l != nil {
		var err error
		j.adapter, err = lora.New(j.config, adapterSpec(l), j.recipe.Seed)
		if err != nil {
			return nil, err
		}
		j.adapter.Base = j.recipe.Model
	}
	return weights, nil
}

func adapterSpec(l *configs.LoRA) lora.Spec {
	return lora.Spec{Rank: l.Rank, Alpha: l.Alpha, RSLoRA: l.RSLoRA, Dropout: l.Dropout, Targets: l.Targets, Init: lora.Init(l.Init)}
}

// newConfig describes the model of an init section.
func newConfig(i *configs.Init, tok *tokenizer.Tokenizer) (model.Config, error) {
	c := model.Config{
		Architecture: model.GPTBigCode, VocabSize: tok.VocabSize(), Vocab: tok.VocabSize(), Positions: i.NPositions,
		Embed: i.NEmbd, Layers: i.NLayer, Heads: i.NHead, KVHeads: 1, Inner: i.NInner, Epsilon: 1e-5, Tied: true, ScaleAttention: true,
		EmbeddingDropout: i.Dropout, AttentionDropout: i.Dropout, ResidualDropout: i.Dropout, InitStd: i.InitializerRange, BOS: -1,
	}
	if !i.MultiQuery {
		c.KVHeads = i.NHead
	}
	switch i.Activation {
	case "gelu":
		c.Activation = compute.GELUErf
	case "relu":
		c.Activation = compute.ReLU
	default:
		c.Activation = compute.GELUTanh
	}
	if id, ok := tok.EOS(); ok {
		c.BOS, c.EOS = int(id), []int{int(id)}
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("init: %w", err)
	}
	return c, nil
}

// load puts the parameters of src into the plans, one at a time, and writes them to identity.
func load(ctx context.Context, plans *graph.Training, src model.Source, c model.Config, identity hash.Hash) error {
	buf := make([]byte, 0, 1<<16)
	read := func(name string) (*model.Tensor, error) { return src.Read(name) }
	if into, ok := src.(interface {
		ReadInto(name string, buf []float32) (*model.Tensor, error)
	}); ok {
		// One tensor's memory serves all.
		var kept []float32
		read = func(name string) (*model.Tensor, error) {
			t, err := into.ReadInto(name, kept)
			if err == nil && len(t.Data) > len(kept) {
				kept = t.Data
			}
			return t, err
		}
	}
	for _, p := range c.Params() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("load the model: %w", err)
		}
		t, err := read(p.Name)
		if err != nil {
			return err
		}
		if err := plans.SetParam(p.Name, t.Data); err != nil {
			return err
		}
		fmt.Fprintf(identity, "%s %v\n", t.Name, t.Shape)
		for i, v := range t.Data {
			if buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v)); len(buf) == cap(buf) || i == len(t.Data)-1 {
				identity.Write(buf)
				buf = buf[:0]
			}
		}
	}
	return nil
}

// openData opens the sources and settles the number of steps.
func (j *job) openData(ctx context.Context, o *Options, total int) error {
	d := &j.recipe.Data
	train, eval := o.Train, o.Eval
	var err error
	if train == nil {
		if train, err = j.openSources(ctx, d.Train); err != nil {
			return fmt.Errorf("data.train: %w", err)
		}
	}
	if eval == nil && len(d.Eval) > 0 {
		if eval, err = j.openSources(ctx, d.Eval); err != nil {
			return fmt.Errorf("data.eval: %w", err)
		}
	}
	if eval == nil {
		if train, eval, err = divide(ctx, d, train); err != nil {
			return fmt.Errorf("data.split: %w", err)
		}
		if err := expectDocuments(ctx, d.Split, train, eval); err != nil {
			return err
		}
	}
	if eval != nil && j.recipe.Eval.MaxDocuments > 0 {
		if eval, err = data.Limit(ctx, eval, j.recipe.Eval.MaxDocuments); err != nil {
			return fmt.Errorf("data.eval: %w", err)
		}
	}
	j.eval, j.print = eval, train.Fingerprint()

	j.total = j.recipe.Train.Steps
	if j.total == 0 {
		j.total = total
	}
	if j.total == 0 {
		if j.total, err = j.countSteps(ctx, train); err != nil {
			return err
		}
	}
	// The stream must outlive an interruption of ctx, so that its position can still be saved.
	j.windows, err = j.stream(context.WithoutCancel(ctx), train, uint64(j.recipe.Train.Epochs))
	return err
}

func (j *job) openSources(ctx context.Context, list []configs.Source) (data.Source, error) {
	var parts []data.Source
	for _, s := range list {
		src, err := source.Open(ctx, source.Options{
			Column: s.Column, Languages: s.Languages, Format: s.Format, MaxDocuments: s.MaxDocuments, Logger: j.log,
		}, s.Path)
		if err != nil {
			return nil, err
		}
		j.sources = append(j.sources, src)
		parts = append(parts, src)
	}
	return data.Concat(parts...), nil
}

// maxOriginalBytes bounds the text that the original protocol's split may hold in memory.
const maxOriginalBytes = 64 << 30

// divide takes evaluation documents out of the training documents as the recipe says; eval is nil if it does not.
func divide(ctx context.Context, d *configs.Data, src data.Source) (train, eval data.Source, err error) {
	if d.Protocol == "original" {
		fraction, seed := split.OriginalTestSize, uint64(split.OriginalSeed)
		if d.Split != nil {
			fraction, seed = d.Split.Fraction, d.Split.Seed
		}
		return split.Original(ctx, src, fraction, seed, maxOriginalBytes)
	}
	switch s := d.Split; {
	case s == nil:
		return src, nil, nil
	case s.By == "document":
		held := func(doc data.Document) bool {
			alone := data.Document{Content: doc.Content}
			if doc.Path != "" {
				alone.Path = doc.Repository + "\x00" + doc.Path
			}
			return split.HeldOut(alone, s.Seed, s.Fraction)
		}
		name := fmt.Sprintf("document %d %v", s.Seed, s.Fraction)
		train = data.Filter(src, "train by "+name, func(doc data.Document) bool { return !held(doc) })
		return train, data.Filter(src, "eval by "+name, held), nil
	case s.By == "files":
		return split.ByFiles(src, s.Files)
	default:
		return split.ByRepository(src, s.Seed, s.Fraction)
	}
}

// expectDocuments makes sure before training, and not when it is first measured, that a split leaves something to learn from and to
// measure on: of a handful of repositories a small fraction is likely to be none.
func expectDocuments(ctx context.Context, s *configs.Split, train, eval data.Source) error {
	if s == nil || eval == nil {
		return nil
	}
	switch none, err := empty(ctx, train); {
	case err != nil:
		return fmt.Errorf("data.train: %w", err)
	case none:
		return errors.New("data.train: found no document to train on, expected one at least beside those that data.split holds out")
	}
	switch none, err := empty(ctx, eval); {
	case err != nil:
		return fmt.Errorf("data.split: %w", err)
	case none && s.By == "files":
		return errors.New("data.split: found none of the files to evaluate on in data.train")
	case none:
		return fmt.Errorf("data.split: fraction %v by %s holds no document out to evaluate on, expected one at least: raise data.split.fraction, set data.split.by=document, or name data.eval", s.Fraction, s.By)
	}
	return nil
}

// empty reports whether src has no document.
func empty(ctx context.Context, src data.Source) (none bool, err error) {
	r := data.Open(ctx, src, data.Cursor{})
	defer func() { err = errors.Join(err, r.Close()) }()
	_, _, err = r.Next()
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// stream opens the windows of the recipe's protocol.
func (j *job) stream(ctx context.Context, src data.Source, epochs uint64) (pack.Windows, error) {
	d := &j.recipe.Data
	if d.Protocol == "original" {
		if j.recipe.Seed > math.MaxUint32 {
			return nil, fmt.Errorf("seed: found %d, expected at most %d with the original protocol", j.recipe.Seed, uint32(math.MaxUint32))
		}
		w, err := pack.NewOriginal(ctx, src, j.tok, pack.OriginalConfig{
			FIMRate: d.FIM.Rate, SPMRate: d.FIM.SPMRate, Sentinels: j.sentinel, Sequence: j.sequence, Seed: uint32(j.recipe.Seed), Endless: epochs != 1,
		})
		if err != nil {
			return nil, err
		}
		return w, nil
	}
	w, err := pack.NewStream(ctx, src, j.tok, pack.Config{
		FIM:       fim.Options{Rate: d.FIM.Rate, SPMRate: d.FIM.SPMRate, Level: fim.Level(d.FIM.Level), Scope: fim.Scope(d.FIM.Scope)},
		Sentinels: j.sentinel,
		Pack:      pack.Options{Sequence: j.sequence, LossOn: pack.LossOn(d.FIM.LossOn), CrossDocuments: d.CrossDocuments},
		Seed:      j.recipe.Seed,
		Epochs:    epochs,
		Shuffle:   pack.Shuffle{Off: !d.Shuffle, Documents: d.ShuffleBuffer},
		Workers:   j.recipe.Threads,
	})
	if err != nil {
		return nil, err
	}
	if !d.Shuffle || d.ShuffleWindows < 2 {
		return w, nil
	}
	shuffled, err := pack.NewShuffled(w, d.ShuffleWindows, j.recipe.Seed)
	if err != nil {
		return nil, err
	}
	return shuffled, nil
}

// countSteps reads the training data once and returns the whole steps that the recipe's epochs make.
func (j *job) countSteps(ctx context.Context, src data.Source) (n int, err error) {
	epochs, times := uint64(j.recipe.Train.Epochs), 1
	if j.recipe.Data.Protocol == "original" {
		// Every pass of the original has the same windows.
		epochs, times = 1, j.recipe.Train.Epochs
	}
	w, err := j.stream(ctx, src, epochs)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	count := 0
	for {
		if _, err := w.Next(ctx); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		count++
	}
	step := j.windowsPerStep()
	if n = count * times / step; n == 0 {
		return 0, fmt.Errorf("train.epochs: the data makes %d windows of %d tokens, expected at least the %d of one step", count*times, j.sequence, step)
	}
	return n, nil
}

func (j *job) windowsPerStep() int { return j.recipe.Train.MicroBatch * j.recipe.Train.Accumulation }

// planConfig says what plans the recipe needs for a model, its adapters and a kind of device.
func planConfig(r *configs.Recipe, c model.Config, sequence int, adapters []graph.Adapter, k devices.Kind) graph.Config {
	t := &r.Train
	decays := map[string]bool{}
	for _, p := range c.Params() {
		decays[p.Name] = p.Kind.Decays()
	}
	cfg := graph.Config{
		Model: c, Batch: t.MicroBatch, Seq: sequence,
		ModelDropout: t.Dropout == "model", Checkpointing: t.GradientCheckpointing, Memory: int64(t.MemoryGB * 1e9), Precision: precision(r.Precision, k),
		Once: t.Accumulation == 1, Adapters: adapters,
		Group: func(param string, _ []int) int {
			if adapted := strings.HasSuffix(param, ".lora_A") || strings.HasSuffix(param, ".lora_B"); adapted || decays[param] || t.DecayAll {
				return 0
			}
			return 1
		},
	}
	cfg.Storage = devices.Storage(k, cfg.Precision.Operands())
	return cfg
}

func adaptersOf(modules []lora.Module, dropout float64) []graph.Adapter {
	var adapters []graph.Adapter
	for _, m := range modules {
		adapters = append(adapters, graph.Adapter{Module: m.Name, Rank: m.Rank, Scale: m.Scale, Dropout: dropout})
	}
	return adapters
}

// plan makes the plans, allocates their memory and puts the initial weights there; it writes them to identity too.
func (j *job) plan(ctx context.Context, spec devices.Spec, base model.Source, identity hash.Hash) (err error) {
	t := &j.recipe.Train
	var adapters []graph.Adapter
	if j.adapter != nil {
		adapters = adaptersOf(j.adapter.Modules, j.adapter.Dropout)
	}
	cfg := planConfig(&j.recipe, j.config, j.sequence, adapters, spec.Kind)
	fits := func(free int64) string { return whatFits(ctx, j.recipe, j.config, j.sequence, spec.Kind, free) }
	if j.device, err = devices.Open(spec, devices.Options{Threads: j.recipe.Threads, Fits: fits}); err != nil {
		return err
	}
	if spec.Kind == devices.CPU && cfg.Precision == graph.BF16 && !cpu.HasBF16() {
		j.log.Warn("this processor has no bfloat16 arithmetic: precision bf16 is emulated, which is slower than float32", "device", j.device.Name())
	}
	plans, err := graph.Build(cfg, j.device.Device)
	if err != nil {
		return err
	}
	if err := plans.Alloc(); err != nil {
		return err
	}
	j.plans = plans
	if cfg.Precision == graph.Float16 {
		j.scale = newLossScale()
	}
	for range plans.Buffers().Hyper {
		h := graph.Hyper{Beta1: t.Beta1, Beta2: t.Beta2, Epsilon: t.Epsilon}
		if len(j.groups) == 0 {
			h.WeightDecay = t.WeightDecay
		}
		j.groups = append(j.groups, h)
	}
	if err := load(ctx, plans, base, j.config, identity); err != nil {
		return err
	}
	if j.adapter != nil {
		for _, m := range j.adapter.Modules {
			for _, name := range []string{m.A(), m.B()} {
				if err := plans.SetParam(name, j.adapter.Data(name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// info describes the run for the record.
func (j *job) info() *RunInfo {
	i := &RunInfo{Steps: j.total, Plan: j.plans.Hash(), Data: j.print}
	for _, p := range j.plans.Params() {
		n := int64(p.Weight.Len())
		i.Parameters += n
		if p.Trained {
			i.Trained += n
		}
	}
	return i
}
