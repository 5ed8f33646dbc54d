package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"autodev/serve/events"
	"autodev/serve/guard"
	"autodev/serve/metrics"
	"autodev/serve/page"
	"autodev/serve/tabby"
	"autodev/serve/wire"
)

// Operations are what stands around the protocols of a server that others rely on.
type Operations struct {
	Version        string      // of the program
	Keys           *guard.Keys // nil: nobody needs one
	Hosts, Origins []string    // that are answered beside this machine's own
	Events         *events.Log // nil: none are kept, and what they say of suggestions is not counted
	// LogContent puts prompts and completions into the log, which are code of users.
	LogContent bool
}

// Operate returns a server like New with p around it: who may use it, metrics, events, and the page at /.
func Operate(service wire.Service, o Options, p Operations) (*Server, error) {
	if o.Protocols == nil {
		o.Protocols = Protocols()
	}
	g, err := guard.New(guard.Options{Keys: p.Keys, Hosts: p.Hosts, Origins: p.Origins})
	if err != nil {
		return nil, err
	}
	m := metrics.New(metrics.Options{Version: p.Version, Service: service})
	var s *Server
	home, err := page.New(page.Options{Version: p.Version, Summary: m.Summary, Draining: func() bool { return s.draining.Load() }})
	if err != nil {
		return nil, err
	}
	o.Protocols = append(o.Protocols[:len(o.Protocols):len(o.Protocols)], home, m.Protocol())
	o.Guard, o.Wrap = g.Call, g.Wrap
	o.Observe = m.Observe
	if p.LogContent && o.Logger != nil {
		o.Logger.Warn("prompts and completions, which are code of users, are written to this log")
		o.Observe = func(r wire.Record) {
			m.Observe(r)
			logContent(o.Logger, service, r)
		}
	}
	if p.Events != nil {
		p.Events.Observe(func(e events.Event) { m.Suggestion(string(e.Type)) })
		o.Remember = func(c *wire.Call, s wire.Suggestion) {
			p.Events.Remember(events.Completion{
				ID: s.ID, Model: c.Record.Model, Adapter: c.Record.Adapter, Language: s.Language, Path: s.Prompt.Filename, Client: c.Record.Client,
				Prefix: s.Prompt.Prefix, Suffix: s.Prompt.Suffix, Choices: s.Texts,
			})
		}
	}
	s = New(service, o)
	return s, nil
}

// logContent writes what a model read and wrote.
func logContent(logger *slog.Logger, service wire.Service, r wire.Record) {
	if len(r.Results) == 0 {
		return
	}
	m, release, err := service.Use(r.Model)
	if err != nil {
		return
	}
	defer release()
	for i, res := range r.Results {
		logger.Info("content", "protocol", r.Protocol, "model", r.Model, "client", r.Client, "choice", i, "prompt", m.Engine.Decode(res.PromptIDs), "completion", res.Text)
	}
}

// Recorder gives a log the events of Tabby's protocol.
func Recorder(l *events.Log) tabby.Recorder { return recorder{l} }

type recorder struct{ log *events.Log }

func (r recorder) Record(e tabby.Event) error {
	kind := ""
	if e.Line {
		kind = "line"
	}
	err := r.log.Record(events.Event{
		Type: events.Type(e.Type), Completion: e.CompletionID, Choice: e.Choice, View: e.View, Kind: kind, Client: e.Client,
		Elapsed: time.Duration(max(0, e.ElapsedMS)) * time.Millisecond,
	})
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &invalid):
		return wire.BadField(invalid.Field, "%s", invalid.Message)
	case errors.Is(err, events.ErrUnknown), errors.Is(err, events.ErrFull):
		return nil // an editor can do nothing about it
	case err != nil:
		return fmt.Errorf("the event was not kept: %w", err)
	}
	return nil
}
