package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"autodev/serve"
	suggestions "autodev/serve/events"
	"autodev/serve/guard"
	"autodev/serve/wire"
)

// operationsFlags are the flags of serve that say who may use the server and what it keeps.
func operationsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "listen", Usage: "`ADDRESS` to listen on: HOST:PORT or unix:PATH; may be repeated. What other machines can reach needs --api-keys", Value: cli.NewStringSlice("127.0.0.1:8000")},
		&cli.StringFlag{Name: "api-keys", Usage: "`FILE` of the keys that may use the server (autodev keys makes them); changes are noticed. Without it everybody may who can reach it"},
		&cli.StringFlag{Name: "api-usage", Usage: "`FILE` to keep in what keys with a number of tokens a day have used, over a restart (default: that of the keys with .usage); each server has its own"},
		&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` of a certificate chain (PEM), for https; read again when it changes"},
		&cli.StringFlag{Name: "tls-key", Usage: "`FILE` of its key (PEM)"},
		&cli.BoolFlag{Name: "insecure", Usage: "listen where other machines can reach the server although it asks for no keys"},
		&cli.StringSliceFlag{Name: "allow-host", Usage: "`NAME` by which the server may be called beside this machine's own, such as build.example.org, .example.org or *; may be repeated"},
		&cli.StringSliceFlag{Name: "allow-origin", Usage: "`ORIGIN` whose pages may use the server, such as https://example.org, app://* or *; may be repeated"},
		&cli.IntFlag{Name: "max-body", Usage: "`MIB` of a request, at most", Value: 8},
		&cli.IntFlag{Name: "max-connections", Usage: "`N` connections open at a time on each address; others wait", Value: 1024},
		&cli.DurationFlag{Name: "announce", Usage: "`TIME` that a server that is asked to stop goes on, with /readyz saying that it will, before it takes no more requests"},
		&cli.DurationFlag{Name: "grace", Usage: "`TIME` for requests under way when the server stops", Value: 10 * time.Second},
		&cli.StringFlag{Name: "events", Usage: "`FOLDER` to keep what became of suggestions in (POST /v1/events), as JSON lines without code"},
		&cli.BoolFlag{Name: "events-content", Usage: "keep the code around suggestions that were taken too, for training"},
		&cli.BoolFlag{Name: "log-content", Usage: "write prompts and completions, which are code of users, to the log"},
	}
}

// operations are the values of these flags.
type operations struct {
	listen                    []string
	keys, usage               string
	tlsCert, tlsKey           string
	insecure                  bool
	hosts, origins            []string
	maxBody, maxConnections   int
	announce, grace           time.Duration
	events                    string
	eventsContent, logContent bool
}

func operationsOf(c *cli.Context) (operations, error) {
	o := operations{
		listen: c.StringSlice("listen"), keys: c.String("api-keys"), usage: c.String("api-usage"), tlsCert: c.String("tls-cert"), tlsKey: c.String("tls-key"), insecure: c.Bool("insecure"),
		hosts: c.StringSlice("allow-host"), origins: c.StringSlice("allow-origin"), maxBody: c.Int("max-body"), maxConnections: c.Int("max-connections"),
		announce: c.Duration("announce"), grace: c.Duration("grace"), events: c.String("events"), eventsContent: c.Bool("events-content"), logContent: c.Bool("log-content"),
	}
	switch {
	case o.maxBody < 1 || o.maxBody > 1024:
		return o, usageError("--max-body %d: expected 1 to 1024", o.maxBody)
	case o.maxConnections < 1:
		return o, usageError("--max-connections %d: expected 1 or more", o.maxConnections)
	case o.announce < 0:
		return o, usageError("--announce %v: expected 0s or more", o.announce)
	case o.grace <= 0:
		return o, usageError("--grace %v: expected more than 0s", o.grace)
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return o, usageError("--tls-cert and --tls-key: found one of them, expected both or none")
	case o.usage != "" && o.keys == "":
		return o, usageError("--api-usage: found without --api-keys, expected a file of keys")
	case o.eventsContent && o.events == "":
		return o, usageError("--events-content: found without --events, expected a folder to keep them in")
	}
	if _, err := guard.New(guard.Options{Hosts: o.hosts, Origins: o.origins}); err != nil {
		return o, misuse{err}
	}
	exposure := guard.Exposure{Keys: o.keys != "", TLS: o.tlsCert != "", Insecure: o.insecure}
	for _, addr := range o.listen {
		if err := guard.CheckAddr(addr); err != nil {
			return o, usageError("--listen %w", err)
		}
		if _, err := exposure.Check(addr); err != nil {
			return o, usageError("--listen %w", err)
		}
	}
	return o, nil
}

// operating is a server's surroundings, made ready.
type operating struct {
	listeners []net.Listener
	urls      []string
	events    *suggestions.Log
	usage     *guard.Usage // nil: nobody needs a key
	serve.Operations
	limits wire.Limits
}

// start opens what the flags name. logger may be nil.
func (o operations) start(ctx context.Context, logger *slog.Logger) (_ *operating, err error) {
	log := logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &operating{
		Operations: serve.Operations{Version: version(), Hosts: o.hosts, Origins: o.origins, LogContent: o.logContent},
		limits:     wire.Limits{MaxBody: int64(o.maxBody) << 20},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if o.keys != "" {
		if r.Keys, err = guard.OpenKeys(o.keys, log); err != nil {
			return r, err
		}
		if r.usage, err = guard.OpenUsage(cmp.Or(o.usage, o.keys+".usage"), r.Keys); err != nil {
			return r, err
		}
	}
	var certificate *guard.Certificate
	scheme := "http://"
	if o.tlsCert != "" {
		if certificate, err = guard.OpenCertificate(o.tlsCert, o.tlsKey, log); err != nil {
			return r, err
		}
		scheme = "https://"
	}
	exposure := guard.Exposure{Keys: o.keys != "", TLS: certificate != nil, Insecure: o.insecure}
	for _, addr := range o.listen {
		warning, err := exposure.Check(addr)
		if err != nil {
			return r, err
		}
		if warning != "" {
			log.Warn(warning)
		}
		l, err := guard.Listen(ctx, addr)
		if err != nil {
			return r, err
		}
		url := addr
		if !strings.HasPrefix(addr, "unix:") {
			url = scheme + l.Addr().String() + "/v1"
		}
		l = guard.Limit(l, o.maxConnections)
		if certificate != nil && l.Addr().Network() != "unix" {
			l = tls.NewListener(l, certificate.Config())
		}
		r.listeners, r.urls = append(r.listeners, l), append(r.urls, url)
	}
	if r.events, err = suggestions.Open(suggestions.Options{Dir: o.events, Content: o.eventsContent, Logger: log}); err != nil {
		return r, err
	}
	r.Events = r.events
	return r, nil
}

// Close closes what start has opened; a server has closed its listeners before.
func (r *operating) Close() error {
	var all []error
	for _, l := range r.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	if r.usage != nil {
		all = append(all, r.usage.Close())
	}
	if r.events != nil {
		all = append(all, r.events.Close())
	}
	return errors.Join(all...)
}

// ready is the line that says where the server is.
func (r *operating) ready(name string) string {
	return fmt.Sprintf("%s is ready at %s\n", name, strings.Join(r.urls, ", "))
}
