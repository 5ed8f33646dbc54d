package train

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"autodev/compute"
	"autodev/compute/devices"
	"autodev/configs"
	"autodev/data"
	"autodev/internal/atomicdir"
	"autodev/model"
	"autodev/tokenizer"
	"autodev/train/graph"
)

// Resume says what to do with the checkpoints of an earlier run in the output folder.
type Resume string

const (
	// ResumeAuto goes on from the newest checkpoint, or begins when there is none.
	ResumeAuto Resume = "auto"
	// ResumeNever begins, and refuses to when there are checkpoints, so that none is lost.
	ResumeNever Resume = "never"
)

// Options are what a run needs beside its recipe.
type Options struct {
	Resume Resume // ResumeAuto when empty
	// Open opens the model that a recipe names. Not needed for recipes with init.
	Open func(ctx context.Context, name string) (*Base, error)
	// Train and Eval, where not nil, stand in for the sources that the recipe names.
	Train, Eval data.Source
	Progress    io.Writer    // progress for people; nil: none
	Logger      *slog.Logger // slog.Default() when nil
}

// Base is a model to start from.
type Base struct {
	Config    model.Config
	Weights   model.Source // read parameter by parameter, so that they need not be in memory
	FS        fs.FS        // the model's folder, for the other files that go with a saved model
	Tokenizer *tokenizer.Tokenizer
	Close     func() error // called when the weights have been read; nil: nothing to close
}

// Summary is what a run came to.
type Summary struct {
	Steps           int           // optimiser steps in all
	Resumed         int           // the step that this call began after
	Tokens          int64         // tokens read in all, padding included
	Loss            float64       // of the last step taken by this call
	Skipped         int           // steps in all that float16 overflowed in and that changed nothing
	Eval            *EvalResult   // the last measurement of this call; nil: none was made
	Duration        time.Duration // of this call
	TokensPerSecond float64       // of this call's steps
	PlannedBytes    int64         // memory of weights, gradients, optimiser and activations
	Final           string        // folder of the finished model or adapter
}

// InterruptedError reports that the context of a run ended. Everything up to Step is safe in Checkpoint, from which the
// same call goes on. It wraps the context's error.
type InterruptedError struct {
	Step       int
	Checkpoint string // "" when no step was done yet
	Err        error
}

func (e *InterruptedError) Error() string {
	if e.Checkpoint == "" {
		return "interrupted before the first step"
	}
	return fmt.Sprintf("interrupted after step %d, which is saved in %s; the same command goes on from there", e.Step, e.Checkpoint)
}

func (e *InterruptedError) Unwrap() error { return e.Err }

// Run trains as the recipe says and leaves in its output folder: checkpoint-N folders, the finished model or PEFT adapter in
// final, the record train.jsonl and TensorBoard's events. What is left after a stop or kill at any moment is gone on from
// by the same call, and the result has the same bytes as that of an undisturbed run, whatever the number of threads.
//
// When ctx ends, Run saves a checkpoint and returns an *InterruptedError.
func Run(ctx context.Context, r configs.Recipe, o Options) (*Summary, error) {
	begun := time.Now()
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Resume == "" {
		o.Resume = ResumeAuto
	}
	if o.Resume != ResumeAuto && o.Resume != ResumeNever {
		return nil, fmt.Errorf("resume: found %q, expected %s or %s", o.Resume, ResumeAuto, ResumeNever)
	}
	if r.Out == "" {
		return nil, errors.New("out: found nothing, expected the folder for the results")
	}
	spec, err := settle(ctx, &r, &o)
	if err != nil {
		return nil, err
	}
	created, err := makeFolders(r.Out)
	if err != nil {
		return nil, fmt.Errorf("out: %w", err)
	}
	unlock, err := lock(r.Out)
	if err != nil {
		return nil, err
	}
	sum, err := start(ctx, r, &o, spec)
	if sum != nil {
		sum.Duration = time.Since(begun)
	}
	if err != nil {
		removeEmpty(created)
	}
	return sum, errors.Join(err, unlock())
}

// makeFolders makes dir and those it lies in, and returns the ones that were not there, dir first.
func makeFolders(dir string) (created []string, err error) {
	for d := filepath.Clean(dir); len(created) == 0 || d != created[len(created)-1]; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		created = append(created, d)
	}
	return created, os.MkdirAll(dir, 0o755)
}

// removeEmpty removes folders that a failed run has made and put nothing into.
func removeEmpty(created []string) {
	for _, d := range created {
		if os.Remove(d) != nil {
			return // something is in it
		}
	}
}

