package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/infer"
	"autodev/infer/chat"
	"autodev/models"
	"autodev/serve/registry"
	"autodev/serve/wire"
)

// load makes the model ready to be served.
func (f serveFlags) load(ctx context.Context) (registry.Loaded, error) {
	template, err := chatTemplate(f.model)
	if err != nil {
		return registry.Loaded{}, err
	}
	m, tok, err := f.open(ctx)
	if err != nil {
		return registry.Loaded{}, err
	}
	o := infer.EngineOptions{Queue: f.queue, Concurrency: f.concurrency, Reuse: f.reuse}
	switch {
	case f.promptCache == 0:
		o.CacheBytes = -1
	case f.promptCache > 0:
		o.CacheBytes = int64(f.promptCache) << 20
	}
	engine := infer.NewEngine(m, o)
	l := registry.Loaded{
		Adapters: engine,
		Model:    wire.Model{ID: f.name, Engine: engine, Path: f.model, Created: time.Now(), Order: f.order, Speculate: f.speculate, Shape: f.shape, Heal: f.heal, Reuse: true},
		Close: func() {
			engine.Close()
			m.Close()
		},
	}
	if tok != nil {
		l.Model.Chat = chat.NewPrompter(template, tok)
	}
	return l, nil
}

// chatTemplate returns the template of the model called name, nil when it has none.
func chatTemplate(name string) (*chat.Template, error) {
	fsys, embedded, err := models.Open(name)
	switch {
	case err != nil:
		return nil, err
	case embedded:
		return chat.LoadFS(fsys, models.Tiny)
	}
	return chat.Load(name)
}

// reloader is what a hangup reloads.
type reloader interface {
	Reload(ctx context.Context) error
}

// reload reads the model again and logs what came of it.
func reload(ctx context.Context, m reloader, logger *slog.Logger) {
	began := time.Now()
	err := m.Reload(ctx)
	switch {
	case logger == nil:
	case err != nil:
		logger.Error("reload: the model before goes on", "error", err)
	default:
		logger.Info("reload", "took", time.Since(began))
	}
}

// reloadOn reloads m at each of signals until stop is called or ctx ends.
func reloadOn(ctx context.Context, signals <-chan os.Signal, m reloader, logger *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-signals:
				reload(ctx, m, logger)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// modelID is how clients call a model: the names of its folder and its adapter's.
func modelID(name, adapter string) string {
	id := filepath.Base(filepath.Clean(modelLabel(name)))
	if adapter != "" {
		id += "+" + filepath.Base(filepath.Clean(adapter))
	}
	return id
}

// namedFolders reads the values of --lora.
func namedFolders(values []string) (all []registry.Adapter, err error) {
	for _, v := range values {
		name, folder, ok := strings.Cut(v, "=")
		if !ok || name == "" || folder == "" {
			return nil, usageError("--lora %s: expected NAME=FOLDER", v)
		}
		all = append(all, registry.Adapter{Name: name, Path: folder})
	}
	return all, nil
}

func linesFlag() cli.Flag {
	return &cli.StringFlag{Name: "lines", Usage: "how much a completion between two texts spans, unless its request says: one (the rest of the line), block (a line and the block it opens), auto (one inside a line, else block) or all", Value: "auto"}
}

func reuseFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "reuse", Value: string(infer.ReuseExact),
		Usage: "answers from a suggestion while it is typed along, without the model. exact: those that are what the model would say now, which most are with --heal; " +
			"shown: always the rest of what was shown, so that it stays as it is even where the model would change its mind; off: none",
	}
}

// reuseOf reads the value of reuseFlag.
func reuseOf(c *cli.Context) (infer.Reuse, error) {
	r, err := infer.ParseReuse(c.String("reuse"))
	if err != nil {
		return "", usageError("--reuse %s: expected exact, shown or off", c.String("reuse"))
	}
	return r, nil
}

func healFlag() cli.Flag {
	return &cli.BoolFlag{Name: "heal", Usage: "let completions with a suffix begin with the word under the cursor, as if it were not split into tokens there", Value: true}
}

// linesOf reads the value of linesFlag.
func linesOf(value string) (infer.Lines, error) {
	l, ok := infer.LineNames()[value]
	if !ok {
		return 0, usageError("--lines %s: expected one, block, auto or all", value)
	}
	return l, nil
}
