package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"autodev/configs"
	"autodev/data"
	"autodev/eval"
	"autodev/infer"
	"autodev/internal/progress"
	"autodev/lora"
	"autodev/model"
	"autodev/serve"
	"autodev/serve/registry"
	"autodev/serve/wire"
	"autodev/tokenizer"
	"autodev/train"
)

// evalBytes bounds the table's documents, so that it takes seconds.
const evalBytes = 150 << 10

// Options say where and how long the demo runs.
type Options struct {
	Out     io.Writer // what it says
	ErrOut  io.Writer // progress
	Open    func(ctx context.Context, name string) (*model.Checkpoint, *tokenizer.Tokenizer, error)
	Dir     string        // keeps the results here; "": in a temporary folder that is removed
	GoRoot  string        // "": the toolchain's
	Budget  time.Duration // for both trainings together
	Steps   int           // of each training; 0: the recipe's, fewer on a machine too slow for Budget
	Threads int
}

// Run does the journey: data, full and LoRA fine-tuning, table, server, completions.
func Run(ctx context.Context, o Options) (err error) {
	begun := time.Now()
	if o.GoRoot == "" {
		if o.GoRoot, err = goRoot(ctx); err != nil {
			return err
		}
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "autodev-demo-"); err != nil {
			return fmt.Errorf("demo folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	}
	d := &demo{Options: o}
	for _, step := range []func(context.Context) error{d.read, d.calibrate, d.train, d.table, d.complete} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("\nDone in %v. What it did, by hand: autodev train, autodev eval perplexity, autodev serve.\n", time.Since(begun).Round(time.Second))
	return nil
}

type demo struct {
	Options
	corpus corpus
	base   *model.Checkpoint
	tok    *tokenizer.Tokenizer
	steps  int
	full   string // folder of the fully fine-tuned model
	lora   string // folder of the adapter
}

func (d *demo) say(format string, args ...any) {
	// The demo's words are no result: a closed terminal must not stop it.
	_, _ = fmt.Fprintf(d.Out, format, args...)
}

func (d *demo) read(ctx context.Context) (err error) {
	if d.corpus, err = readCorpus(ctx, d.GoRoot); err != nil {
		return err
	}
	if d.base, d.tok, err = d.Open(ctx, ""); err != nil {
		return err
	}
	d.say("1. Data: the Go standard library on this machine, %d packages, split by package:\n"+
		"   %d files (%.1f MB) to learn from, %d files to evaluate on. The model has never seen Go.\n",
		d.corpus.packages, len(d.corpus.train), float64(d.corpus.bytes)/1e6, len(d.corpus.eval))
	d.corpus.eval = sample(d.corpus.eval, evalBytes)
	return nil
}

// sample returns evenly spaced documents of about maxBytes in all.
func sample(docs data.Slice, maxBytes int) data.Slice {
	total := 0
	for _, d := range docs {
		total += len(d.Content)
	}
	every := (total + maxBytes - 1) / maxBytes
	var out data.Slice
	for i := 0; i < len(docs); i += max(1, every) {
		out = append(out, docs[i])
	}
	return out
}

// recipe returns a shipped recipe with the demo's own settings.
func (d *demo) recipe(name, out string, steps int) (configs.Recipe, error) {
	r, err := configs.Shipped(name, fmt.Sprintf("threads=%d", d.Threads), "eval.max_documents=1")
	if err != nil {
		return r, err
	}
	r.Out = filepath.Join(d.Dir, out)
	if steps > 0 {
		r.Train.Steps = steps
		r.Train.WarmupSteps = min(r.Train.WarmupSteps, (steps+9)/10)
	}
	return r, nil
}

// openBase gives the model that is in memory already.
func (d *demo) openBase(ctx context.Context, name string) (*train.Base, error) {
	ckpt, tok, err := d.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &train.Base{Config: ckpt.Config, Weights: ckpt.Weights, FS: ckpt.FS, Tokenizer: tok}, nil
}

func (d *demo) run(ctx context.Context, r configs.Recipe, progress io.Writer) (*train.Summary, error) {
	return train.Run(ctx, r, train.Options{Resume: train.ResumeNever, Open: d.openBase, Train: d.corpus.train, Progress: progress, Logger: slog.New(slog.DiscardHandler)})
}

// calibrate takes a few steps to see how many fit the budget.
func (d *demo) calibrate(ctx context.Context) (err error) {
	r, err := d.recipe("demo-full.yaml", "", 0)
	if err != nil {
		return err
	}
	d.steps = r.Train.Steps
	if d.Steps > 0 {
		d.steps = d.Steps
		return nil
	}
	if r, err = d.recipe("demo-full.yaml", "", 4); err != nil {
		return err
	}
	// Its results are of no use, and must not be in the way of another demo in the same folder.
	if r.Out, err = os.MkdirTemp("", "autodev-demo-calibration-"); err != nil {
		return fmt.Errorf("demo folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.Out)) }()
	sum, err := d.run(ctx, r, nil)
	if err != nil {
		return err
	}
	perStep := float64(sum.Tokens) / float64(sum.Steps) / sum.TokensPerSecond
	if fit := int(d.Budget.Seconds() / 2 / perStep); fit < d.steps {
		planned := d.steps
		d.steps = max(10, fit)
		d.say("   (This machine takes %.1f s a step: %d steps instead of %d, to be done in time.)\n", perStep, d.steps, planned)
	}
	return nil
}

func (d *demo) train(ctx context.Context) error {
	for i, t := range []struct {
		recipe, out, what string
		final             *string
	}{
		{"demo-lora.yaml", "lora", "LoRA on all linear layers", &d.lora},
		{"demo-full.yaml", "full", "full fine-tuning", &d.full},
	} {
		r, err := d.recipe(t.recipe, t.out, d.steps)
		if err != nil {
			return err
		}
		d.say("\n%d. Training: %s, %d steps (configs/%s)\n", i+2, t.what, d.steps, t.recipe)
		sum, err := d.run(ctx, r, d.ErrOut)
		if err != nil {
			return err
		}
		*t.final = sum.Final
		d.say("   %d tokens in %v, %.0f tokens/s, last loss %.2f, %.2f GB of memory\n",
			sum.Tokens, sum.Duration.Round(time.Second), sum.TokensPerSecond, sum.Loss, float64(sum.PlannedBytes)/1e9)
	}
	return nil
}

// open makes the base model, the base with the adapter or the full result ready for inference.
func (d *demo) open(ctx context.Context, folder, adapter string) (*infer.Model, error) {
	ckpt := d.base
	var err error
	switch {
	case folder != "":
		ckpt, err = model.Load(ctx, folder)
	case adapter != "":
		ckpt = &model.Checkpoint{Config: ckpt.Config, Weights: ckpt.Weights.Clone(), Dir: adapter}
		var a *lora.Adapter
		if a, err = lora.Load(adapter, ckpt.Config); err == nil {
			err = a.Merge(ckpt.Weights)
		}
	}
	if err != nil {
		return nil, err
	}
	return infer.New(ckpt, d.tok, infer.Options{Threads: d.Threads})
}

func (d *demo) table(ctx context.Context) error {
	d.say("\n4. Perplexity on packages none of them has seen:\n\n")
	candidate := func(name, folder, adapter string) eval.Candidate {
		return eval.Candidate{Name: name, Context: d.base.Config.Positions, Open: func(ctx context.Context) (eval.Model, error) {
			m, err := d.open(ctx, folder, adapter)
			if err != nil {
				return eval.Model{}, err
			}
			return eval.Model{Scorer: m, Encoder: d.tok, Close: m.Close}, nil
		}}
	}
	docs, err := eval.ReadDocuments(ctx, d.corpus.eval)
	if err != nil {
		return err
	}
	var bar *progress.Bar
	c := eval.Comparison{Protocol: eval.Exact, Data: "Go standard library", Progress: func(name string) func(done, total int) {
		bar.Close()
		bar = progress.New(d.ErrOut, name, "tokens")
		return bar.Set
	}}
	t, err := c.Compare(ctx, []eval.Candidate{
		candidate("autodev-tiny", "", ""),
		candidate(fmt.Sprintf("LoRA, %d steps", d.steps), "", d.lora),
		candidate(fmt.Sprintf("full, %d steps", d.steps), d.full, ""),
	}, docs)
	bar.Close()
	if err != nil {
		return err
	}
	return t.Write(ctx, d.Out, "table")
}

// prompts are what an editor would send: the text before and after the cursor. Tokens begin with a space, so a prompt does not
// end with one.
var prompts = []struct{ prefix, suffix string }{
	{"package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tf, err := os.Open(\"config\")\n\tif err !=", "\n\tdefer f.Close()\n}\n"},
	{"package stack\n\n// Len returns the number of elements.\nfunc (s *Stack) Len() int {\n\treturn", "\n}\n"},
	{"package text\n\n// Count returns how often b occurs in s.\nfunc Count(s []byte, b byte) int {\n\tn := 0\n\tfor", "\n\treturn n\n}\n"},
}

// complete starts the server on the fully fine-tuned model, asks for completions as any client would and stops it.
func (d *demo) complete(ctx context.Context) (err error) {
	m, err := d.open(ctx, d.full, "")
	if err != nil {
		return err
	}
	defer m.Close()
	l, err := serve.Listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	models := registry.New(false)
	models.Put([]wire.Model{{ID: "demo", Engine: infer.NewEngine(m, infer.EngineOptions{}), Created: time.Now()}}, nil)
	s := serve.New(models, serve.Options{})
	go func() { done <- s.Serve(serving, l) }()
	defer func() {
		stop()
		if stopped := <-done; ctx.Err() == nil && !errors.Is(stopped, context.Canceled) {
			err = errors.Join(err, stopped)
		}
	}()
	url := "http://" + l.Addr().String() + "/v1/completions"
	d.say("\n5. The server answers at %s:\n", url)
	for _, p := range prompts {
		text, ms, err := request(ctx, url, p.prefix, p.suffix)
		if err != nil {
			return err
		}
		d.say("\n   --- %d ms ---\n%s\n", ms, indent(p.prefix+"⟦"+text+"⟧"+p.suffix))
	}
	return nil
}

func indent(code string) string {
	return "   " + strings.ReplaceAll(strings.TrimRight(code, "\n"), "\n", "\n   ")
}

// request asks for one greedy completion of a line and returns its text and how long it took.
func request(ctx context.Context, url, prefix, suffix string) (text string, ms int64, err error) {
	body, err := json.Marshal(map[string]any{"model": "demo", "prompt": prefix, "suffix": suffix, "max_tokens": 24, "temperature": 0, "stop": []string{"\n"}})
	if err != nil {
		return "", 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	begun := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	var answer struct {
		Choices []struct{ Text string }
		Error   struct{ Message string }
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", 0, fmt.Errorf("answer of %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK || len(answer.Choices) == 0 {
		return "", 0, fmt.Errorf("answer of %s: %s: %s", url, res.Status, answer.Error.Message)
	}
	return answer.Choices[0].Text, time.Since(begun).Milliseconds(), nil
}