// start is Run with the output folder to itself.
func start(ctx context.Context, r configs.Recipe, o *Options, spec devices.Spec) (*Summary, error) {
	if err := recoverFolders(r.Out); err != nil {
		return nil, err
	}
	s, dir, err := newestState(r.Out, o.Logger.Warn)
	if err != nil {
		return nil, err
	}
	total := 0
	if s != nil {
		if o.Resume == ResumeNever {
			return nil, fmt.Errorf("out: found %s of an earlier run, expected a folder without checkpoints when not resuming", dir)
		}
		if err := s.compatible(&r); err != nil {
			return nil, fmt.Errorf("resume from %s: %w", dir, err)
		}
		total = s.Total
	}
	j, err := prepare(ctx, r, o, spec, total)
	if err != nil {
		return nil, err
	}
	sum := &Summary{PlannedBytes: j.plans.Usage().Total()}
	if s != nil {
		if err = j.restore(ctx, s, dir); err == nil {
			sum.Resumed = s.Step
		}
	}
	if err == nil {
		// What was read is in the plans' memory now, and the collector alone would be slow to give its buffers back.
		debug.FreeOSMemory()
		err = j.run(ctx, sum, o.Progress)
	}
	return sum, errors.Join(err, j.close())
}

// settle replaces what a recipe leaves to the machine, the kind of device and the precision, by what they are in this run: its
// bits depend on them, so the checkpoints record them.
func settle(ctx context.Context, r *configs.Recipe, o *Options) (devices.Spec, error) {
	asked, err := devices.Parse(r.Device)
	if err != nil {
		return asked, fmt.Errorf("device: %w", err)
	}
	log := o.Logger
	spec, err := devices.Resolve(asked, log)
	if err != nil {
		return spec, err
	}
	if spec.Kind == devices.CUDA {
		dim, err := headDim(ctx, r, o)
		if err != nil {
			return spec, err
		}
		if err := devices.Check(spec, devices.Model{HeadDim: dim, Training: true}); err != nil {
			if asked.Kind != devices.Auto {
				return spec, err
			}
			log.Info("computing on the CPU", "reason", err)
			spec = devices.Spec{Kind: devices.CPU}
		}
	}
	p := precision(r.Precision, spec.Kind)
	switch {
	case p == graph.Float16 && spec.Kind == devices.CPU:
		return spec, errNoFloat16
	case p == graph.BF16 && r.Precision != string(p) && devices.Short(spec) == compute.F16:
		p = graph.Float16
		log.Info("the card has no bfloat16 products: training in float16 with loss scaling", "device", spec)
	}
	r.Device, r.Precision = string(spec.Kind), string(p)
	return spec, nil
}

// headDim returns the dimension of the heads of the model that a recipe trains.
func headDim(ctx context.Context, r *configs.Recipe, o *Options) (int, error) {
	if i := r.Init; i != nil {
		return i.NEmbd / max(1, i.NHead), nil
	}
	if o.Open == nil {
		return 0, nil // which opening the model reports
	}
	base, err := o.Open(ctx, r.Model)
	if err != nil {
		return 0, err
	}
	return base.Config.HeadDim(), (&job{base: base}).closeBase()
}

var errNoFloat16 = errors.New("precision: found float16, expected bf16 or float32 on the CPU, which has no products in float16")

// precision is what a recipe's precision means on a kind of device, on CUDA on a card of today (settle looks which it is).
func precision(text string, k devices.Kind) graph.Precision {
	switch {
	case text != "auto" && text != "":
		return graph.Precision(text)
	case k == devices.CUDA:
		return graph.BF16
	}
	return graph.Float32
}

// due reports whether something that happens every so many steps, and at the end, happens after step n.
func due(n, every, total int) bool { return n == total || every > 0 && n%every == 0 }

