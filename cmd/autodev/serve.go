package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/infer"
	"autodev/models"
	"autodev/serve"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "serve completions over HTTP (OpenAI's /v1/completions, with suffix)",
		Description: "Prints one line with the address when ready; logs requests, never their text, to standard error.\n" +
			"A first interrupt lets requests under way finish, for at most ten seconds.",
		Flags: append(inferenceFlags(),
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` to listen on; there is no authentication, so think before leaving 127.0.0.1", Value: "127.0.0.1:8000"},
			&cli.StringFlag{Name: "name", Usage: "the model's id for clients (default: its folder's name)"},
			&cli.IntFlag{Name: "queue", Usage: "requests that may wait for their turn", Value: 64},
			&cli.StringFlag{Name: "log", Usage: "text, json or off", Value: "text"},
		),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("serve: found argument %q, expected flags only", c.Args().First())
			}
			return serveModel(c.Context, serveFlags{
				model: c.String("model"), adapter: c.String("adapter"), threads: c.Int("threads"),
				listen: c.String("listen"), name: c.String("name"), queue: c.Int("queue"), log: c.String("log"),
			}, c.App.Writer, c.App.ErrWriter)
		},
	}
}

// inferenceFlags choose a model to run.
func inferenceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "model", Usage: "model `FOLDER`, or " + models.Tiny, Value: models.Tiny},
		&cli.StringFlag{Name: "adapter", Usage: "`FOLDER` of a PEFT LoRA adapter of the model"},
		&cli.IntFlag{Name: "threads", Usage: "0 takes all processors"},
	}
}

type serveFlags struct {
	model, adapter    string
	threads           int
	listen, name, log string
	queue             int
}

func serveModel(ctx context.Context, f serveFlags, out, errOut io.Writer) error {
	if f.threads < 0 {
		return usageError("--threads %d: expected 0 or more", f.threads)
	}
	if f.queue < 1 {
		return usageError("--queue %d: expected 1 or more", f.queue)
	}
	var logger *slog.Logger
	switch f.log {
	case "text":
		logger = slog.New(slog.NewTextHandler(errOut, nil))
	case "json":
		logger = slog.New(slog.NewJSONHandler(errOut, nil))
	case "off":
	default:
		return usageError("--log %s: expected text, json or off", f.log)
	}
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return usageError("--listen %s: expected HOST:PORT", f.listen)
	}
	// Listening comes first: a port in use must not cost the time to load a model.
	l, err := serve.Listen(ctx, f.listen)
	if err != nil {
		return err
	}
	defer l.Close() // again, when the server has closed it
	m, _, err := openInference(ctx, f.model, f.adapter, f.threads)
	if err != nil {
		return err
	}
	defer m.Close()
	if f.name == "" {
		f.name = modelID(f.model, f.adapter)
	}
	s := serve.New(infer.NewEngine(m, infer.EngineOptions{Queue: f.queue}), serve.Options{Model: f.name, Created: time.Now(), Logger: logger})
	if _, err := fmt.Fprintf(out, "%s is ready at http://%s/v1\n", f.name, l.Addr()); err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// modelID is how clients call a model: the names of its folder and its adapter's.
func modelID(name, adapter string) string {
	id := filepath.Base(filepath.Clean(modelLabel(name)))
	if adapter != "" {
		id += "+" + filepath.Base(filepath.Clean(adapter))
	}
	return id
}