// run takes the steps that are left.
func (j *job) run(ctx context.Context, sum *Summary, progress io.Writer) (err error) {
	begin := sum.Resumed
	rec, measured, err := openRecord(filepath.Join(j.recipe.Out, RecordFile), begin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rec.close()) }()
	board, err := openEvents(filepath.Join(j.recipe.Out, "tensorboard"), begin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, board.close()) }()
	if rec.empty {
		if err := rec.add(Entry{Run: j.info()}); err != nil {
			return err
		}
	}
	rep := newReport(progress, begin, j.total)
	defer rep.close()
	if begin > 0 {
		rep.line("resumed after step %d of %d", begin, j.total)
	}

	position, err := j.windows.State()
	if err != nil {
		return err
	}
	saved := begin
	save := func(ctx context.Context, n int) error {
		if saved == n {
			return nil
		}
		if err := rec.sync(); err != nil {
			return err
		}
		if err := j.checkpoint(ctx, n, position); err != nil {
			return err
		}
		saved = n
		return nil
	}
	measure := func(n int) error {
		if j.eval == nil || !due(n, j.recipe.Eval.Every, j.total) || measured == n {
			return nil
		}
		start := time.Now()
		e, err := j.evaluate(ctx, n)
		if err != nil {
			return err
		}
		sum.Eval, measured = &e, n
		if err := rec.add(Entry{Step: n, Eval: &e, Time: timing(start, e.Tokens)}); err != nil {
			return err
		}
		rep.line("step %d of %d: perplexity %.3f on %d documents (%d tokens)", n, j.total, e.Perplexity, e.Documents, e.Tokens)
		return board.add(n, scalar{"eval/loss", e.Loss}, scalar{"eval/perplexity", e.Perplexity})
	}
	// after does what follows step n.
	after := func(n int) error {
		if err := measure(n); err != nil {
			return err
		}
		if !due(n, j.recipe.Checkpoint.Every, j.total) {
			return nil
		}
		return save(ctx, n)
	}

	perStep := j.windowsPerStep() * j.sequence
	sum.Steps, sum.Tokens = begin, int64(begin)*int64(perStep)
	var busy time.Duration
	if begin > 0 {
		// What was to happen after the step may have been cut off.
		if err := j.rotate(begin); err != nil {
			return err
		}
		if err := after(begin); err != nil {
			return j.ended(ctx, err, begin, save)
		}
	}
	for n := begin + 1; n <= j.total; n++ {
		start := time.Now()
		r, err := j.step(ctx, n)
		if err != nil {
			return j.ended(ctx, err, n-1, save)
		}
		busy += time.Since(start)
		t := timing(start, perStep)
		sum.Steps, sum.Tokens, sum.Loss, sum.Skipped = n, r.Tokens, r.Loss, r.Skipped
		sum.TokensPerSecond = float64(n-begin) * float64(perStep) / busy.Seconds()
		if position, err = j.windows.State(); err != nil {
			return err
		}
		if err := rec.add(Entry{Step: n, Train: &r, Time: t}); err != nil {
			return err
		}
		scalars := []scalar{{"train/loss", r.Loss}, {"train/learning_rate", r.LR}, {"train/gradient_norm", r.GradNorm}, {"train/tokens_per_second", t.TokensPerSecond}}
		if j.scale != nil {
			scalars = append(scalars, scalar{"train/loss_scale", r.LossScale})
		}
		if err := board.add(n, scalars...); err != nil {
			return err
		}
		rep.step(n, r, t.TokensPerSecond)
		if err := after(n); err != nil {
			return j.ended(ctx, err, n, save)
		}
	}
	sum.Final = filepath.Join(j.recipe.Out, finalFolder)
	if err := j.gather(); err != nil {
		return err
	}
	if err := atomicdir.Write(sum.Final, func(tmp string) error { return j.saveResult(ctx, tmp) }); err != nil {
		return j.ended(ctx, fmt.Errorf("write %s: %w", sum.Final, err), j.total, save)
	}
	return rec.sync()
}

// ended turns an error after step n into what Run returns. Interruptions and unreadable data save the step first; divergence
// names the last checkpoint.
func (j *job) ended(ctx context.Context, err error, n int, save func(context.Context, int) error) error {
	stopped := ctx.Err() != nil && errors.Is(err, ctx.Err())
	var unreadable *dataError
	if stopped || errors.As(err, &unreadable) {
		if n > 0 {
			if saveErr := save(context.WithoutCancel(ctx), n); saveErr != nil {
				return errors.Join(saveErr, err)
			}
		}
		switch {
		case stopped && n == 0:
			return &InterruptedError{Err: ctx.Err()}
		case stopped:
			return &InterruptedError{Step: n, Checkpoint: checkpointFolder(j.recipe.Out, n), Err: ctx.Err()}
		}
	}
	var d *divergence
	if n > 0 && (unreadable != nil || errors.As(err, &d)) {
		steps, listErr := checkpoints(j.recipe.Out)
		if listErr != nil {
			return errors.Join(err, listErr)
		}
		if len(steps) > 0 {
			return fmt.Errorf("%w; the last checkpoint is %s", err, checkpointFolder(j.recipe.Out, steps[0]))
		}
	}
	return err
}

func timing(start time.Time, tokens int) *Timing {
	now := time.Now()
	s := now.Sub(start).Seconds()
	return &Timing{Seconds: s, TokensPerSecond: float64(tokens) / max(s, 1e-9), At: now.UTC().Format(time.RFC3339Nano)}
}
